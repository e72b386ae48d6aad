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

/// One row of the view `ledger`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerItem {
    /// The device.
    pub device: String,
    /// Which moment: `peak`, `end`.
    pub moment: String,
    /// When that was, ns since the Unix epoch.
    pub at_ns: i64,
    /// What the row is about: `device`, `process`.
    pub item: String,
    /// The process.
    pub pid: Option<i64>,
    /// Its name.
    pub process: Option<String>,
    /// The run it belongs to.
    pub owner_run_id: Option<i64>,
    /// In use on the device, or held by the process, bytes.
    pub used_bytes: Option<u64>,
    /// The processes of the device, or what the process allocated and did not give back, bytes.
    pub parts_bytes: Option<u64>,
    /// Parts whose size is not known.
    pub unknown_parts: i64,
    /// What no part explains, bytes; negative where the parts claim more.
    pub unattributed_bytes: Option<i64>,
    /// What the driver keeps for itself, bytes.
    pub reserved_bytes: Option<u64>,
    /// The size of the device, bytes.
    pub total_bytes: Option<u64>,
}

/// Reads the ledger of a run: each device at its peak, then at the end; a device before its processes, largest first.
pub(super) async fn read(reader: &Reader, run: i64) -> Result<Vec<LedgerItem>, ReportError> {
    let sql = "SELECT device, moment, at_ns, item, pid, process, owner_run_id, used_bytes, parts_bytes, \
               unknown_parts, unattributed_bytes, reserved_bytes, total_bytes FROM ledger WHERE run_id = ? \
               ORDER BY device, moment DESC, item, used_bytes DESC, pid";
    let found = reader.query(sql, &[Value::Integer(run)]).await?;
    let items = rows(&found).filter_map(|mut row| {
        Some(LedgerItem {
            device: row.word(),
            moment: row.word(),
            at_ns: row.int()?,
            item: row.word(),
            pid: row.int(),
            process: row.text(),
            owner_run_id: row.int(),
            used_bytes: row.size(),
            parts_bytes: row.size(),
            unknown_parts: row.int().unwrap_or(0),
            unattributed_bytes: row.int(),
            reserved_bytes: row.size(),
            total_bytes: row.size(),
        })
    });
    Ok(items.collect())
}

/// The ledger for people.
pub(super) fn text(items: &[LedgerItem], zone: &TimeZone) -> String {
    if items.is_empty() {
        return "  nothing is known of the memory of this run's processes\n".to_owned();
    }
    let mut out = String::new();
    for group in items.chunk_by(|a, b| (&a.device, &a.moment) == (&b.device, &b.moment)) {
        if !out.is_empty() {
            out.push('\n');
        }
        out += &head(&group[0], zone);
        out += &sums(group);
    }
    out
}

fn head(first: &LedgerItem, zone: &TimeZone) -> String {
    let moment = match first.moment.as_str() {
        "peak" => "when the device was fullest",
        "end" => "at the end",
        other => other,
    };
    let at = format_in(first.at_ns, zone, "%m-%d %H:%M:%S");
    wrapped(&format!("{} {moment}, {at}", short(&first.device)), 2)
}

fn sums(group: &[LedgerItem]) -> String {
    let columns = [
        Column::Text(""),
        Column::Number("USED"),
        Column::Number("ALLOCATED"),
        Column::Number("UNATTRIBUTED"),
    ];
    let known = |bytes: Option<u64>| bytes.map_or_else(|| UNKNOWN.to_owned(), show_bytes);
    let mut lines = Vec::new();
    let mut notes = Vec::new();
    let mut sum = None;
    for item in group {
        if item.item == "device" {
            sum = Some(item);
            continue;
        }
        let pid = item.pid.map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string());
        let name = item.process.as_deref().unwrap_or("unnamed process");
        lines.push(vec![
            format!("{name} (pid {pid})"),
            known(item.used_bytes),
            known(item.parts_bytes),
            rest(item.unattributed_bytes),
        ]);
        if item.unattributed_bytes.is_some_and(|bytes| bytes < 0) {
            notes.push(format!(
                "process {pid} allocated more than the driver says that it holds"
            ));
        }
    }
    if let Some(device) = sum {
        let row = |name: &str, used: String| vec![name.to_owned(), used, String::new(), String::new()];
        lines.push(row("of no process", rest(device.unattributed_bytes)));
        lines.push(row("in use on the device", known(device.used_bytes)));
        lines.push(row("kept by the driver", known(device.reserved_bytes)));
        lines.push(row("size of the device", known(device.total_bytes)));
        match device.unattributed_bytes {
            Some(bytes) if bytes < 0 => {
                notes.push("it does not add up: the processes claim more than is in use".to_owned());
            }
            None if device.unknown_parts > 0 => notes.push(format!(
                "it does not add up: the driver does not say what {} of the processes hold",
                device.unknown_parts
            )),
            _ => {}
        }
    }
    let mut out = table(&columns, lines, 4);
    for note in notes {
        out += &wrapped(&note, 4);
    }
    out
}

/// A rest, which may be negative.
fn rest(bytes: Option<i64>) -> String {
    let Some(bytes) = bytes else {
        return UNKNOWN.to_owned();
    };
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", show_bytes(bytes.unsigned_abs()))
}
