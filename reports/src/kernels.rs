//! A run's kernels by GPU time, and what the tracing cost and missed; `text` tells them to people.

mod text;

use plimsoll_store::{Reader, Value};
use serde::Serialize;

use crate::error::ReportError;
use crate::row::{Row, rows};
use crate::runs::{self, Run};
use crate::versioned;

pub use text::text;

/// The kernels of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernels {
    /// The run.
    pub run: Run,
    /// By total time, longest first.
    pub kernels: Vec<Kernel>,
    /// How many more there are.
    pub left_out: u64,
    /// Launches of all kernels, those left out too.
    pub count: u64,
    /// Time of all kernels, ns.
    pub total_ns: u64,
    /// What the agents said that they cost.
    pub cost: Cost,
    /// What the run's agents lost.
    pub losses: Vec<Lost>,
    /// The last word of an agent that records less than was asked for.
    pub degraded: Option<String>,
}

/// One kernel on one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// The device's UUID.
    pub device: Option<String>,
    /// As people write it.
    pub name: String,
    /// As CUPTI gave it.
    pub raw_name: String,
    /// Launches that ended.
    pub count: u64,
    /// Sum of their durations.
    pub total_ns: u64,
    /// Its share of the time of all kernels, 0..1.
    pub share_ratio: Option<f64>,
    /// Mean duration.
    pub mean_ns: Option<f64>,
    /// The shortest.
    pub min_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
    /// The median.
    pub p50_ns: Option<u64>,
    /// What 99 of 100 did not exceed.
    pub p99_ns: Option<u64>,
}

/// What the agents of a run cost, by their own measurement; of several processes at one time the highest speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Share of the processes' time, mean.
    pub mean_ratio: Option<f64>,
    /// Share of the processes' time, highest.
    pub max_ratio: Option<f64>,
    /// Share of the time in which kernels were recorded, mean.
    pub duty_ratio: Option<f64>,
    /// Device memory that CUPTI held for it, highest, bytes.
    pub device_bytes: Option<u64>,
}

/// Records that agents lost, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// Reads the `limit` kernels of a run that took longest; `now_ns` ends the window of one that still runs.
///
/// # Errors
/// [`ReportError::UnknownRun`], or that the store cannot be read.
pub async fn load(
    reader: &Reader,
    number: i64,
    limit: Option<u32>,
    now_ns: i64,
) -> Result<Kernels, ReportError> {
    let sql = format!("SELECT {} FROM runs WHERE id = ?", runs::COLUMNS);
    let found = reader.query(&sql, &[Value::Integer(number)]).await?;
    let run = rows(&found).next().and_then(|mut row| Run::read(&mut row));
    let run = run.ok_or_else(|| ReportError::UnknownRun {
        wanted: number.to_string(),
        near: Vec::new(),
    })?;
    let id = Value::Integer(run.id);
    let sums = "SELECT count(*), sum(count), sum(total_ns) FROM kernels WHERE run_id = ?";
    let sums = reader.query(sums, std::slice::from_ref(&id)).await?;
    let mut sums = rows(&sums).next();
    let mut sum = || sums.as_mut().and_then(Row::size).unwrap_or(0);
    let (kinds, count, total_ns) = (sum(), sum(), sum());
    let sql = "SELECT device, name, raw_name, count, total_ns, mean_ns, min_ns, max_ns, p50_ns, p99_ns \
               FROM kernels WHERE run_id = ? ORDER BY total_ns DESC, name, device LIMIT ?";
    let limit = limit.map_or(-1, i64::from);
    let found = reader.query(sql, &[id.clone(), Value::Integer(limit)]).await?;
    let kernels: Vec<Kernel> = rows(&found)
        .map(|mut row| Kernel::read(&mut row, total_ns))
        .collect();
    Ok(Kernels {
        left_out: kinds.saturating_sub(kernels.len() as u64),
        kernels,
        count,
        total_ns,
        cost: cost(reader, &run, now_ns).await?,
        losses: losses(reader, &run, now_ns).await?,
        degraded: degraded(reader, run.id).await?,
        run,
    })
}

async fn degraded(reader: &Reader, run: i64) -> Result<Option<String>, ReportError> {
    let sql =
        "SELECT message FROM events WHERE run_id = ? AND kind = 'agent_degraded' ORDER BY at_ns DESC LIMIT 1";
    let found = reader.query(sql, &[Value::Integer(run)]).await?;
    Ok(rows(&found).next().and_then(|mut row| row.text()))
}

impl Kernel {
    #[expect(clippy::cast_precision_loss, reason = "a share, printed with one decimal")]
    fn read(row: &mut Row<'_>, all_ns: u64) -> Self {
        let (device, name, raw_name) = (row.text(), row.word(), row.word());
        let (count, total_ns) = (row.size().unwrap_or(0), row.size().unwrap_or(0));
        Self {
            device,
            name,
            raw_name,
            count,
            total_ns,
            share_ratio: (all_ns > 0).then(|| total_ns as f64 / all_ns as f64),
            mean_ns: row.real(),
            min_ns: row.size(),
            max_ns: row.size(),
            p50_ns: row.size(),
            p99_ns: row.size(),
        }
    }
}

/// The last figures come with the last flush, which may be a little after the end.
const AFTER_NS: i64 = 5_000_000_000;

/// From when to when, and which run.
fn window(run: &Run, now_ns: i64) -> [Value; 3] {
    let end = run.ended_ns.map_or(now_ns, |end| end.saturating_add(AFTER_NS));
    [run.started_ns, end, run.id].map(Value::Integer)
}

async fn cost(reader: &Reader, run: &Run, now_ns: i64) -> Result<Cost, ReportError> {
    let sql = "SELECT signal, avg(value), max(value) FROM engine_samples \
               WHERE at_ns BETWEEN ?1 AND ?2 AND run_id = ?3 AND signal LIKE 'agent.%' GROUP BY signal";
    let found = reader.query(sql, &window(run, now_ns)).await?;
    let mut cost = Cost::default();
    for mut row in rows(&found) {
        let (signal, mean, max) = (row.word(), row.real(), row.real());
        match signal.as_str() {
            "agent.cost_ratio" => (cost.mean_ratio, cost.max_ratio) = (mean, max),
            "agent.duty_ratio" => cost.duty_ratio = mean,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates; bytes"
            )]
            "agent.device_bytes" => cost.device_bytes = max.map(|bytes| bytes as u64),
            _ => {}
        }
    }
    Ok(cost)
}

async fn losses(reader: &Reader, run: &Run, now_ns: i64) -> Result<Vec<Lost>, ReportError> {
    let sql = "SELECT reason, sum(count) FROM losses \
               WHERE source = 'agent' AND (run_id = ?3 OR (run_id IS NULL AND at_ns BETWEEN ?1 AND ?2)) \
               GROUP BY reason ORDER BY reason";
    let found = reader.query(sql, &window(run, now_ns)).await?;
    let lost = |mut row: Row<'_>| Lost {
        reason: row.word(),
        count: row.int().unwrap_or(0),
    };
    Ok(rows(&found).map(lost).collect())
}

/// The kernels for programs: `{"version": 1, "run": {...}, "kernels": [...], ...}`.
#[must_use]
pub fn json(kernels: &Kernels) -> String {
    versioned(kernels)
}
