//! How a record becomes a row: the statements of the writer, and the columns they bind.
//!
//! Samples come in thousands and are stored in blocks of rows. Everything else comes now and then and is stored one by
//! one, in order.

use std::sync::{LazyLock, OnceLock};

use plimsoll_trace::{
    ConfigChange, Decision, DeviceInfo, DeviceSample, EngineMemo, Event, HostSample, Loss, MemoryVersion,
    ProcessSample, RunEnd, RunId, RunStart,
};
use sqlx::{Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

pub(crate) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The most rows of one statement; far from SQLite's limit of 32766 values.
const MOST: usize = 256;
/// Larger blocks are multiples of this.
const STEP: usize = 16;
/// How many sizes of blocks there are.
const SIZES: usize = STEP.ilog2() as usize + MOST / STEP;

/// A table that is filled in blocks. Each statement costs several changes of thread, whatever it holds, so there are
/// few; and they come in few sizes, so that SQLite knows each of them already.
pub(crate) struct Blocks {
    head: String,
    row: String,
    tail: &'static str,
    /// One statement for each size of block, made when it is first needed.
    statements: [OnceLock<String>; SIZES],
}

impl Blocks {
    /// Rows of the same key replace each other, so that a stamp that comes twice never fails a whole commit. `table` may
    /// be followed by the columns to fill, in parentheses.
    pub(crate) fn new(table: &str, columns: usize) -> Self {
        Self {
            head: format!("INSERT OR REPLACE INTO {table} VALUES "),
            row: format!("({})", vec!["?"; columns].join(",")),
            tail: "",
            statements: Default::default(),
        }
    }

    /// Rows are added to those of the same key, as `update` says.
    pub(crate) fn adding(table: &str, columns: usize, update: &'static str) -> Self {
        Self {
            head: format!("INSERT INTO {table} VALUES "),
            tail: update,
            ..Self::new(table, columns)
        }
    }

    /// The statement for a block of so many rows, as [`block_of`] makes them.
    fn statement(&self, rows: usize) -> &str {
        self.statements[size_of(rows)].get_or_init(|| {
            let rows = vec![self.row.as_str(); rows].join(",");
            format!("{}{rows}{}", self.head, self.tail)
        })
    }

    pub(crate) async fn store<T>(
        &'static self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: for<'q> fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Result<(), sqlx::Error> {
        while let Some((block, rest)) = rows
            .split_at_checked(block_of(rows.len()))
            .filter(|(block, _)| !block.is_empty())
        {
            let query = sqlx::query(self.statement(block.len()));
            block.iter().fold(query, bind).execute(&mut *connection).await?;
            rows = rest;
        }
        Ok(())
    }
}

/// How many of so many rows the next statement takes: a multiple of [`STEP`], or a power of two below it.
const fn block_of(rows: usize) -> usize {
    match rows {
        0 => 0,
        1..STEP => 1 << rows.ilog2(),
        STEP..MOST => rows - rows % STEP,
        MOST.. => MOST,
    }
}

/// The place of a block's size among all sizes.
const fn size_of(block: usize) -> usize {
    match block {
        0 => 0,
        1..STEP => block.ilog2() as usize,
        STEP.. => STEP.ilog2() as usize + block / STEP - 1,
    }
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

pub(crate) async fn store_devices(
    connection: &mut SqliteConnection,
    rows: &[DeviceRow<'_>],
) -> Result<(), sqlx::Error> {
    DEVICE
        .store(connection, rows, |query, row| {
            let sample = row.sample;
            query
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
                .bind(number(sample.pcie_rx_bytes_per_sec))
        })
        .await
}

pub(crate) async fn store_processes(
    connection: &mut SqliteConnection,
    rows: &[ProcessRow<'_>],
) -> Result<(), sqlx::Error> {
    PROCESS
        .store(connection, rows, |query, row| {
            query
                .bind(row.at_ns)
                .bind(row.device)
                .bind(row.sample.pid)
                .bind(row.sample.run.map(|run| run.0))
                .bind(number(row.sample.used_bytes))
                .bind(row.sample.sm_busy_ratio.and_then(ppm))
                .bind(row.process)
                .bind(row.container)
        })
        .await
}

pub(crate) async fn store_engines(
    connection: &mut SqliteConnection,
    rows: &[EngineRow],
) -> Result<(), sqlx::Error> {
    ENGINE
        .store(connection, rows, |query, row| {
            query
                .bind(row.at_ns)
                .bind(row.run.0)
                .bind(row.signal)
                .bind(row.value)
        })
        .await
}

pub(crate) fn host(at_ns: i64, sample: &HostSample) -> Bound<'static> {
    sqlx::query("INSERT OR REPLACE INTO _host_raw VALUES (?, ?, ?, ?, ?)")
        .bind(at_ns)
        .bind(sample.cpu_busy_ratio)
        .bind(number(sample.memory_available_bytes))
        .bind(number(sample.memory_total_bytes))
        .bind(number(sample.swap_used_bytes))
}

/// A figure that this driver does not give does not wipe out what an earlier one said.
pub(crate) fn device_info(info: &DeviceInfo) -> Bound<'_> {
    sqlx::query(
        "INSERT INTO _device (uuid, name, driver, total_bytes, parent) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (uuid) DO UPDATE SET
             name = coalesce(excluded.name, name), driver = coalesce(excluded.driver, driver),
             total_bytes = coalesce(excluded.total_bytes, total_bytes), parent = coalesce(excluded.parent, parent)",
    )
    .bind(&*info.device)
    .bind(info.name.as_deref())
    .bind(info.driver.as_deref())
    .bind(number(info.total_bytes))
    .bind(info.parent.as_deref())
}

pub(crate) fn event(at_ns: i64, device: Option<i64>, event: &Event) -> Bound<'_> {
    sqlx::query(
        "INSERT INTO _event (run_id, device_id, at_ns, kind, message, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(event.run.map(|run| run.0))
    .bind(device)
    .bind(at_ns)
    .bind(event.kind.as_str())
    .bind(event.message.as_str())
    .bind(json(&event.detail))
}

pub(crate) fn loss(at_ns: i64, loss: &Loss) -> Bound<'_> {
    sqlx::query("INSERT INTO _loss (source, reason, at_ns, count) VALUES (?, ?, ?, ?)")
        .bind(&*loss.source)
        .bind(&*loss.reason)
        .bind(at_ns)
        .bind(i64::try_from(loss.count).unwrap_or(i64::MAX))
}

/// A run that is started twice keeps its first start.
pub(crate) fn run_start(at_ns: i64, run: &RunStart) -> Bound<'_> {
    sqlx::query(
        "INSERT INTO _run (id, name, engine, host, pid, command, started_ns, outcome, trace_tier)
         VALUES (?, ?, ?, ?, ?, ?, ?, 'running', ?)
         ON CONFLICT (id) DO UPDATE SET
             name = excluded.name, engine = excluded.engine, host = excluded.host, pid = excluded.pid,
             command = excluded.command, trace_tier = excluded.trace_tier",
    )
    .bind(run.id.0)
    .bind(run.name.as_str())
    .bind(run.engine.as_deref())
    .bind(run.host.as_str())
    .bind(run.pid)
    .bind(run.command.as_deref())
    .bind(at_ns)
    .bind(run.trace_tier.as_str())
}

pub(crate) fn run_end(at_ns: i64, end: &RunEnd) -> Bound<'_> {
    sqlx::query("UPDATE _run SET ended_ns = ?, exit_code = ?, outcome = ? WHERE id = ?")
        .bind(at_ns)
        .bind(end.exit_code)
        .bind(end.outcome.as_str())
        .bind(end.id.0)
}

