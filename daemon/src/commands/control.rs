//! Commands that ask or tell the daemon: `status`, `why`, `pause`, `resume`.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use plimsoll_trace::units;
use serde_json::Value;

use super::{Outcome, agents, print, print_json, query};
use crate::cli::Source;
use crate::config::{self, socket_path};
use crate::failure::{Failure, Status};
use crate::screen::say;
use crate::service::{Client, Request};

pub(super) fn status(source: &Source, json: bool) -> Outcome {
    let answer = ask(source, &Request::Status)?;
    if json {
        print_json(&answer)
    } else {
        print(&status_text(&answer))
    }
}

/// The rules as the daemon sees them now, when it runs; and what was decided, from the store, in any case.
pub(super) fn why(subject: Option<&str>, source: &Source, json: bool) -> Outcome {
    let rules = ask(source, &Request::Why).map(|answer| list(&answer, "rules").to_vec());
    query::why(subject, rules, source, json)
}

pub(super) fn pause(source: &Source) -> Outcome {
    ask(source, &Request::Pause)?;
    say("acting is paused until `plimsoll resume`, also after a restart of the daemon; recording goes on");
    Ok(std::process::ExitCode::SUCCESS)
}

pub(super) fn resume(rule: Option<String>, source: &Source) -> Outcome {
    let said = rule.clone().map_or_else(
        || "acting goes on".to_owned(),
        |rule| format!("rule {rule} may act again"),
    );
    ask(source, &Request::Resume { rule })?;
    say(said);
    Ok(std::process::ExitCode::SUCCESS)
}

/// Has the allocators of a run measured, and what is found stored.
pub(super) fn measure_allocators(run: i64, source: &Source) -> Result<(), Failure> {
    let answer = ask(source, &Request::MeasureAllocators { run })?;
    let count = |key| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let missing = count("asked").saturating_sub(count("measured"));
    if missing > 0 {
        say(format_args!(
            "{missing} of {} allocators did not tell their largest free block in time",
            count("asked")
        ));
    }
    Ok(())
}

fn ask(source: &Source, request: &Request) -> Result<Value, Failure> {
    ask_within(source, request, None)
}

/// Asks something that takes its time.
pub(super) fn ask_patiently(
    source: &Source,
    request: &Request,
    patience: Duration,
) -> Result<Value, Failure> {
    ask_within(source, request, Some(patience))
}

fn ask_within(source: &Source, request: &Request, patience: Option<Duration>) -> Result<Value, Failure> {
    let store: PathBuf = config::store_path(source.db.as_deref(), source.config.config.as_deref())?;
    let socket = socket_path(&store);
    let mut client = Client::connect(&socket).map_err(|error| not_reachable(&socket, &error))?;
    if let Some(patience) = patience {
        client
            .be_patient(patience)
            .map_err(|error| not_reachable(&socket, &error))?;
    }
    client.ask(request).map_err(|error| match error.kind() {
        // What the daemon itself says.
        ErrorKind::Other => Failure::new(Status::Failed, error),
        _ => not_reachable(&socket, &error),
    })
}

fn not_reachable(socket: &Path, error: &Error) -> Failure {
    let socket = socket.display();
    let text = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!(
                "no daemon listens at {socket}; start one with `plimsoll daemon`, or name its database with --db"
            )
        }
        ErrorKind::PermissionDenied => {
            format!(
                "the daemon at {socket} answers its own user only; ask as that user, for example with sudo"
            )
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("the daemon at {socket} did not answer in time; its log may say why")
        }
        _ => format!("the daemon at {socket} cannot be asked: {error}; its log may say why"),
    };
    Failure::new(Status::NotReachable, anyhow::Error::msg(text))
}

/// When the device will be full; nothing while it does not fill, or that is unknown.
fn filling(device: &Value) -> String {
    let secs = |value: &Value| Some(units::show_duration(Duration::from_secs_f64(value.as_f64()?)));
    let range = &device["full_in_range_secs"];
    let said = || {
        let [first, earliest, latest] = [&device["full_in_secs"], &range[0], &range[1]].map(secs);
        Some(format!(", full in {} ({} to {})", first?, earliest?, latest?))
    };
    said().unwrap_or_default()
}

