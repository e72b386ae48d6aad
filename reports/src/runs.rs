//! The list of runs.

use std::time::Duration;

use jiff::tz::TimeZone;
use plimsoll_store::{Reader, Value};
use plimsoll_trace::units::{show_bytes, show_duration};
use serde::Serialize;

use crate::error::ReportError;
use crate::instant::format_in;
use crate::plain::{Column, UNKNOWN, table};
use crate::row::{Row, rows};
use crate::versioned;

/// One row of the view `runs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The configured engine, if it is one.
    pub engine: Option<String>,
    /// The machine.
    pub host: String,
    /// The root process.
    pub pid: Option<i64>,
    /// The command line.
    pub command: Option<String>,
    /// When it began, ns since the Unix epoch.
    pub started_ns: i64,
    /// When it ended; `None` while it runs.
    pub ended_ns: Option<i64>,
    /// The exit status, when somebody saw it.
    pub exit_code: Option<i64>,
    /// How it ended.
    pub outcome: String,
    /// The most its processes held at one instant, bytes.
    pub peak_used_bytes: Option<u64>,
    /// What the agent recorded.
    pub trace_tier: String,
}

pub(crate) const COLUMNS: &str = "id, name, engine, host, pid, command, started_ns, ended_ns, exit_code, outcome, \
                                  peak_used_bytes, trace_tier";

impl Run {
    pub(crate) fn read(row: &mut Row<'_>) -> Option<Self> {
        Some(Self {
            id: row.int()?,
            name: row.word(),
            engine: row.text(),
            host: row.word(),
            pid: row.int(),
            command: row.text(),
            started_ns: row.int()?,
            ended_ns: row.int(),
            exit_code: row.int(),
            outcome: row.word(),
            peak_used_bytes: row.size(),
            trace_tier: row.word(),
        })
    }

    /// How long it ran, or has run at `now_ns`.
    pub(crate) fn duration(&self, now_ns: i64) -> Duration {
        let end = self.ended_ns.unwrap_or(now_ns);
        Duration::from_nanos(u64::try_from(end.saturating_sub(self.started_ns)).unwrap_or(0))
    }
}

/// Reads the newest runs, newest first; all of them without a limit.
///
/// # Errors
/// When the store cannot be read.
pub async fn load(reader: &Reader, limit: Option<u32>) -> Result<Vec<Run>, ReportError> {
    let sql = format!("SELECT {COLUMNS} FROM runs ORDER BY started_ns DESC, id DESC LIMIT ?");
    let limit = limit.map_or(-1, i64::from);
    let found = reader.query(&sql, &[Value::Integer(limit)]).await?;
    Ok(rows(&found).filter_map(|mut row| Run::read(&mut row)).collect())
}

/// Reads one run.
///
/// # Errors
/// [`ReportError::UnknownRun`], or that the store cannot be read.
pub async fn one(reader: &Reader, run: i64) -> Result<Run, ReportError> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE id = ?");
    let found = reader.query(&sql, &[Value::Integer(run)]).await?;
    let found = rows(&found).next().and_then(|mut row| Run::read(&mut row));
    found.ok_or_else(|| ReportError::UnknownRun {
        wanted: run.to_string(),
        near: Vec::new(),
    })
}

/// The list for people, with local times; `now_ns` is what running runs are measured against.
#[must_use]
pub fn text(runs: &[Run], zone: &TimeZone, now_ns: i64) -> String {
    if runs.is_empty() {
        return "No runs are recorded yet.\n".to_owned();
    }
    let columns = [
        Column::Number("ID"),
        Column::Text("NAME"),
        Column::Text("STARTED"),
        Column::Number("DURATION"),
        Column::Text("OUTCOME"),
        Column::Number("EXIT"),
        Column::Number("PEAK"),
    ];
    let rows = runs.iter().map(|run| {
        vec![
            run.id.to_string(),
            run.name.clone(),
            format_in(run.started_ns, zone, "%Y-%m-%d %H:%M %:z"),
            show_duration(run.duration(now_ns)),
            run.outcome.clone(),
            match (run.exit_code, run.outcome.as_str()) {
                (Some(code), _) => code.to_string(),
                (None, "running") => "-".to_owned(),
                (None, _) => UNKNOWN.to_owned(),
            },
            run.peak_used_bytes.map_or_else(|| UNKNOWN.to_owned(), show_bytes),
        ]
    });
    table(&columns, rows.collect(), 0)
}

/// The list for programs: `{"version": 1, "runs": [...]}`.
#[must_use]
pub fn json(runs: &[Run]) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        runs: &'a [Run],
    }
    versioned(&Body { runs })
}
