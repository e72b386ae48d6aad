//! The agents in `plimsoll status`: what each was asked for, what it does, what it costs.

use std::collections::BTreeMap;

use plimsoll_trace::units::show_ratio;
use serde_json::Value;

use super::control::{bytes, indented, list, plain, word};

/// For each run a short table, and below it why agents do not do all that they were asked for. Nothing without agents.
pub(super) fn text(status: &Value) -> String {
    let runs = list(status, "agents").chunk_by(|a, b| a["run"] == b["run"]);
    runs.map(of_run).collect()
}

fn of_run(agents: &[Value]) -> String {
    let mut table = plain(&["pid", "tier", "state", "cost", "duty", "lost", "VRAM limit"]);
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for agent in agents {
        table.add_row([
            number(agent, "pid"),
            tier(agent),
            state(agent).to_owned(),
            cost(agent),
            ratio(agent, "duty_ratio"),
            lost(agent),
            bytes(agent, "device_bytes"),
        ]);
        let message = agent["message"].as_str().unwrap_or_default();
        if !message.is_empty() {
            reasons.entry(message).or_default().push(number(agent, "pid"));
        }
    }
    let reason = |(message, pids): (&str, Vec<String>)| format!("  process {}: {message}\n", pids.join(", "));
    let reasons: String = reasons.into_iter().map(reason).collect();
    let (run, name) = (&agents[0]["run"], word(&agents[0], "name"));
    format!("agents of run {run} ({name}):\n{}{reasons}", indented(&table))
}

fn number(agent: &Value, key: &str) -> String {
    agent[key]
        .as_u64()
        .map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

/// The tier in force, and behind it the one that was asked for, if it is another.
fn tier(agent: &Value) -> String {
    let (wanted, tier) = (agent["wanted_tier"].as_str(), agent["tier"].as_str());
    match (wanted, tier) {
        (Some(wanted), Some(tier)) if wanted != tier => format!("{tier}/{wanted}"),
        (_, Some(tier)) => tier.to_owned(),
        (Some(wanted), None) => wanted.to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

fn state(agent: &Value) -> &str {
    match agent["state"].as_str() {
        Some("tracing") => "recording",
        Some(other) => other,
        None => "unknown",
    }
}

fn cost(agent: &Value) -> String {
    let cost = agent["cost_ratio"]
        .as_f64()
        .map_or_else(|| "unknown".to_owned(), fine);
    match agent["budget_ratio"].as_f64() {
        Some(budget) if budget < 1.0 => format!("{cost} of {}", whole(budget)),
        // There is no limit, or nobody knows it.
        _ => cost,
    }
}

/// A budget as it was probably written: 1 %, 0.05 %.
fn whole(ratio: f64) -> String {
    let percent = (ratio * 1e6).round() / 1e4;
    format!("{percent} %")
}

/// A small share, with two decimals.
fn fine(ratio: f64) -> String {
    format!("{:.2} %", ratio * 100.0)
}

fn ratio(agent: &Value, key: &str) -> String {
    agent[key]
        .as_f64()
        .map_or_else(|| "unknown".to_owned(), show_ratio)
}

fn lost(agent: &Value) -> String {
    let Some(losses) = agent["losses"].as_object() else {
        return "unknown".to_owned();
    };
    let sum = losses
        .values()
        .filter_map(Value::as_u64)
        .fold(0_u64, u64::saturating_add);
    sum.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_agent_has_a_line_and_its_reason_below() {
        let agents = json!({ "agents": [
            { "run": 3, "name": "nightly-deepseek-evaluation", "pid": 4_194_304, "wanted_tier": "graph", "tier": "memory",
              "state": "degraded", "message": "tier memory in place of graph", "budget_ratio": 0.01, "cost_ratio": 0.0042,
              "duty_ratio": 0.25, "device_bytes": 64_000_000, "losses": { "ring_full": 7, "over_budget": 5 } },
            { "run": 4, "name": null, "pid": null, "wanted_tier": null, "tier": null, "state": null, "message": "",
              "budget_ratio": null, "cost_ratio": null, "duty_ratio": null, "device_bytes": null, "losses": {} },
        ] });
        let text = text(&agents);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert_eq!(lines[0], "agents of run 3 (nightly-deepseek-evaluation):");
        for shown in [
            "memory/graph",
            "degraded",
            "0.42 % of 1 %",
            "25 %",
            "12",
            "61.0 MiB",
        ] {
            assert!(lines[2].contains(shown), "{shown}: {text}");
        }
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert_eq!(lines[3], "  process 4194304: tier memory in place of graph");
        assert_eq!(lines[4], "agents of run 4 (unknown):");
        assert!(lines[6].contains("unknown") && !lines[6].contains('%'), "{text}");
        assert_eq!([0.01, 0.000_5, 0.125].map(whole), ["1 %", "0.05 %", "12.5 %"]);
        assert_eq!(super::text(&json!({ "agents": [] })), "");
        assert_eq!(super::text(&json!({})), "", "an older daemon");
    }
}
