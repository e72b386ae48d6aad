//! Where the memory of a run's devices was: what processes held and allocated, and what does not add up.

use jiff::tz::TimeZone;
use plimsoll_store::{Reader, Value};
use plimsoll_trace::units::show_bytes;
use serde::Serialize;

use super::short;
use crate::error::ReportError;
use crate::instant::format_in;
use crate::plain::{Column, UNKNOWN, table, wrapped};
use crate::row::rows;

/// One row of the view `ledger`: a device at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The device.
    pub device: String,
    /// Which moment: `peak`, `end`.
    pub moment: String,
    /// When that was, ns since the Unix epoch.
    pub at_ns: i64,
    /// In use on the device, bytes.
    pub used_bytes: Option<u64>,
    /// What its processes hold together, as far as it is known, bytes.
    pub processes_bytes: Option<u64>,
    /// Processes of which it is not known what they hold.
    pub unknown_processes: i64,
    /// What no process owns up to, bytes; negative where they claim more than is in use.
    pub unattributed_bytes: Option<i64>,
    /// What the driver keeps for itself, bytes.
    pub reserved_bytes: Option<u64>,
    /// The size of the device, bytes.
    pub total_bytes: Option<u64>,
    /// Its processes, largest first.
    pub processes: Vec<LedgerProcess>,
}

/// One row of the view `process_ledger`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerProcess {
    /// The process.
    pub pid: Option<i64>,
    /// Its name.
    pub process: Option<String>,
    /// The run it belongs to.
    pub owner_run_id: Option<i64>,
    /// What it holds, bytes.
    pub used_bytes: Option<u64>,
    /// What it allocated through the driver and did not give back, bytes; unknown when it was not traced.
    pub allocated_bytes: Option<u64>,
    /// The rest, bytes; negative where more was allocated than held.
    pub unattributed_bytes: Option<i64>,
}

/// Reads the ledger of a run: each device when it was fullest, then at the end.
pub(super) async fn read(reader: &Reader, run: i64) -> Result<Vec<Ledger>, ReportError> {
    let values = [Value::Integer(run)];
    let sql = "SELECT device, moment, at_ns, used_bytes, processes_bytes, unknown_processes, unattributed_bytes, \
               reserved_bytes, total_bytes FROM ledger WHERE run_id = ? ORDER BY device, moment DESC";
    let found = reader.query(sql, &values).await?;
    let ledgers = rows(&found).filter_map(|mut row| {
        Some(Ledger {
            device: row.word(),
            moment: row.word(),
            at_ns: row.int()?,
            used_bytes: row.size(),
            processes_bytes: row.size(),
            unknown_processes: row.int().unwrap_or(0),
            unattributed_bytes: row.int(),
            reserved_bytes: row.size(),
            total_bytes: row.size(),
            processes: Vec::new(),
        })
    });
    let mut ledgers: Vec<Ledger> = ledgers.collect();
    let sql = "SELECT device, moment, pid, process, owner_run_id, used_bytes, allocated_bytes, unattributed_bytes \
               FROM process_ledger WHERE run_id = ? ORDER BY used_bytes DESC, pid";
    let found = reader.query(sql, &values).await?;
    for mut row in rows(&found) {
        let (device, moment) = (row.word(), row.word());
        let process = LedgerProcess {
            pid: row.int(),
            process: row.text(),
            owner_run_id: row.int(),
            used_bytes: row.size(),
            allocated_bytes: row.size(),
            unattributed_bytes: row.int(),
        };
        let mut places = ledgers.iter_mut();
        if let Some(ledger) = places.find(|ledger| ledger.device == device && ledger.moment == moment) {
            ledger.processes.push(process);
        }
    }
    Ok(ledgers)
}

/// The ledger for people.
pub(super) fn text(ledgers: &[Ledger], zone: &TimeZone) -> String {
    if ledgers.is_empty() {
        return "  nothing is known of the memory of this run's processes\n".to_owned();
    }
    let of_one = |ledger| head(ledger, zone) + &sums(ledger);
    ledgers.iter().map(of_one).collect::<Vec<String>>().join("\n")
}

fn head(ledger: &Ledger, zone: &TimeZone) -> String {
    let moment = match ledger.moment.as_str() {
        "peak" => "when the device was fullest",
        "end" => "at the end",
        other => other,
    };
    let at = format_in(ledger.at_ns, zone, "%m-%d %H:%M:%S");
    wrapped(&format!("{} {moment}, {at}", short(&ledger.device)), 2)
}

fn sums(ledger: &Ledger) -> String {
    let columns = [
        Column::Text(""),
        Column::Number("USED"),
        Column::Number("ALLOCATED"),
        Column::Number("UNATTRIBUTED"),
    ];
    let known = |bytes: Option<u64>| bytes.map_or_else(|| UNKNOWN.to_owned(), show_bytes);
    let mut lines = Vec::new();
    let mut notes = Vec::new();
    for process in &ledger.processes {
        let pid = process
            .pid
            .map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string());
        let name = process.process.as_deref().unwrap_or("unnamed process");
        lines.push(vec![
            format!("{name} (pid {pid})"),
            known(process.used_bytes),
            known(process.allocated_bytes),
            rest(process.unattributed_bytes),
        ]);
        if process.unattributed_bytes.is_some_and(|bytes| bytes < 0) {
            notes.push(format!(
                "process {pid} allocated more than the driver says that it holds"
            ));
        }
    }
    let line = |name: &str, used: String| vec![name.to_owned(), used, String::new(), String::new()];
    lines.push(line("of no process", rest(ledger.unattributed_bytes)));
    lines.push(line("in use on the device", known(ledger.used_bytes)));
    lines.push(line("kept by the driver", known(ledger.reserved_bytes)));
    lines.push(line("size of the device", known(ledger.total_bytes)));
    match ledger.unattributed_bytes {
        Some(bytes) if bytes < 0 => {
            notes.push("it does not add up: the processes claim more than is in use".to_owned());
        }
        None if ledger.unknown_processes > 0 => notes.push(format!(
            "it does not add up: the driver does not say what {} of the processes hold",
            ledger.unknown_processes
        )),
        _ => {}
    }
    let notes: String = notes.iter().map(|note| wrapped(note, 4)).collect();
    table(&columns, lines, 4) + &notes
}

/// A rest, which may be negative.
fn rest(bytes: Option<i64>) -> String {
    let Some(bytes) = bytes else {
        return UNKNOWN.to_owned();
    };
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", show_bytes(bytes.unsigned_abs()))
}
