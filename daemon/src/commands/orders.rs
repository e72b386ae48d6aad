//! What a person looks at before a change, and orders: `plan`, `apply`, `revert`.

use std::process::ExitCode;
use std::time::Duration;

use plimsoll_trace::units;
use serde_json::Value;

use super::control::{ask_patiently, list, word};
use super::{Outcome, print, print_json};
use crate::cli::Source;
use crate::failure::{Failure, Status};
use crate::service::Request;

/// A health check may take an hour, and be made twice.
const PATIENCE: Duration = Duration::from_secs(2 * 3_600 + 600);
const SOON: Duration = Duration::from_secs(10);

pub(super) fn plan(source: &Source, json: bool) -> Outcome {
    let answer = ask_patiently(source, &Request::Plan, SOON)?;
    if json {
        return print_json(&answer);
    }
    let plans = list(&answer, "plan");
    if plans.is_empty() {
        return print("Nothing waits for a person, and no rule is about to act.\n");
    }
    let texts: Vec<String> = plans.iter().map(planned).collect();
    print(&texts.join("\n"))
}

pub(super) fn apply(proposal: String, source: &Source, json: bool) -> Outcome {
    order(source, &Request::Apply { proposal }, json)
}

pub(super) fn revert(decision: i64, source: &Source, json: bool) -> Outcome {
    order(source, &Request::Revert { decision }, json)
}

fn order(source: &Source, request: &Request, json: bool) -> Outcome {
    let answer = ask_patiently(source, request, PATIENCE)?;
    let explanation = word(&answer, "explanation");
    let outcome = word(&answer, "outcome").replace('_', " ");
    let text = format!("decision {}: {outcome}. {explanation}", answer["decision"]);
    let is_kept = answer["is_kept"] == true;
    if json {
        print_json(&answer)?;
    } else if is_kept {
        print(&format!("{text}\n"))?;
    }
    if is_kept {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Status::Failed, anyhow::Error::msg(text)))
}

/// One rule's next step, for people.
fn planned(plan: &Value) -> String {
    let (rule, engine, verdict) = (word(plan, "rule"), word(plan, "engine"), word(plan, "verdict"));
    let step = match (plan["decision"].as_i64(), verdict.as_str()) {
        (Some(decision), "apply") => {
            format!("proposes to take its rung (decision {decision}); to do it: plimsoll apply {decision}")
        }
        (Some(decision), _) => {
            format!("proposes to let its rung go (decision {decision}); to do it: plimsoll apply {decision}")
        }
        (None, "apply") => format!("would take its rung next; it is {} now", word(plan, "phase")),
        (None, _) => "would let its rung go next".to_owned(),
    };
    let mut text = format!("rule {rule} of {engine} ({}): {step}\n", word(plan, "mode"));
    for block in list(plan, "blocks") {
        text += &format!("  not yet: {}\n", word(block, "text"));
    }
    let sign = if verdict == "apply" { "frees" } else { "takes" };
    let effect = plan.pointer("/effect/bytes").and_then(Value::as_u64);
    text += &effect.map_or_else(
        || "  effect: what it does to memory is not known yet\n".to_owned(),
        |bytes| {
            let source = match plan.pointer("/effect/source").and_then(Value::as_str) {
                Some("learned") => "as seen before",
                Some("measured") => "as seen this time",
                _ => "as the rule says",
            };
            format!("  effect: {sign} {}, {source}\n", units::show_bytes(bytes))
        },
    );
    let outage = plan["expected_outage_secs"].as_f64();
    let outage = outage
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .map_or_else(
            || "how long the engine is away for it was never seen".to_owned(),
            |away| {
                format!(
                    "the engine was away for {} the last time",
                    units::show_duration(away)
                )
            },
        );
    text += &format!("  reload: {}; {outage}\n", word(plan, "reload"));
    match (plan["diff"].as_str(), plan["problem"].as_str()) {
        (Some(""), _) => text += "  the file says so already\n",
        (Some(diff), _) => {
            let lines: Vec<String> = diff.lines().map(|line| format!("    {line}\n")).collect();
            text += &lines.concat();
        }
        (None, problem) => text += &format!("  it cannot be done: {}\n", problem.unwrap_or("unknown")),
    }
    text
}
