//! How a record becomes a row: the statements of the writer, and the columns they bind.
//!
//! Samples come in thousands and are stored in blocks of rows. Everything else comes now and then and is stored one by
//! one, in order.

use std::sync::LazyLock;

use plimsoll_trace::{
    ConfigChange, Decision, DeviceInfo, DeviceSample, EngineMemo, Event, HostSample, LadderMark, Loss,
    MarkKind, MemoryVersion, ProcessSample, RunEnd, RunId, RunStart,
};

use crate::script::Script;

/// How many rows a block may have. There are few sizes, so that the same text comes again and again and SQLite has it
/// compiled; what is left of a block stays empty. The largest is far from SQLite's limit of 32766 values.
const SIZES: [usize; 10] = [1, 4, 16, 32, 48, 64, 96, 128, 192, 256];
const MOST: usize = SIZES[SIZES.len() - 1];

/// A table that is filled in blocks.
pub(crate) struct Blocks {
    /// The statement for the largest block, without its end; those for smaller ones are its beginning.
    sql: String,
    columns: usize,
    head_length: usize,
    row_length: usize,
    /// What follows the rows.
    end: String,
}

/// The first column of no table that is filled in blocks is ever NULL.
const WITHOUT_EMPTY: &str = ") WHERE column1 IS NOT NULL";

impl Blocks {
    /// Rows of the same key replace each other, so that a stamp that comes twice never fails a whole commit. `table` may
    /// be followed by the columns to fill, in parentheses.
    pub(crate) fn new(table: &str, columns: usize) -> Self {
        Self::with(&format!("INSERT OR REPLACE INTO {table}"), columns, "")
    }

    /// Rows are added to those of the same key, as `update` says.
    pub(crate) fn adding(table: &str, columns: usize, update: &str) -> Self {
        Self::with(&format!("INSERT INTO {table}"), columns, update)
    }

    fn with(insert: &str, columns: usize, update: &str) -> Self {
        let head = format!("{insert} SELECT * FROM (VALUES ");
        let row = format!("({}),", vec!["?"; columns].join(","));
        Self {
            sql: head.clone() + &row.repeat(MOST),
            columns,
            head_length: head.len(),
            row_length: row.len(),
            end: [WITHOUT_EMPTY, update].concat(),
        }
    }

    /// The statement for so many rows, 1..=[`MOST`].
    fn statement(&self, rows: usize) -> String {
        // Without the last comma.
        let end = self.head_length + rows * self.row_length - 1;
        [self.sql.get(..end).unwrap_or_default(), &self.end].concat()
    }

    pub(crate) fn store<T>(&self, script: &mut Script, rows: &[T], bind: fn(&mut Script, &T)) {
        for (place, block) in rows.chunks(MOST).enumerate() {
            let size = size_for(block.len());
            let statement = self.statement(size);
            if place == 0 {
                script.usual(&statement);
            } else {
                script.rare(&statement);
            }
            for row in block {
                bind(script, row);
            }
            for _ in 0..(size - block.len()) * self.columns {
                script.bind(None::<i64>);
            }
        }
    }
}

/// The block for so many rows, 1..=[`MOST`].
fn size_for(rows: usize) -> usize {
    SIZES.into_iter().find(|size| *size >= rows).unwrap_or(MOST)
}

static DEVICE: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_device_raw", 17));
static PROCESS: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_process_raw", 8));
static ENGINE: LazyLock<Blocks> = LazyLock::new(|| Blocks::new("_engine_raw", 4));

/// A sample of a device with the number of the device.
pub(crate) struct DeviceRow<'a> {
    pub(crate) at_ns: i64,
    pub(crate) device: i64,
    pub(crate) sample: &'a DeviceSample,
}

/// A sample of a process with the numbers of its device and names.
pub(crate) struct ProcessRow<'a> {
    pub(crate) at_ns: i64,
    pub(crate) device: i64,
    pub(crate) process: Option<i64>,
    pub(crate) container: Option<i64>,
    pub(crate) sample: &'a ProcessSample,
}

