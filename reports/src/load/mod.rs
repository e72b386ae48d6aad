//! A timeline out of a store, as SQL over its public views.
//!
//! Every row of a window is read, and what a picture can show is kept of it: of each column of pixels the first, lowest,
//! highest and last reading, and what processes held then. So a window of any length takes the same memory, and a day of
//! eight devices well under a second; grouping it in SQL took five times as long.

mod allocators;
mod gpu_time;
mod holdings;
mod kept;
mod lines;
mod marks;
mod owners;
mod samples;

use plimsoll_store::{Reader, Value};

pub use lines::RuleLine;

use crate::error::ReportError;
use crate::instant::full;
use crate::row::rows;
use crate::timeline::{DeviceTrack, Span, Timeline, Title};

/// The window of a request without a run and without a start, ns.
const DEFAULT_WINDOW_NS: i64 = 3_600_000_000_000;

/// Which part of a store to draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// A run: its life is the window, its processes are named and all others are "other processes". `None` for
    /// everything on the host.
    pub run: Option<i64>,
    /// Start of the window, ns since the Unix epoch; by default the run's start, or an hour before the end.
    pub from_ns: Option<i64>,
    /// End of the window, ns since the Unix epoch; by default the run's end, or the newest reading.
    pub to_ns: Option<i64>,
    /// Lines of rules that are configured. Lines of rules that decided something in the window are found anyway.
    pub rules: Vec<RuleLine>,
}

/// A window with its bounds known.
#[derive(Clone, Copy, Debug)]
struct Window {
    run: Option<i64>,
    from_ns: i64,
    to_ns: i64,
}

impl Window {
    fn bounds(&self) -> [Value; 2] {
        [Value::Integer(self.from_ns), Value::Integer(self.to_ns)]
    }
}

/// Reads a timeline.
///
/// # Errors
/// [`ReportError::UnknownRun`], [`ReportError::EmptyWindow`], or that the store cannot be read.
pub async fn timeline(reader: &Reader, request: &Request) -> Result<Timeline, ReportError> {
    let mut title = match request.run {
        Some(run) => run_title(reader, run).await?,
        None => Title::default(),
    };
    let window = window(reader, request, &title).await?;
    if request.run.is_none() {
        title = window_title(reader, &window).await?;
    }
    let mut devices = samples::tracks(reader, &window).await?;
    let told_ns = match title.outcome.as_deref() {
        Some("running") => instant(reader, NEWEST)
            .await?
            .map_or(window.to_ns, |at_ns| at_ns.min(window.to_ns)),
        _ => window.to_ns,
    };
    for track in &mut devices {
        close_edges(track, &window, told_ns);
    }
    let rules = lines::of_window(reader, &window, &request.rules).await?;
    for track in &mut devices {
        track.lines = lines::on_device(&rules, track);
    }
    let mut marks = marks::of_window(reader, &window).await?;
    // What happened on devices that are not in the picture is not told in it.
    marks.retain(|mark| {
        mark.device
            .as_ref()
            .is_none_or(|uuid| devices.iter().any(|track| track.uuid == *uuid))
    });
    Ok(Timeline {
        title,
        from_ns: window.from_ns,
        to_ns: window.to_ns,
        devices,
        marks,
    })
}

async fn run_title(reader: &Reader, run: i64) -> Result<Title, ReportError> {
    let sql = "SELECT name, engine, host, started_ns, outcome FROM runs WHERE id = ?";
    let table = reader.query(sql, &[Value::Integer(run)]).await?;
    let mut row = rows(&table).next().ok_or_else(|| ReportError::UnknownRun {
        wanted: run.to_string(),
        near: Vec::new(),
    })?;
    Ok(Title {
        run_id: Some(run),
        name: row.word(),
        engine: row.text(),
        model: None,
        host: row.text(),
        started_ns: row.int(),
        outcome: row.text(),
    })
}

