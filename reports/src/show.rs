//! One run: its peak, its devices and processes, what happened, what was decided.

mod ledger;
mod uses;

use std::time::Duration;

use jiff::tz::TimeZone;
use plimsoll_store::{Reader, Value};
use plimsoll_trace::units::{show_bytes, show_duration, show_ratio};
use serde::Serialize;
use serde_json::Value as Json;

use crate::decisions::{self, Decision};
use crate::error::ReportError;
use crate::instant::{format_in, full};
use crate::plain::{Column, UNKNOWN, table, wrapped};
use crate::row::rows;
use crate::runs::{self, Run};
use crate::timeline::SHORT_UUID;
use crate::versioned;

pub use ledger::{Ledger, LedgerProcess};

/// Events that are told one by one.
const MOST_EVENTS: usize = 100;

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The run.
    pub run: Run,
    /// The devices it held memory on; all devices, when that is not known.
    pub devices: Vec<DeviceUse>,
    /// Its processes, largest first.
    pub processes: Vec<ProcessUse>,
    /// Where the memory of its devices was, when they were fullest and at the end.
    pub ledger: Vec<Ledger>,
    /// What happened in it, and on its host meanwhile.
    pub events: Vec<Happened>,
    /// How many more events there are.
    pub events_left_out: i64,
    /// What was decided about it.
    pub decisions: Vec<Decision>,
    /// What was not recorded meanwhile.
    pub losses: Vec<Lost>,
}

/// A device's memory while the run lived; everything on the device, not only the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceUse {
    /// The UUID.
    pub device: String,
    /// The product name.
    pub name: Option<String>,
    /// Physical memory, bytes.
    pub total_bytes: Option<u64>,
    /// Readings, and those of them whose memory in use was known.
    pub samples: i64,
    /// Readings whose memory in use was known.
    pub known_samples: i64,
    /// The highest reading, bytes.
    pub peak_used_bytes: Option<u64>,
    /// When it was first reached, ns since the Unix epoch.
    pub peak_at_ns: Option<i64>,
    /// Mean of the readings, bytes.
    pub mean_used_bytes: Option<u64>,
    /// 95 % of the readings are at or below this, bytes (nearest rank).
    pub p95_used_bytes: Option<u64>,
    /// Mean share of time in which a kernel ran.
    pub mean_gpu_busy_ratio: Option<f64>,
}

/// A process's memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessUse {
    /// The device.
    pub device: String,
    /// Its id.
    pub pid: Option<i64>,
    /// Its name.
    pub process: Option<String>,
    /// The most it held, bytes.
    pub peak_used_bytes: Option<u64>,
}

/// One row of the view `events`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// What kind of thing.
    pub kind: String,
    /// The device it belongs to.
    pub device: Option<String>,
    /// One sentence.
    pub message: String,
    /// The figures behind it.
    pub detail: Json,
}

/// Records that were lost, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Who lost them.
    pub source: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// Reads everything about a run; `now_ns` ends the window of one that still runs.
///
/// # Errors
/// [`ReportError::UnknownRun`], or that the store cannot be read.
pub async fn load(reader: &Reader, run: i64, now_ns: i64) -> Result<Shown, ReportError> {
    let run = runs::one(reader, run).await?;
    let window = [
        Value::Integer(run.started_ns),
        Value::Integer(run.ended_ns.unwrap_or(now_ns)),
        Value::Integer(run.id),
    ];
    let (mut devices, processes) = uses::read(reader, &window).await?;
    if devices
        .iter()
        .any(|device| processes.iter().any(|process| process.device == device.device))
    {
        devices.retain(|device| processes.iter().any(|process| process.device == device.device));
    }
    let (events, events_left_out) = events(reader, &window).await?;
    Ok(Shown {
        devices,
        processes,
        ledger: ledger::read(reader, run.id).await?,
        events,
        events_left_out,
        decisions: decisions::read(reader, "run_id = ? ORDER BY id", &window[2..]).await?,
        losses: losses(reader, &window).await?,
        run,
    })
}

async fn events(reader: &Reader, window: &[Value]) -> Result<(Vec<Happened>, i64), ReportError> {
    let of_run = "at_ns BETWEEN ?1 AND ?2 AND (run_id IS NULL OR run_id = ?3)";
    let sql = format!(
        "SELECT at_ns, kind, device, message, detail FROM events WHERE {of_run} ORDER BY at_ns, id LIMIT {MOST_EVENTS}"
    );
    let found = reader.query(&sql, window).await?;
    let events: Vec<Happened> = rows(&found)
        .filter_map(|mut row| {
            Some(Happened {
                at_ns: row.int()?,
                kind: row.word(),
                device: row.text(),
                message: row.word(),
                detail: row.json(),
            })
        })
        .collect();
    let found = reader
        .query(&format!("SELECT count(*) FROM events WHERE {of_run}"), window)
        .await?;
    let all = rows(&found).next().and_then(|mut row| row.int()).unwrap_or(0);
    let told = i64::try_from(events.len()).unwrap_or(i64::MAX);
    Ok((events, all.saturating_sub(told)))
}

async fn losses(reader: &Reader, window: &[Value]) -> Result<Vec<Lost>, ReportError> {
    let sql = "SELECT source, reason, sum(count) FROM losses \
               WHERE run_id = ?3 OR (run_id IS NULL AND at_ns BETWEEN ?1 AND ?2) \
               GROUP BY source, reason ORDER BY source, reason";
    let found = reader.query(sql, window).await?;
    Ok(rows(&found)
        .map(|mut row| Lost {
            source: row.word(),
            reason: row.word(),
            count: row.int().unwrap_or(0),
        })
        .collect())
}