/// A value of a signal, of an engine or of the agent in it, with the number of the signal.
pub(crate) struct EngineRow {
    pub(crate) at_ns: i64,
    pub(crate) run: RunId,
    pub(crate) signal: i64,
    pub(crate) value: f64,
}

pub(crate) fn store_devices(script: &mut Script, rows: &[DeviceRow<'_>]) {
    DEVICE.store(script, rows, |script, row| {
        let sample = row.sample;
        script
            .bind(row.at_ns)
            .bind(row.device)
            .bind(sample.memory_version.map(|version| match version {
                MemoryVersion::V1 => 1_i64,
                MemoryVersion::V2 => 2,
            }))
            .bind(number(sample.used_bytes))
            .bind(number(sample.free_bytes))
            .bind(number(sample.reserved_bytes))
            .bind(number(sample.total_bytes))
            .bind(number(sample.bar1_used_bytes))
            .bind(sample.gpu_busy_ratio.and_then(ppm))
            .bind(sample.memory_busy_ratio.and_then(ppm))
            .bind(sample.temperature_celsius)
            .bind(sample.power_watts.and_then(|watts| rounded(watts * 1e3)))
            .bind(sample.sm_clock_mhz)
            .bind(sample.memory_clock_mhz)
            // A mask, not a number: all 64 bits are kept.
            .bind(sample.throttle_reasons.map(u64::cast_signed))
            .bind(number(sample.pcie_tx_bytes_per_sec))
            .bind(number(sample.pcie_rx_bytes_per_sec));
    });
}

pub(crate) fn store_processes(script: &mut Script, rows: &[ProcessRow<'_>]) {
    PROCESS.store(script, rows, |script, row| {
        script
            .bind(row.at_ns)
            .bind(row.device)
            .bind(row.sample.pid)
            .bind(row.sample.run.map(|run| run.0))
            .bind(number(row.sample.used_bytes))
            .bind(row.sample.sm_busy_ratio.and_then(ppm))
            .bind(row.process)
            .bind(row.container);
    });
}

pub(crate) fn store_engines(script: &mut Script, rows: &[EngineRow]) {
    ENGINE.store(script, rows, |script, row| {
        script
            .bind(row.at_ns)
            .bind(row.run.0)
            .bind(row.signal)
            .bind(row.value);
    });
}

pub(crate) fn host(script: &mut Script, at_ns: i64, sample: &HostSample) {
    script
        .usual("INSERT OR REPLACE INTO _host_raw VALUES (?, ?, ?, ?, ?)")
        .bind(at_ns)
        .bind(sample.cpu_busy_ratio)
        .bind(number(sample.memory_available_bytes))
        .bind(number(sample.memory_total_bytes))
        .bind(number(sample.swap_used_bytes));
}

/// A figure that this driver does not give does not wipe out what an earlier one said.
pub(crate) fn device_info(script: &mut Script, info: &DeviceInfo) {
    script.rare(
        "INSERT INTO _device (uuid, name, driver, total_bytes, parent) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (uuid) DO UPDATE SET
             name = coalesce(excluded.name, name), driver = coalesce(excluded.driver, driver),
             total_bytes = coalesce(excluded.total_bytes, total_bytes), parent = coalesce(excluded.parent, parent)",
    )
    .bind(&*info.device)
    .bind(info.name.as_deref())
    .bind(info.driver.as_deref())
    .bind(number(info.total_bytes))
    .bind(info.parent.as_deref());
}

pub(crate) fn event(script: &mut Script, at_ns: i64, device: Option<i64>, event: &Event) {
    script
        .rare(
            "INSERT INTO _event (run_id, device_id, at_ns, kind, message, detail) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(event.run.map(|run| run.0))
        .bind(device)
        .bind(at_ns)
        .bind(event.kind.as_str())
        .bind(event.message.as_str())
        .bind(json(&event.detail));
}

pub(crate) fn loss(script: &mut Script, at_ns: i64, loss: &Loss) {
    script
        .rare("INSERT INTO _loss (source, reason, at_ns, count, run_id) VALUES (?, ?, ?, ?, ?)")
        .bind(&*loss.source)
        .bind(&*loss.reason)
        .bind(at_ns)
        .bind(i64::try_from(loss.count).unwrap_or(i64::MAX))
        .bind(loss.run.map(|run| run.0));
}

/// A run that is started twice keeps its first start.
pub(crate) fn run_start(script: &mut Script, at_ns: i64, run: &RunStart) {
    script.rare(
        "INSERT INTO _run (id, name, engine, host, pid, process_key, command, started_ns, outcome, trace_tier)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)
         ON CONFLICT (id) DO UPDATE SET
             name = excluded.name, engine = excluded.engine, host = excluded.host, pid = excluded.pid,
             process_key = excluded.process_key, command = excluded.command, trace_tier = excluded.trace_tier",
    )
    .bind(run.id.0)
    .bind(run.name.as_str())
    .bind(run.engine.as_deref())
    .bind(run.host.as_str())
    .bind(run.pid)
    .bind(run.process_key.as_deref())
    .bind(run.command.as_deref())
    .bind(at_ns)
    .bind(run.trace_tier.as_str());
}

pub(crate) fn run_end(script: &mut Script, at_ns: i64, end: &RunEnd) {
    script
        .rare("UPDATE _run SET ended_ns = ?, exit_code = ?, outcome = ? WHERE id = ?")
        .bind(at_ns)
        .bind(end.exit_code)
        .bind(end.outcome.as_str())
        .bind(end.id.0);
}

/// The daemon may have been restarted in the middle of the run, so what is stored may be larger. Touches no row when
/// the run's start is not stored yet.
pub(crate) fn run_peak(script: &mut Script, run: RunId, bytes: u64) {
    script
        .usual("UPDATE _run SET peak_used_bytes = max(coalesce(peak_used_bytes, 0), ?) WHERE id = ?")
        .bind(number(Some(bytes)))
        .bind(run.0);
}

/// Updates keep the run and the time that the decision was made with.
pub(crate) fn decision(script: &mut Script, decision: &Decision) {
    script
        .rare(
            "INSERT INTO _decision VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             engine = excluded.engine, rule = excluded.rule, mode = excluded.mode, verdict = excluded.verdict,
             outcome = excluded.outcome, signal = excluded.signal, value = excluded.value,
             threshold = excluded.threshold, explanation = excluded.explanation, detail = excluded.detail",
        )
        .bind(decision.id.0)
        .bind(decision.run.map(|run| run.0))
        .bind(decision.engine.as_str())
        .bind(decision.rule.as_str())
        .bind(decision.at_ns)
        .bind(decision.mode.as_str())
        .bind(decision.verdict.as_str())
        .bind(decision.outcome.as_str())
        .bind(decision.signal.as_str())
        .bind(decision.value)
        .bind(decision.threshold)
        .bind(decision.explanation.as_str())
        .bind(json(&decision.detail));
}

/// Updates keep the time that the file was first about to be written.
pub(crate) fn config_change(script: &mut Script, change: &ConfigChange) {
    script
        .rare(
            "INSERT INTO _config_change VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
             decision_id = excluded.decision_id, path = excluded.path, before_text = excluded.before_text,
             after_text = excluded.after_text, diff = excluded.diff, outcome = excluded.outcome",
        )
        .bind(change.id)
        .bind(change.decision.0)
        .bind(change.path.as_str())
        .bind(change.at_ns)
        .bind(change.before.as_str())
        .bind(change.after.as_str())
        .bind(change.diff.as_str())
        .bind(change.outcome.as_str());
}

pub(crate) fn engine_memo(script: &mut Script, memo: &EngineMemo) {
    script
        .rare("INSERT OR REPLACE INTO _engine_memo VALUES (?, ?)")
        .bind(memo.engine.as_str())
        .bind(memo.state.as_str());
}

/// So many marks are kept, some of each start and each action: those of weeks, and some 50 MB at worst.
const MOST_MARKS: i64 = 4_000;

pub(crate) fn ladder_mark(script: &mut Script, mark: &LadderMark) {
    script
        .rare("INSERT OR IGNORE INTO _rule_set VALUES (?, ?, ?, ?)")
        .bind(mark.rules_hash.as_str())
        .bind(mark.engine.as_str())
        .bind(mark.at_ns)
        .bind(&*mark.rules);
    let devices: Vec<&str> = mark.devices.iter().map(|device| &**device).collect();
    script
        .rare(
            "INSERT INTO _ladder_mark (engine, at_ns, kind, rules_hash, max_age_ns, run_id, devices, state)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(mark.engine.as_str())
        .bind(mark.at_ns)
        .bind(mark.kind.as_str())
        .bind(mark.rules_hash.as_str())
        .bind(mark.max_age_ns)
        .bind(mark.run.map(|run| run.0))
        .bind(serde_json::json!(devices).to_string())
        .bind(mark.state.as_str());
    script
        .rare("DELETE FROM _ladder_mark WHERE id <= (SELECT max(id) FROM _ladder_mark) - ?")
        .bind(MOST_MARKS);
    if mark.kind == MarkKind::Start {
        script.rare("DELETE FROM _rule_set WHERE hash NOT IN (SELECT rules_hash FROM _ladder_mark)");
    }
}

/// A count as SQLite holds it; one beyond 2^63 is nothing that a driver can mean.
pub(crate) fn number(value: Option<u64>) -> Option<i64> {
    value.and_then(|value| i64::try_from(value).ok())
}

/// A ratio as parts per million.
pub(crate) fn ppm(ratio: f64) -> Option<i64> {
    rounded(ratio * 1e6)
}

fn rounded(value: f64) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be far inside the range"
    )]
    (value.abs() < 9e15).then_some(value.round() as i64)
}

/// No figures are NULL, not the text "null".
fn json(detail: &serde_json::Value) -> Option<String> {
    (!detail.is_null()).then(|| detail.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_fits_a_block_of_few_sizes() {
        for rows in 1..=MOST {
            let size = size_for(rows);
            assert!(size >= rows && size < (4 * rows).max(2), "{size} for {rows}");
            assert_eq!(PROCESS.statement(size).matches("(?,?,?,?,?,?,?,?)").count(), size);
        }
        assert!(MOST * DEVICE.columns <= 32_766);
        assert_eq!(
            ENGINE.statement(4),
            "INSERT OR REPLACE INTO _engine_raw SELECT * FROM (VALUES (?,?,?,?),(?,?,?,?),(?,?,?,?),(?,?,?,?)) \
             WHERE column1 IS NOT NULL"
        );
    }

    #[test]
    fn whole_percents_and_milliwatts_come_back_to_the_bit() {
        for percent in 0..=100_i32 {
            let ratio = f64::from(percent) / 100.0;
            let stored = ppm(ratio).and_then(|ppm| i32::try_from(ppm).ok()).map(f64::from);
            assert_eq!(stored.map(|ppm| ppm / 1e6), Some(ratio));
        }
        for milliwatts in (0..1_200_000_i32).step_by(7) {
            let watts = f64::from(milliwatts) / 1e3;
            assert_eq!(rounded(watts * 1e3), Some(i64::from(milliwatts)));
        }
        assert_eq!(ppm(f64::NAN), None);
        assert_eq!(ppm(f64::INFINITY), None);
        assert_eq!(number(Some(u64::MAX)), None);
    }
}
