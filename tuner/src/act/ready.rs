//! Whether an engine serves, and whether what it serves with is what was planned.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::http;
use crate::edit::KeyPath;
use crate::spec::{Applied, EngineSpec, Probe};

/// How often an engine is asked while it reloads.
const POLL: Duration = Duration::from_millis(200);
/// A probe that is just due has this long at least.
const SHORTEST_PROBE: Duration = Duration::from_secs(1);
/// Without a read-back, an engine counts as ready after this many answers in a row: the first may still come from
/// before the reload.
const PASSES: u32 = 5;
/// Fractions that differ by less than this part of themselves are the same.
const PRECISION: f64 = 1e-6;

/// What the read-back says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReadBack {
    /// The engine shows the planned values.
    Equal,
    /// The engine shows other values: key, planned, shown.
    Differs(String, Value, Value),
    /// The engine does not show them.
    Unknown,
}

/// What waiting for an engine came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Readiness {
    /// It serves; with the planned values as far as it shows them.
    Ready {
        /// What the read-back said.
        read_back: ReadBack,
        /// How long it took.
        after: Duration,
    },
    /// No health check is configured, so nothing can be said.
    NotChecked,
    /// It does not serve, or not with the planned values, for the reason given.
    NotReady(String),
}

/// Asks once whether the engine answers its health check; `None` when none is configured.
#[must_use]
pub fn is_healthy(spec: &EngineSpec) -> Option<bool> {
    let health = spec.health.as_ref()?;
    Some(http::get(&health.http).is_ok_and(|answer| answer.is_success()))
}

/// Whether the engine is seen to serve with exactly these values.
pub(super) fn serves(spec: &EngineSpec, wanted: &[(KeyPath, Value)]) -> bool {
    is_healthy(spec) == Some(true) && read_back(spec.applied.as_ref(), wanted) == ReadBack::Equal
}

/// Whether the engine shows another value than these.
pub(super) fn shows_otherwise(spec: &EngineSpec, values: &[(KeyPath, Value)]) -> bool {
    matches!(read_back(spec.applied.as_ref(), values), ReadBack::Differs(..))
}

/// Waits until the engine serves with `wanted`, at most as long as its health check allows.
pub(super) fn wait_until_ready(
    spec: &EngineSpec,
    wanted: &[(KeyPath, Value)],
    started: Instant,
) -> Readiness {
    let Some(health) = &spec.health else {
        return Readiness::NotChecked;
    };
    let mut passes = 0;
    loop {
        let problem = match http::get(&health.http) {
            Ok(answer) if answer.is_success() => {
                passes += 1;
                match read_back(spec.applied.as_ref(), wanted) {
                    ReadBack::Differs(key, planned, shown) => {
                        format!("it shows {key} = {shown} instead of {planned}")
                    }
                    read_back if read_back == ReadBack::Equal || passes >= PASSES => {
                        match model_answers(
                            health.probe.as_ref(),
                            health.within.saturating_sub(started.elapsed()),
                        ) {
                            Ok(()) => {
                                return Readiness::Ready {
                                    read_back,
                                    after: started.elapsed(),
                                };
                            }
                            Err(problem) => problem,
                        }
                    }
                    _ => "it answers its health check, but not yet steadily".to_owned(),
                }
            }
            Ok(answer) => {
                passes = 0;
                format!("its health check {} answers {}", health.http, answer.status)
            }
            Err(_) => {
                passes = 0;
                format!("its health check {} does not answer", health.http)
            }
        };
        if started.elapsed() >= health.within {
            return Readiness::NotReady(format!("{problem} after {} s", started.elapsed().as_secs()));
        }
        std::thread::sleep(POLL);
    }
}

/// Sends the probe request, if one is configured, and gives the model all the time that is left: its first answer after
/// a load is slow, and one that is broken off and sent again may only queue up behind itself.
fn model_answers(probe: Option<&Probe>, left: Duration) -> Result<(), String> {
    let Some(Probe { http: call, body }) = probe else {
        return Ok(());
    };
    match http::send(call, body, Some(left.max(SHORTEST_PROBE))) {
        Ok(answer) if answer.is_success() => Ok(()),
        Ok(answer) => Err(format!(
            "its model does not answer: {} says {}",
            call.url, answer.status
        )),
        Err(_) => Err(format!(
            "its model does not answer: nothing comes from {}",
            call.url
        )),
    }
}

fn read_back(applied: Option<&Applied>, wanted: &[(KeyPath, Value)]) -> ReadBack {
    let Some(applied) = applied else {
        return ReadBack::Unknown;
    };
    let answer = http::get(&applied.url).ok().filter(http::Answer::is_success);
    let Some(shown) = answer.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok()) else {
        return ReadBack::Unknown;
    };
    compare(shown.pointer(&applied.pointer), wanted)
}

fn compare(shown: Option<&Value>, wanted: &[(KeyPath, Value)]) -> ReadBack {
    let Some(shown) = shown else {
        return ReadBack::Unknown;
    };
    let mut seen = 0;
    for (key, planned) in wanted {
        let found = key.keys().iter().try_fold(shown, |at, segment| at.get(segment));
        match found {
            None => {}
            Some(found) if same(found, planned) => seen += 1,
            Some(found) => return ReadBack::Differs(key.to_string(), planned.clone(), found.clone()),
        }
    }
    if seen == wanted.len() && seen > 0 {
        ReadBack::Equal
    } else {
        ReadBack::Unknown
    }
}

/// Numbers are compared as numbers: 1 and 1.0 are the same setting, and so is 0.9 of an engine that keeps it with single
/// precision and shows 0.8999999761581421.
fn same(a: &Value, b: &Value) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= PRECISION * a.abs().max(b.abs());
    let integers = a.is_i64() && b.is_i64();
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if !integers && close(a, b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn read_back_tells_equal_from_different_from_unknown() {
        let wanted = vec![
            ("model.quantization".parse().unwrap(), json!("int8")),
            ("batch".parse().unwrap(), json!(4)),
        ];
        let shown = json!({"model": {"quantization": "int8"}, "batch": 4.0, "other": 1});
        assert_eq!(compare(Some(&shown), &wanted), ReadBack::Equal);
        let shown = json!({"model": {"quantization": "none"}, "batch": 4});
        assert!(
            matches!(compare(Some(&shown), &wanted), ReadBack::Differs(key, ..) if key == "model.quantization")
        );
        assert_eq!(compare(Some(&json!({"batch": 4})), &wanted), ReadBack::Unknown);
        assert_eq!(compare(Some(&json!([1])), &wanted), ReadBack::Unknown);
        assert_eq!(compare(None, &wanted), ReadBack::Unknown);
        assert_eq!(compare(Some(&shown), &[]), ReadBack::Unknown);
    }

    #[test]
    fn a_number_is_the_same_with_less_precision() {
        assert!(same(&json!(0.9), &json!(f64::from(0.9_f32))));
        assert!(same(&json!(1), &json!(1.0)) && same(&json!(0), &json!(0.0)));
        assert!(!same(&json!(0.9), &json!(0.900_01)));
        assert!(
            !same(&json!(8_388_608), &json!(8_388_609)),
            "whole numbers are exact"
        );
        assert!(!same(&json!(0), &json!(1e-9)) && !same(&json!("1"), &json!(1)));
    }
}