/// The run for programs: `{"version": 1, "run": {...}, ...}`.
#[must_use]
pub fn json(shown: &Shown) -> String {
    versioned(shown)
}

/// The run for people, with local times; `now_ns` is what a running one is measured against.
#[must_use]
pub fn text(shown: &Shown, zone: &TimeZone, now_ns: i64) -> String {
    let mut out = head(&shown.run, zone, now_ns);
    let section = |out: &mut String, title: &str| {
        out.push('\n');
        out.push_str(title);
        out.push('\n');
    };
    section(&mut out, "Devices, with everything on them");
    out += &device_table(&shown.devices, zone);
    section(&mut out, "Processes of the run");
    out += &process_table(&shown.processes);
    section(&mut out, "Where the memory was");
    out += &ledger::text(&shown.ledger, zone);
    section(&mut out, "Events");
    if shown.events.is_empty() {
        out += "  none\n";
    }
    for event in &shown.events {
        let when = format_in(event.at_ns, zone, "%m-%d %H:%M:%S");
        out += &wrapped(
            &format!("{when} {}: {}", event.kind.replace('_', " "), event.message),
            2,
        );
    }
    if shown.events_left_out > 0 {
        out += &format!("  and {} more; see the view events\n", shown.events_left_out);
    }
    section(&mut out, "Decisions");
    if shown.decisions.is_empty() {
        out += "  none\n";
    }
    for decision in &shown.decisions {
        out += &crate::plain::quoted(&decision.text(zone), 2);
    }
    if !shown.losses.is_empty() {
        section(&mut out, "Not recorded");
        for loss in &shown.losses {
            out += &wrapped(
                &format!(
                    "{} from {}: {}",
                    loss.count,
                    loss.source,
                    loss.reason.replace('_', " ")
                ),
                2,
            );
        }
    }
    out
}

fn head(run: &Run, zone: &TimeZone, now_ns: i64) -> String {
    let status = match (run.exit_code, run.outcome.as_str()) {
        (_, "running") => "running".to_owned(),
        (Some(code), outcome) => format!("{} (exit {code})", outcome.replace('_', " ")),
        (None, outcome) => format!("{} (exit unknown)", outcome.replace('_', " ")),
    };
    let mut out = wrapped(&format!("run {}: {}, {status}", run.id, run.name), 0);
    let mut line = |name: &str, value: &str| {
        let text = wrapped(value, 12);
        out += &format!("  {name:<10}{}", text.trim_start());
    };
    if let Some(engine) = &run.engine {
        line("engine", engine);
    }
    if let Some(command) = run
        .command
        .as_deref()
        .filter(|command| !command.trim().is_empty())
    {
        line("command", command);
    }
    let pid = run.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
    line("host", &format!("{}{pid}", run.host));
    line("started", &full(run.started_ns, zone));
    let duration: Duration = run.duration(now_ns);
    match run.ended_ns {
        Some(ended_ns) => line(
            "ended",
            &format!("{}, after {}", full(ended_ns, zone), show_duration(duration)),
        ),
        None => line("running", &format!("for {}", show_duration(duration))),
    }
    let peak = run.peak_used_bytes.map_or_else(|| UNKNOWN.to_owned(), show_bytes);
    line("peak", &format!("{peak} held by its processes together"));
    line("traced", &run.trace_tier);
    out
}

fn bytes(value: Option<u64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show_bytes)
}

fn device_table(devices: &[DeviceUse], zone: &TimeZone) -> String {
    if devices.is_empty() {
        return "  no samples of any device\n".to_owned();
    }
    let columns = [
        Column::Text("DEVICE"),
        Column::Number("PEAK"),
        Column::Text("AT"),
        Column::Number("MEAN"),
        Column::Number("P95"),
        Column::Number("OF"),
        Column::Number("BUSY"),
    ];
    let rows = devices.iter().map(|device| {
        let name = device.name.as_deref().unwrap_or("unnamed device");
        vec![
            format!("{name} {}", short(&device.device)),
            bytes(device.peak_used_bytes),
            device.peak_at_ns.map_or_else(
                || UNKNOWN.to_owned(),
                |at_ns| format_in(at_ns, zone, "%m-%d %H:%M:%S"),
            ),
            bytes(device.mean_used_bytes),
            bytes(device.p95_used_bytes),
            bytes(device.total_bytes),
            device
                .mean_gpu_busy_ratio
                .map_or_else(|| UNKNOWN.to_owned(), show_ratio),
        ]
    });
    table(&columns, rows.collect(), 2)
}

fn process_table(processes: &[ProcessUse]) -> String {
    if processes.is_empty() {
        return "  none was seen on a device\n".to_owned();
    }
    let columns = [
        Column::Text("PROCESS"),
        Column::Number("PID"),
        Column::Text("DEVICE"),
        Column::Number("PEAK"),
    ];
    let rows = processes.iter().map(|process| {
        vec![
            process.process.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            process
                .pid
                .map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string()),
            short(&process.device),
            bytes(process.peak_used_bytes),
        ]
    });
    table(&columns, rows.collect(), 2)
}

/// "GPU-5a1e2c9d": enough of a UUID to tell the devices of a host apart.
fn short(uuid: &str) -> String {
    uuid.chars().take(SHORT_UUID).collect()
}