/// The daemon may have been restarted in the middle of the run, so what is stored may be larger. Touches no row when
/// the run's start is not stored yet.
pub(crate) fn run_peak(run: RunId, bytes: u64) -> Bound<'static> {
    sqlx::query("UPDATE _run SET peak_used_bytes = max(coalesce(peak_used_bytes, 0), ?) WHERE id = ?")
        .bind(number(Some(bytes)))
        .bind(run.0)
}

/// Updates keep the run and the time that the decision was made with.
pub(crate) fn decision(decision: &Decision) -> Bound<'_> {
    sqlx::query(
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
    .bind(json(&decision.detail))
}

/// Updates keep the time that the file was first about to be written.
pub(crate) fn config_change(change: &ConfigChange) -> Bound<'_> {
    sqlx::query(
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
    .bind(change.outcome.as_str())
}

pub(crate) fn engine_memo(memo: &EngineMemo) -> Bound<'_> {
    sqlx::query("INSERT OR REPLACE INTO _engine_memo VALUES (?, ?)")
        .bind(memo.engine.as_str())
        .bind(memo.state.as_str())
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
    fn every_number_of_rows_takes_few_statements_of_few_sizes() {
        let mut sizes = std::collections::BTreeSet::new();
        for all in 0..=1_000_usize {
            let (mut left, mut statements) = (all, 0);
            while left > 0 {
                let block = block_of(left);
                assert!((1..=left.min(MOST)).contains(&block), "{block} of {left}");
                assert_eq!(
                    PROCESS.statement(block).matches("(?,?,?,?,?,?,?,?)").count(),
                    block
                );
                sizes.insert(size_of(block));
                left -= block;
                statements += 1;
            }
            assert!(
                statements <= all / MOST + 5,
                "{statements} statements for {all} rows"
            );
        }
        // There are eleven such tables and two dozen other statements; `schema` says how many are kept prepared.
        assert_eq!(sizes.len(), SIZES, "{sizes:?}");
        assert_eq!(
            ENGINE.statement(2),
            "INSERT OR REPLACE INTO _engine_raw VALUES (?,?,?,?),(?,?,?,?)"
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
