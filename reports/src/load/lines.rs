//! The lines of rules, as uses of a device.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};
use serde_json::Value as Json;

use super::Window;
use crate::error::ReportError;
use crate::row::rows;
use crate::timeline::{DeviceTrack, Line};

/// A rule's thresholds on a signal, in the signal's unit.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleLine {
    /// The rule.
    pub rule: String,
    /// The signal; only `vram.used_ratio`, `vram.used_bytes` and `vram.free_bytes` are lines in a memory timeline.
    pub signal: String,
    /// Where the rule takes effect.
    pub enter: f64,
    /// Where it may be taken back.
    pub exit: Option<f64>,
}

/// The given lines, and those of rules that decided something about the run in the window. A given line takes the place
/// of those of its name; rules of several engines may have one name.
pub(super) async fn of_window(
    reader: &Reader,
    window: &Window,
    given: &[RuleLine],
) -> Result<Vec<RuleLine>, ReportError> {
    // By rule, signal and engine.
    let mut lines: BTreeMap<(String, String, String), RuleLine> = BTreeMap::new();
    let sql = "SELECT engine, rule, signal, threshold, verdict, detail FROM decisions \
               WHERE at_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR run_id IS NULL OR run_id = ?3) ORDER BY id";
    let [from, to] = window.bounds();
    let table = reader.query(sql, &[from, to, Value::from(window.run)]).await?;
    for mut row in rows(&table) {
        let engine = row.word();
        let (rule, signal, threshold, verdict, detail) =
            (row.word(), row.word(), row.real(), row.word(), row.json());
        let mut found = clauses(&rule, &detail);
        if let (true, true, Some(enter)) = (found.is_empty(), verdict == "apply", threshold) {
            found.push(RuleLine {
                rule,
                signal,
                enter,
                exit: None,
            });
        }
        lines.extend(
            found
                .into_iter()
                .map(|line| ((line.rule.clone(), line.signal.clone(), engine.clone()), line)),
        );
    }
    let is_given = |found: &RuleLine| {
        given
            .iter()
            .any(|line| (&line.rule, &line.signal) == (&found.rule, &found.signal))
    };
    let found = lines.into_values().filter(|line| !is_given(line));
    Ok(given.iter().cloned().chain(found).collect())
}

/// The clauses that the tuner noted with a decision; those of the rule that triggered it.
fn clauses(rule: &str, detail: &Json) -> Vec<RuleLine> {
    let rule = detail.get("because_of").and_then(Json::as_str).unwrap_or(rule);
    let clauses = detail.get("clauses").and_then(Json::as_array);
    clauses
        .into_iter()
        .flatten()
        .filter_map(|clause| {
            Some(RuleLine {
                rule: rule.to_owned(),
                signal: clause.get("signal")?.as_str()?.to_owned(),
                enter: clause.get("enter")?.as_f64()?,
                exit: clause.get("exit").and_then(Json::as_f64),
            })
        })
        .collect()
}

/// The lines as memory in use on a device, lowest first.
pub(super) fn on_device(rules: &[RuleLine], track: &DeviceTrack) -> Vec<Line> {
    let mut lines: Vec<Line> = rules.iter().filter_map(|rule| line(rule, track)).collect();
    lines.sort_by(|a, b| (a.enter_bytes, &a.rule).cmp(&(b.enter_bytes, &b.rule)));
    lines
}

fn line(rule: &RuleLine, track: &DeviceTrack) -> Option<Line> {
    let usable = track.usable_bytes()?;
    #[expect(clippy::cast_precision_loss, reason = "device memory is far below 2^53 bytes")]
    let total = usable as f64;
    let used = |value: f64| match rule.signal.as_str() {
        "vram.used_ratio" => whole(value * total),
        "vram.used_bytes" => whole(value),
        "vram.free_bytes" => whole(total - value),
        _ => None,
    };
    let is_ratio = rule.signal == "vram.used_ratio";
    Some(Line {
        rule: rule.rule.clone(),
        enter_bytes: used(rule.enter)?,
        exit_bytes: rule.exit.and_then(used),
        enter_ratio: is_ratio.then_some(rule.enter),
        exit_ratio: rule.exit.filter(|_| is_ratio),
    })
}

/// A number of bytes that a device may have.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be 0..1e15"
)]
fn whole(bytes: f64) -> Option<u64> {
    (0.0..1e15).contains(&bytes).then(|| bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_memory_signal_becomes_a_use() {
        let track = DeviceTrack {
            capacity_bytes: Some(1100),
            reserved_bytes: Some(100),
            ..DeviceTrack::default()
        };
        let rule = |signal: &str, enter, exit| RuleLine {
            rule: signal.to_owned(),
            signal: signal.to_owned(),
            enter,
            exit: Some(exit),
        };
        let rules = [
            rule("vram.free_bytes", 100.0, 300.0),
            rule("vram.used_ratio", 0.8, 0.65),
            rule("vram.used_bytes", 850.0, f64::NAN),
            rule("engine.requests_waiting", 4.0, 1.0),
        ];
        let lines = on_device(&rules, &track);
        let told: Vec<(u64, Option<u64>)> = lines
            .iter()
            .map(|line| (line.enter_bytes, line.exit_bytes))
            .collect();
        assert_eq!(told, [(800, Some(650)), (850, None), (900, Some(700))]);
        assert_eq!(on_device(&rules, &DeviceTrack::default()), []);
    }
}
