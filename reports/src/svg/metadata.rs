//! What a picture carries with it, so that it can be traced back and read again.

use serde_json::{Value, json};

use crate::timeline::{Mark, Timeline};

/// Marks beyond this are counted only, so that the picture stays small.
pub(super) const MOST_MARKS: usize = 200;
const LONGEST_TEXT: usize = 300;

/// Compact JSON: the run, the window, each device's peak and lines, the marks, and the query for the readings.
pub(super) fn json(timeline: &Timeline, marks: &[&Mark], verdict: &str) -> String {
    let title = &timeline.title;
    let devices: Vec<Value> = timeline
        .devices
        .iter()
        .map(|device| {
            let lines: Vec<Value> = device
                .lines
                .iter()
                .map(|line| json!({"rule": short(&line.rule), "enter_bytes": line.enter_bytes, "exit_bytes": line.exit_bytes}))
                .collect();
            json!({
                "device": short(&device.uuid),
                "name": device.name.as_deref().map(short),
                "driver": device.driver.as_deref().map(short),
                "total_bytes": device.capacity_bytes,
                "reserved_bytes": device.reserved_bytes,
                "peak_used_bytes": device.peak.map(|peak| peak.used_bytes),
                "peak_at_ns": device.peak.map(|peak| peak.at_ns),
                "gaps": device.gaps.len(),
                "lines": lines,
            })
        })
        .collect();
    let told: Vec<Value> = marks
        .iter()
        .take(MOST_MARKS)
        .enumerate()
        .map(|(index, mark)| {
            json!({
                "number": index + 1,
                "at_ns": mark.at_ns,
                "kind": mark.kind.word(),
                "device": mark.device.as_deref().map(short),
                "label": short(&mark.label),
                "detail": short(&mark.detail),
            })
        })
        .collect();
    let query = format!(
        "SELECT device, at_ns, used_bytes FROM device_samples WHERE at_ns BETWEEN {} AND {} ORDER BY at_ns",
        timeline.from_ns, timeline.to_ns
    );
    json!({
        "version": 1,
        "verdict": verdict,
        "run": {
            "id": title.run_id,
            "name": short(&title.name),
            "engine": title.engine.as_deref().map(short),
            "model": title.model.as_deref().map(short),
            "host": title.host.as_deref().map(short),
            "started_ns": title.started_ns,
            "outcome": title.outcome,
        },
        "from_ns": timeline.from_ns,
        "to_ns": timeline.to_ns,
        "devices": devices,
        "marks": told,
        "marks_left_out": marks.len().saturating_sub(MOST_MARKS),
        "query": query,
    })
    .to_string()
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
