//! What happened in the window: events and decisions, as marks.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};
use serde_json::Value as Json;

use super::Window;
use crate::change;
use crate::error::ReportError;
use crate::row::rows;
use crate::timeline::{Mark, MarkKind};

/// The marks of the run, of the devices and of the host; without a run, those of all runs.
pub(super) async fn of_window(reader: &Reader, window: &Window) -> Result<Vec<Mark>, ReportError> {
    let mut marks = events(reader, window).await?;
    marks.extend(decisions(reader, window).await?);
    Ok(marks)
}

async fn events(reader: &Reader, window: &Window) -> Result<Vec<Mark>, ReportError> {
    let sql = "SELECT e.at_ns, e.kind, e.device, e.message, e.detail, \
                   EXISTS (SELECT 1 FROM runs AS r JOIN runs AS p ON p.engine = r.engine AND p.id < r.id \
                           WHERE r.id = e.run_id) \
               FROM events AS e WHERE e.at_ns BETWEEN ?1 AND ?2 \
               AND (?3 IS NULL OR e.run_id IS NULL OR e.run_id = ?3) ORDER BY e.at_ns, e.id";
    let [from, to] = window.bounds();
    let table = reader.query(sql, &[from, to, Value::from(window.run)]).await?;
    let marks = rows(&table).filter_map(|mut row| {
        let (at_ns, word, device) = (row.int()?, row.word(), row.text());
        let (message, detail) = (row.word(), row.json());
        let again = row.int() == Some(1);
        let label = if message.is_empty() {
            word.replace('_', " ")
        } else {
            message
        };
        Some(Mark {
            at_ns,
            kind: kind_of_event(&word, again),
            device,
            detail: figures(&detail, &label),
            label,
        })
    });
    Ok(marks.collect())
}

fn kind_of_event(word: &str, again: bool) -> MarkKind {
    match word {
        "process_start" if again => MarkKind::Restart,
        "process_start" => MarkKind::ProcessStart,
        "process_exit" => MarkKind::ProcessExit,
        "out_of_memory" => MarkKind::OutOfMemory,
        "xid" => MarkKind::Xid,
        "throttle" => MarkKind::Throttle,
        "device_lost" | "driver_missing" => MarkKind::DeviceLost,
        "device_back" | "driver_back" => MarkKind::DeviceBack,
        "human_edit" => MarkKind::HumanEdit,
        "sampling_gap" => MarkKind::SamplingGap,
        _ => MarkKind::Note,
    }
}

/// The plain figures of an event: "xid 79, pid 4242". Longer things are left to `show`, and what is `said` is not said
/// twice.
fn figures(detail: &Json, said: &str) -> String {
    let is_said = |value: &str| {
        said.split(|c: char| !(c.is_alphanumeric() || "_.-/".contains(c)))
            .any(|word| word == value)
    };
    let told = detail
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let value = match value {
                Json::Number(number) => number.to_string(),
                Json::String(text) if text.len() <= 60 && !text.contains('\n') => text.clone(),
                Json::Bool(flag) => flag.to_string(),
                _ => return None,
            };
            let is_new = !value.is_empty() && !is_said(&value);
            is_new.then(|| format!("{} {value}", key.replace('_', " ")))
        });
    told.collect::<Vec<_>>().join(", ")
}

