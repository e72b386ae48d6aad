//! A run for other tools: a trace that opens in Perfetto, or its records as CSV or one JSON object a line.
//!
//! Rows are written as they are read, in stretches of time, so that a run of any length takes the same memory.

mod events;
mod lines;
mod perfetto;
mod periods;
mod source;

use std::collections::BTreeSet;
use std::io::{self, Write};

use plimsoll_store::{Reader, Row, Value};
use thiserror::Error;

use crate::error::ReportError;
use crate::instant::SECOND_NS;
use crate::row::rows;
use crate::runs::{self, Run};
use source::{SOURCES, Source, Whose};

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Chrome's JSON trace format, which Perfetto reads: counters, kernels as slices, what happened as instants.
    Perfetto,
    /// One value a line: when, which view, whose, which, how much. Unknown is an empty field.
    Csv,
    /// One row of a view a line, as an object; unknown is null.
    Ndjson,
}

/// Which part of which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The run.
    pub run: i64,
    /// Start of the window, ns since the Unix epoch; by default the run's.
    pub from_ns: Option<i64>,
    /// End of the window, ns since the Unix epoch; by default the run's, or now.
    pub to_ns: Option<i64>,
    /// What time it is, for a run that still runs, ns since the Unix epoch.
    pub now_ns: i64,
}

/// An export that could not be finished. The text fits after "failed to export:".
#[derive(Debug, Error)]
pub enum ExportError {
    /// The run cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What was read cannot be written.
    #[error("the export cannot be written")]
    Write(#[from] io::Error),
}

/// How much time is read at once, ns: a query has a limit of time, and an export has none.
const SLICE_NS: i64 = 600 * SECOND_NS;

/// Where an export goes. The first failure is kept, and nothing is written after it.
struct Sink {
    out: Box<dyn Write + Send>,
    failure: Option<io::Error>,
}

impl Sink {
    fn put(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(text.as_bytes()).err();
        }
    }
}

/// What is exported, known before the first row.
struct Subject {
    run: Run,
    from_ns: i64,
    to_ns: i64,
    /// The devices that the run held memory on; all, when that is not known.
    devices: Vec<Device>,
}

/// A device.
struct Device {
    uuid: String,
    name: Option<String>,
}

/// A form of export: its text for one row, and what is around all of them.
trait Form: Send + 'static {
    fn row(&mut self, source: &'static Source, row: &Row<'_>, sink: &mut Sink);
    fn end(&mut self, sink: &mut Sink);
}

/// Writes a run to `out`, row by row.
///
/// # Errors
/// [`ExportError`] when the run cannot be read or the text not be written; what was written until then is half of it.
pub async fn write(
    reader: &Reader,
    request: &Request,
    format: Format,
    out: Box<dyn Write + Send>,
) -> Result<(), ExportError> {
    let subject = subject(reader, request).await?;
    let mut sink = Sink { out, failure: None };
    let form: Box<dyn Form> = match format {
        Format::Perfetto => Box::new(perfetto::Trace::begin(&subject, &mut sink)),
        Format::Csv => Box::new(lines::Csv::begin(&mut sink)),
        Format::Ndjson => Box::new(lines::Ndjson),
    };
    let mut state = (sink, form);
    for source in SOURCES.iter().filter(|source| source.is_in(format)) {
        let sql = source.sql(&subject);
        let mut from_ns = subject.from_ns;
        while from_ns <= subject.to_ns {
            let to_ns = from_ns.saturating_add(SLICE_NS - 1).min(subject.to_ns);
            let values = [
                Value::Integer(from_ns),
                Value::Integer(to_ns),
                Value::Integer(subject.run.id),
            ];
            let values = if source.whose == Whose::Run {
                &values[..]
            } else {
                &values[..2]
            };
            let take =
                move |(sink, form): &mut (Sink, Box<dyn Form>), row: &Row<'_>| form.row(source, row, sink);
            state = reader
                .scan(&sql, values, state, take)
                .await
                .map_err(ReportError::from)?;
            if let Some(failure) = state.0.failure.take() {
                return Err(failure.into());
            }
            let Some(next_ns) = to_ns.checked_add(1) else {
                break;
            };
            from_ns = next_ns;
        }
    }
    let (mut sink, mut form) = state;
    form.end(&mut sink);
    match sink.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(sink.out.flush()?),
    }
}

async fn subject(reader: &Reader, request: &Request) -> Result<Subject, ReportError> {
    let run = runs::one(reader, request.run).await?;
    let from_ns = request.from_ns.unwrap_or(run.started_ns).max(run.started_ns);
    let end_ns = run.ended_ns.unwrap_or(request.now_ns);
    let to_ns = request.to_ns.unwrap_or(end_ns).min(end_ns).max(from_ns);
    let sql = "SELECT device FROM process_samples WHERE at_ns BETWEEN ?1 AND ?2 AND run_id = ?3";
    let values = [
        Value::Integer(run.started_ns),
        Value::Integer(end_ns),
        Value::Integer(run.id),
    ];
    let take = |held: &mut BTreeSet<String>, row: &Row<'_>| {
        if let Some(uuid) = row.text(0)
            && !held.contains(&*uuid)
        {
            held.insert(uuid.into_owned());
        }
    };
    let held = reader.scan(sql, &values, BTreeSet::new(), take).await?;
    let found = reader
        .query("SELECT device, name FROM devices ORDER BY device", &[])
        .await?;
    let devices = rows(&found).map(|mut row| Device {
        uuid: row.word(),
        name: row.text(),
    });
    let devices = devices.filter(|device| held.is_empty() || held.contains(&device.uuid));
    Ok(Subject {
        run,
        from_ns,
        to_ns,
        devices: devices.collect(),
    })
}