/// The runs that were alive in the window give it its name, when they have the same.
async fn window_title(reader: &Reader, window: &Window) -> Result<Title, ReportError> {
    let sql = "SELECT DISTINCT name, engine, host FROM runs \
               WHERE started_ns <= ?2 AND (ended_ns IS NULL OR ended_ns >= ?1) ORDER BY name LIMIT 2";
    let table = reader.query(sql, &window.bounds()).await?;
    let mut found = rows(&table).map(|mut row| (row.word(), row.text(), row.text()));
    Ok(match (found.next(), found.next()) {
        (Some((name, engine, host)), None) => Title {
            name,
            engine,
            host,
            ..Title::default()
        },
        (one, _) => Title {
            name: "all processes".to_owned(),
            host: one.and_then(|(_, _, host)| host),
            ..Title::default()
        },
    })
}

async fn window(reader: &Reader, request: &Request, title: &Title) -> Result<Window, ReportError> {
    let mut end = request.to_ns;
    if let (None, Some(run)) = (end, request.run) {
        let sql = "SELECT ended_ns FROM runs WHERE id = ?";
        let table = reader.query(sql, &[Value::Integer(run)]).await?;
        end = rows(&table).next().and_then(|mut row| row.int());
    }
    if end.is_none() {
        let newest = if request.run.is_some() {
            NEWEST
        } else {
            NEWEST_OF_DEVICES
        };
        end = instant(reader, newest).await?;
    }
    let start = request.from_ns.or(title.started_ns);
    let to_ns = end.or(start.map(|from| from.saturating_add(1))).unwrap_or(0);
    let from_ns = start.unwrap_or_else(|| to_ns.saturating_sub(DEFAULT_WINDOW_NS));
    if from_ns > to_ns {
        // A run that has just begun may have no reading yet.
        if request.to_ns.is_none() {
            let to_ns = from_ns.saturating_add(1);
            return Ok(Window {
                run: request.run,
                from_ns,
                to_ns,
            });
        }
        let utc = |at_ns| full(at_ns, &jiff::tz::TimeZone::UTC);
        return Err(ReportError::EmptyWindow {
            from: utc(from_ns),
            to: utc(to_ns),
        });
    }
    Ok(Window {
        run: request.run,
        from_ns,
        to_ns: to_ns.max(from_ns.saturating_add(1)),
    })
}

const NEWEST_OF_DEVICES: &str = "SELECT at_ns FROM device_samples ORDER BY at_ns DESC LIMIT 1";
/// The host still answers when a run's devices do not.
const NEWEST: &str = "SELECT max(at_ns) FROM (SELECT max(at_ns) AS at_ns FROM host_samples UNION ALL \
                      SELECT (SELECT at_ns FROM device_samples ORDER BY at_ns DESC LIMIT 1))";

async fn instant(reader: &Reader, sql: &str) -> Result<Option<i64>, ReportError> {
    let table = reader.query(sql, &[]).await?;
    Ok(rows(&table).next().and_then(|mut row| row.int()))
}

/// Readings that begin late or end early leave a gap at the edge. Those that come after `told_ns` may only not have come
/// yet.
fn close_edges(track: &mut DeviceTrack, window: &Window, told_ns: i64) {
    let least = (window.to_ns.saturating_sub(window.from_ns) / 50).max(3_000_000_000);
    let (Some(first), Some(last)) = (track.samples.first(), track.samples.last()) else {
        return;
    };
    let (first, last) = (first.at_ns, last.at_ns);
    if first.saturating_sub(window.from_ns) > least {
        let gap = Span {
            from_ns: window.from_ns,
            to_ns: first,
        };
        track.gaps.insert(0, gap);
    }
    // Where readings are far apart, the next one is waited for.
    let step = last.saturating_sub(first) / i64::try_from(track.samples.len()).unwrap_or(i64::MAX);
    if told_ns.saturating_sub(last) > least.max(step.saturating_mul(3)) {
        track.gaps.push(Span {
            from_ns: last,
            to_ns: told_ns,
        });
    }
}