async fn decisions(reader: &Reader, window: &Window) -> Result<Vec<Mark>, ReportError> {
    let [from, to] = window.bounds();
    let values = [from, to, Value::from(window.run)];
    let changes = "SELECT c.decision_id, c.path, c.diff FROM config_changes AS c JOIN decisions AS d ON d.id = c.decision_id \
                   WHERE d.at_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR d.run_id IS NULL OR d.run_id = ?3) ORDER BY c.id";
    let table = reader.query(changes, &values).await?;
    let mut changed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for mut row in rows(&table) {
        let (Some(decision), path, diff) = (row.int(), row.word(), row.word()) else {
            continue;
        };
        changed
            .entry(decision)
            .or_default()
            .push(change::told(&path, &diff));
    }
    let sql = "SELECT id, at_ns, rule, mode, verdict, outcome, explanation, detail FROM decisions \
               WHERE at_ns BETWEEN ?1 AND ?2 AND (?3 IS NULL OR run_id IS NULL OR run_id = ?3) ORDER BY id";
    let table = reader.query(sql, &values).await?;
    let marks = rows(&table).filter_map(|mut row| {
        let (id, at_ns, rule, mode) = (row.int()?, row.int()?, row.word(), row.word());
        let (verdict, outcome, explanation, detail) = (row.word(), row.word(), row.word(), row.json());
        let mut parts = changed.remove(&id).unwrap_or_default();
        parts.extend(effect(&detail));
        parts.push(explanation);
        parts.retain(|part| !part.is_empty());
        Some(Mark {
            at_ns,
            kind: kind_of_decision(&verdict, &outcome),
            device: None,
            label: label(&rule, &mode, &verdict, &outcome),
            detail: parts.join("; "),
        })
    });
    Ok(marks.collect())
}

fn kind_of_decision(verdict: &str, outcome: &str) -> MarkKind {
    match outcome {
        "kept" if verdict == "apply" => MarkKind::Kept,
        "kept" => MarkKind::Released,
        "applying" | "applied" => MarkKind::Applied,
        "rolled_back" => MarkKind::RolledBack,
        "failed" => MarkKind::Failed,
        "refused" => MarkKind::Refused,
        "observed" | "proposed" => MarkKind::Proposed,
        _ => MarkKind::Note,
    }
}

/// "quantize applied and kept", "checkpointing would be released (observe)".
fn label(rule: &str, mode: &str, verdict: &str, outcome: &str) -> String {
    let done = match verdict {
        "apply" => "applied",
        "release" => "released",
        "revert" => "reverted",
        other => other,
    };
    match outcome {
        "kept" if verdict == "apply" => format!("{rule} {done} and kept"),
        "kept" => format!("{rule} {done}"),
        "applying" => format!("{rule} is being {done}"),
        "applied" => format!("{rule} {done}, being verified"),
        "rolled_back" => format!("{rule} {done} and rolled back"),
        "failed" => format!("{rule} {done}, and the engine did not recover"),
        "observed" | "proposed" => format!("{rule} would be {done} ({mode})"),
        other => format!("{rule} {verdict}: {}", other.replace('_', " ")),
    }
}

/// What was observed to be freed, as the tuner noted it.
fn effect(detail: &Json) -> Option<String> {
    let freed = detail.pointer("/effect/freed_bytes")?.as_f64()?;
    Some(change::freed(freed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_told_by_what_became_of_them() {
        assert_eq!(
            label("quantize", "act", "apply", "kept"),
            "quantize applied and kept"
        );
        assert_eq!(label("quantize", "act", "release", "kept"), "quantize released");
        assert_eq!(
            label("quantize", "observe", "apply", "observed"),
            "quantize would be applied (observe)"
        );
        assert_eq!(label("q", "act", "apply", "interrupted"), "q apply: interrupted");
        assert_eq!(kind_of_decision("release", "kept"), MarkKind::Released);
    }

    #[test]
    fn figures_that_are_long_empty_or_said_already_are_left_out() {
        let detail = serde_json::json!({"xid": 79, "diff": "a\nb", "gpu_lost": true, "steps": []});
        assert_eq!(figures(&detail, "Xid error"), "xid 79, gpu lost true");
        assert_eq!(figures(&detail, "Xid 79: lost"), "gpu lost true");
        let empty = serde_json::json!({"visible_devices": "", "pid": 42, "tier": "graph"});
        assert_eq!(
            figures(&empty, "an agent reports from process 42: tier graph"),
            ""
        );
        assert_eq!(figures(&empty, "process 421"), "pid 42, tier graph");
    }
}