fn status_text(status: &Value) -> String {
    let mut text = String::new();
    let devices = list(status, "devices");
    if devices.is_empty() {
        text += "no device is known: no driver answers, or there is no GPU\n";
    }
    for device in devices {
        let used = bytes(device, "used_bytes");
        let usable = device["total_bytes"]
            .as_u64()
            .map(|total| total - device["reserved_bytes"].as_u64().unwrap_or(0).min(total));
        let usable = usable.map_or_else(|| "unknown".to_owned(), units::show_bytes);
        let ratio = device["used_ratio"]
            .as_f64()
            .map(|ratio| format!(" ({})", units::show_ratio(ratio)))
            .unwrap_or_default();
        let busy = device["gpu_busy_ratio"]
            .as_f64()
            .map_or_else(|| "unknown".to_owned(), units::show_ratio);
        let name = device["name"].as_str().unwrap_or("unknown GPU");
        text += &format!(
            "{name}  {}\n  used {used} of {usable}{ratio}{}, busy {busy}\n",
            word(device, "device"),
            filling(device)
        );
        let mut table = plain(&["pid", "process", "run", "memory"]);
        for process in list(device, "processes") {
            let run = process["run"]
                .as_i64()
                .map_or_else(|| "-".to_owned(), |run| run.to_string());
            table.add_row([
                process["pid"].to_string(),
                word(process, "process"),
                run,
                bytes(process, "used_bytes"),
            ]);
        }
        if table.row_count() > 0 {
            text += &indented(&table);
        }
    }
    let engines: Vec<String> = list(status, "engines")
        .iter()
        .map(|engine| {
            format!(
                "{} (run {}, process {})",
                word(engine, "engine"),
                engine["run"],
                engine["pid"]
            )
        })
        .collect();
    text += &format!(
        "engines: {}\n",
        if engines.is_empty() {
            "none is running".to_owned()
        } else {
            engines.join(", ")
        }
    );
    text += &agents::text(status);
    let paused: Vec<&str> = list(status, "paused").iter().filter_map(Value::as_str).collect();
    if !paused.is_empty() {
        text += &format!(
            "acting is paused on {}; `plimsoll resume` lifts that\n",
            paused.join(", ")
        );
    }
    for rule in list(status, "rules") {
        text += &rule_text(rule, plimsoll_trace::Stamp::now().unix_ns);
    }
    if let Some(started) = status["started_ns"].as_i64() {
        let now = plimsoll_trace::Stamp::now().unix_ns;
        let since = Duration::from_nanos(u64::try_from(now - started).unwrap_or(0));
        text += &format!(
            "the daemon has been running for {}\n",
            units::show_duration(since)
        );
    }
    text
}

/// Where a rule stands, in a few lines.
pub(super) fn rule_text(rule: &Value, now_ns: i64) -> String {
    let mut text = format!(
        "rule {} of {} ({}): {}{}\n",
        word(rule, "rule"),
        word(rule, "engine"),
        word(rule, "mode"),
        word(rule, "phase"),
        since(rule, now_ns)
    );
    for clause in list(rule, "clauses") {
        let beyond = if clause["entered"] == true {
            since(clause, now_ns)
        } else {
            String::new()
        };
        text += &format!("  {}{beyond}\n", word(clause, "text"));
    }
    let holds = if rule["phase"] == "committed" {
        "it stays"
    } else {
        "not yet"
    };
    for block in list(rule, "blocks") {
        text += &format!("  {holds}: {}\n", word(block, "text"));
    }
    text
}

/// For how long something has been so, if that is known.
fn since(value: &Value, now_ns: i64) -> String {
    let passed = value["since_ns"]
        .as_i64()
        .and_then(|since| u64::try_from(now_ns - since).ok());
    passed.map_or_else(String::new, |ns| {
        format!(", for {}", units::show_duration(Duration::from_nanos(ns)))
    })
}

pub(super) fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if let Some(column) = table.column_mut(header.len() - 1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn indented(table: &Table) -> String {
    table
        .lines()
        .map(|line| format!("  {}\n", line.trim_end()))
        .collect()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

pub(super) fn word(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or("unknown")
        .to_owned()
}

pub(super) fn bytes(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_u64)
        .map_or_else(|| "unknown".to_owned(), units::show_bytes)
}
