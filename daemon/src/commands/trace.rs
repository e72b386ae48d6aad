//! `plimsoll trace`: tells the agents of a run to record each kernel for a while, or to make room for another profiler.

use std::time::Duration;

use plimsoll_trace::units::show_duration;
use serde_json::Value;

use super::control::{ask_patiently, list, word};
use super::{Outcome, print_json, query};
use crate::cli;
use crate::failure::{Failure, Status};
use crate::screen::say;
use crate::service::{Request, TraceWord};

/// Agents hear what they are told with their next flush, which is a minute away at most, and tell with the one after it.
const PATIENCE: Duration = Duration::from_secs(150);

pub(super) fn trace(arguments: &cli::Trace) -> Outcome {
    let run = query::find(&arguments.run.run, &arguments.source)?;
    let (word, patience) = match &arguments.what {
        cli::TraceWhat {
            window: Some(window), ..
        } => {
            let length = show_duration(*window);
            say(format_args!(
                "asking the agents of run {run} to keep each kernel for {length}"
            ));
            let ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
            (TraceWord::Window { ms }, PATIENCE + *window)
        }
        cli::TraceWhat { yields: true, .. } => (TraceWord::Yield, PATIENCE),
        cli::TraceWhat { .. } => (TraceWord::Resume, PATIENCE),
    };
    let mut answer = ask_patiently(&arguments.source, &Request::Trace { run, word }, patience)?;
    if let TraceWord::Window { .. } = word {
        let since_ns = answer["since_ns"].as_i64().unwrap_or(i64::MAX);
        answer["kernels"] = query::spans_since(run, since_ns, &arguments.source)?.into();
    }
    if arguments.json {
        answer["version"] = 1.into();
        answer["run"] = run.into();
        print_json(&answer)?;
    } else {
        tell(run, word, &answer);
    }
    let late: Vec<String> = list(&answer, "agents")
        .iter()
        .filter(|agent| agent["done"] == false)
        .map(|agent| agent["pid"].to_string())
        .collect();
    if late.is_empty() {
        return Ok(std::process::ExitCode::SUCCESS);
    }
    let text = format!(
        "the agent in process {} did not do it in time; `plimsoll status` shows how it stands",
        late.join(", ")
    );
    Err(Failure::new(Status::Failed, anyhow::Error::msg(text)))
}

fn tell(run: i64, word: TraceWord, answer: &Value) {
    for left_out in list(answer, "left_out") {
        say(format_args!(
            "not process {}: {}",
            left_out["pid"],
            self::word(left_out, "why")
        ));
    }
    let done = list(answer, "agents")
        .iter()
        .filter(|agent| agent["done"] == true);
    let pids: Vec<String> = done.map(|agent| agent["pid"].to_string()).collect();
    if pids.is_empty() {
        return;
    }
    let (of, records) = match &pids[..] {
        [pid] => (format!("process {pid}"), "records"),
        _ => (format!("processes {}", pids.join(", ")), "record"),
    };
    let skipped = match answer["skipped"].as_u64() {
        Some(0) | None => String::new(),
        Some(more) => format!(" and {more} more left out, because there were too many"),
    };
    match word {
        TraceWord::Window { .. } => match answer["kernels"].as_i64() {
            Some(0) | None => say(format_args!(
                "no kernel of {of} ended in that time; is the engine at work, and did it lose any (plimsoll status)?"
            )),
            Some(count) => say(format_args!(
                "{count} kernels of {of} are kept{skipped}; to see them: plimsoll export {run} --format perfetto -o {run}.json"
            )),
        },
        TraceWord::Yield => say(format_args!(
            "CUPTI is free in {of}; take it back with `plimsoll trace {run} --resume`"
        )),
        TraceWord::Resume => say(format_args!("{of} {records} again")),
    }
}
