//! What a decision rested on, from its detail: where the rules stood, what the guards said, which rules and which file.

use std::time::Duration;

use plimsoll_trace::units::{show_bytes, show_duration, show_ratio};
use serde_json::{Map, Value as Json};

/// So many digits of a hash tell it from others.
const DIGITS: usize = 12;

/// A line for each thing that is there.
pub(crate) fn lines(detail: &Json) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(standing(detail));
    lines.extend(guards(detail));
    lines.extend(told(detail));
    lines.extend(hashes(detail));
    lines
}

/// Where the rules stood before and after: what changed, and what did not.
fn standing(detail: &Json) -> Option<String> {
    let before = detail.get("state_before")?.as_object()?;
    let after = detail.get("state_after").and_then(Json::as_object);
    let each = before.iter().map(|(rule, was)| {
        let was = was.as_str().unwrap_or("unknown");
        let is = after.and_then(|after| after.get(rule)?.as_str());
        match is {
            Some(is) if is != was => format!("{rule} was {was} and is {is}"),
            Some(_) => format!("{rule} stays {was}"),
            None => format!("{rule} was {was}"),
        }
    });
    let all: Vec<String> = each.collect();
    (!all.is_empty()).then(|| format!("rungs: {}", all.join("; ")))
}

/// What each guard said, with its numbers: in the order in which they were asked.
fn guards(detail: &Json) -> Vec<String> {
    let when = ["before", "during", "after"];
    let asked = when.iter().flat_map(|when| {
        let of = detail
            .pointer(&format!("/guards/{when}"))
            .and_then(Json::as_array);
        of.into_iter().flatten().map(move |one| (when, one))
    });
    asked
        .filter_map(|(when, one)| guard(when, one.as_object()?))
        .collect()
}

fn guard(when: &str, one: &Map<String, Json>) -> Option<String> {
    let word = |key| one.get(key).and_then(Json::as_str);
    let name = word("guard")?.replace('_', " ");
    let finding = match word("finding")? {
        "pass" => "passed",
        "fail" => "failed",
        "inconclusive" => "cannot tell",
        other => other,
    };
    let said = word("said").map(|said| format!(": {said}")).unwrap_or_default();
    let numbers = numbers(one);
    let numbers = if numbers.is_empty() {
        numbers
    } else {
        format!(" ({numbers})")
    };
    Some(format!("{when}, {name} {finding}{said}{numbers}"))
}

/// "free 31.5 GiB, needed 257 KiB"; what lies deeper with what it is of.
fn numbers(of: &Map<String, Json>) -> String {
    let each = of.iter().filter_map(|(key, value)| match value {
        Json::Object(inner) => Some(numbers(inner))
            .filter(|inner| !inner.is_empty())
            .map(|inner| format!("{}: {inner}", key.replace('_', " "))),
        Json::Number(number) => Some(quantity(key, number.as_f64()?)),
        _ => None,
    });
    let all: Vec<String> = each.collect();
    let is_nested = of.values().any(Json::is_object);
    all.join(if is_nested { "; " } else { ", " })
}

/// A number by the unit that its name ends with.
fn quantity(key: &str, value: f64) -> String {
    let (name, value) = if let Some(name) = key.strip_suffix("_secs") {
        let time = Duration::try_from_secs_f64(value).map(show_duration);
        (name, time.unwrap_or_else(|_| value.to_string()))
    } else if let Some(name) = key.strip_suffix("_bytes") {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bytes of memory, far below 2^53"
        )]
        let bytes = show_bytes(value.abs() as u64);
        (name, if value < 0.0 { format!("-{bytes}") } else { bytes })
    } else if let Some(name) = key.strip_suffix("_ratio") {
        (name, show_ratio(value))
    } else {
        (key, ((value * 1e4).round() / 1e4).to_string())
    };
    format!("{} {value}", name.replace('_', " "))
}

/// How the engine was told, and how it answered.
fn told(detail: &Json) -> Option<String> {
    let reload = detail.pointer("/file/reload")?.as_str()?;
    let after = detail.pointer("/ready/after_secs").and_then(Json::as_f64);
    let after = after
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .map(|after| format!("; it served again after {}", show_duration(after)))
        .unwrap_or_default();
    let shown = match detail.pointer("/ready/read_back").and_then(Json::as_str) {
        Some("equal") => " and showed the new values",
        Some("unknown") => "; whether it took the new values it does not show",
        _ => "",
    };
    Some(format!("the engine was told by {reload}{after}{shown}"))
}

/// Which rules decided, and which text became which.
fn hashes(detail: &Json) -> Option<String> {
    let short = |text: &str| text.chars().take(DIGITS).collect::<String>();
    let word = |pointer| detail.pointer(pointer).and_then(Json::as_str).map(short);
    let rules = word("/rules_hash").map(|hash| format!("rules {hash}"));
    let file = word("/file/hash_before")
        .zip(word("/file/hash_after"))
        .map(|(before, after)| format!("file {before} to {after}"));
    let all: Vec<String> = [rules, file].into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("by hash: {}", all.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_thing_has_a_line_and_what_is_missing_has_none() {
        let detail = json!({
            "state_before": { "a": "taken", "b": "not taken" },
            "state_after": { "a": "taken", "b": "taken" },
            "guards": {
                "after": [
                    { "guard": "errors", "finding": "inconclusive", "said": "too few requests" },
                    { "guard": "latency", "finding": "fail", "said": "it is slower", "before": { "ttft_p95_secs": 0.5 }, "latency_max": 0.2 },
                ],
                "before": [
                    { "guard": "left_alone", "finding": "pass", "said": "nobody else is at it", "waited_secs": 2.0 },
                    { "guard": "disk", "finding": "pass", "said": "it has room", "free_bytes": 3_221_225_472_u64, "needed_bytes": 1024 },
                ],
            },
            "file": { "reload": "signal HUP", "hash_before": "0123456789abcdef", "hash_after": "fedcba9876543210" },
            "ready": { "after_secs": 0.25, "read_back": "equal" },
            "rules_hash": "aaaaaaaaaaaaaaaaaaaa",
        });
        assert_eq!(
            lines(&detail),
            [
                "rungs: a stays taken; b was not taken and is taken",
                "before, left alone passed: nobody else is at it (waited 2.0 s)",
                "before, disk passed: it has room (free 3.0 GiB, needed 1.0 KiB)",
                "after, errors cannot tell: too few requests",
                "after, latency failed: it is slower (before: ttft p95 500 ms; latency max 0.2)",
                "the engine was told by signal HUP; it served again after 250 ms and showed the new values",
                "by hash: rules aaaaaaaaaaaa; file 0123456789ab to fedcba987654",
            ]
        );
        assert!(lines(&json!({})).is_empty() && lines(&Json::Null).is_empty());
    }
}
