//! What a decision rested on, from its detail: where the rules stood, what the guards said, which rules and which file.

use std::time::Duration;

use plimsoll_trace::units::show_duration;
use serde_json::Value as Json;

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

/// What each guard said, with its numbers.
fn guards(detail: &Json) -> Vec<String> {
    let guard = |name: Option<&str>, guard: &Json| {
        let word = |keys: &[&str]| keys.iter().find_map(|key| guard.get(key)?.as_str());
        let name = name
            .or_else(|| word(&["guard", "name", "check"]))
            .unwrap_or("guard");
        let verdict = word(&["verdict", "result", "outcome"])
            .or(guard.as_str())
            .unwrap_or("unknown");
        let said = word(&["text", "said", "why", "message"]);
        let numbers = || {
            let pairs = guard.as_object().into_iter().flatten();
            let pairs = pairs.filter(|(_, value)| value.is_number() || value.is_boolean());
            pairs
                .map(|(key, value)| format!("{key} {value}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let said = said.map_or_else(numbers, str::to_owned);
        let said = if said.is_empty() {
            said
        } else {
            format!(": {said}")
        };
        format!("guard {}: {verdict}{said}", name.replace('_', " "))
    };
    match detail.get("guards") {
        Some(Json::Array(list)) => list.iter().map(|one| guard(None, one)).collect(),
        Some(Json::Object(all)) => all.iter().map(|(name, one)| guard(Some(name), one)).collect(),
        _ => Vec::new(),
    }
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
            "guards": [
                { "guard": "latency_p95", "verdict": "pass", "baseline_secs": 0.5, "now_secs": 0.55 },
                { "name": "errors", "verdict": "inconclusive", "text": "too few requests" },
            ],
            "file": { "reload": "signal HUP", "hash_before": "0123456789abcdef", "hash_after": "fedcba9876543210" },
            "ready": { "after_secs": 0.25, "read_back": "equal" },
            "rules_hash": "aaaaaaaaaaaaaaaaaaaa",
        });
        assert_eq!(
            lines(&detail),
            [
                "rungs: a stays taken; b was not taken and is taken",
                "guard latency p95: pass: baseline_secs 0.5, now_secs 0.55",
                "guard errors: inconclusive: too few requests",
                "the engine was told by signal HUP; it served again after 250 ms and showed the new values",
                "by hash: rules aaaaaaaaaaaa; file 0123456789ab to fedcba987654",
            ]
        );
        assert!(lines(&json!({})).is_empty() && lines(&Json::Null).is_empty());
    }
}
