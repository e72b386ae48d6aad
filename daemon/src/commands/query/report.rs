//! `plimsoll report`: the picture of a run, alone or in a page with everything that was decided.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use plimsoll_reports::{Theme, find_run, html, load, show, svg};
use plimsoll_store::Reader;
use plimsoll_trace::units;

use super::super::{Outcome, print, runtime};
use super::{failed, now_ns, open};
use crate::cli;
use crate::failure::{Failure, Status};

/// What to draw, and how.
struct Drawing<'a> {
    run: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
    theme: Theme,
    page: bool,
}

pub(in crate::commands) fn report(arguments: &cli::Report) -> Outcome {
    let run = &arguments.run.run;
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{run}.svg")));
    let to_stdout = output.as_os_str() == "-";
    let page = match output.extension().and_then(|end| end.to_str()) {
        Some("html" | "htm") => true,
        Some("svg") => false,
        _ if to_stdout => false,
        _ => return Err(Failure::usage(format!("{} must end in .svg or .html", output.display()))),
    };
    let drawing = Drawing {
        run,
        from: arguments.from.as_deref(),
        to: arguments.to.as_deref(),
        theme: match arguments.theme {
            cli::Theme::Auto => Theme::Auto,
            cli::Theme::Light => Theme::Light,
            cli::Theme::Dark => Theme::Dark,
        },
        page,
    };
    let text = runtime()?.block_on(async {
        let reader = open(&arguments.source).await?;
        make(&reader, &drawing).await
    })?;
    if to_stdout {
        return print(&text);
    }
    write(&output, &text)?;
    eprintln!("{} written", output.display());
    Ok(ExitCode::SUCCESS)
}

/// Draws a run into a file: a page if its name ends so, else the picture alone.
pub(in crate::commands) async fn draw(reader: &Reader, run: &str, output: &Path) -> Result<(), Failure> {
    let page = output.extension().is_some_and(|end| end == "html");
    let text = make(reader, &Drawing { run, from: None, to: None, theme: Theme::Auto, page }).await?;
    write(output, &text)
}

async fn make(reader: &Reader, drawing: &Drawing<'_>) -> Result<String, Failure> {
    let run = find_run(reader, drawing.run).await.map_err(failed)?;
    let shown = show::load(reader, run, now_ns()).await.map_err(failed)?;
    let instant = |text: Option<&str>| text.map(|text| instant(text, shown.run.started_ns)).transpose();
    let request = load::Request {
        run: Some(run),
        from_ns: instant(drawing.from)?,
        to_ns: instant(drawing.to)?,
        rules: Vec::new(),
    };
    let timeline = load::timeline(reader, &request).await.map_err(failed)?;
    let zone = TimeZone::system();
    let picture = svg(&timeline, drawing.theme, &zone).context("the picture cannot be drawn")?;
    Ok(if drawing.page { html::page(&shown, &picture, &zone, now_ns()) } else { picture })
}

/// "90s" after the start of the run, or a time of the calendar.
fn instant(text: &str, started_ns: i64) -> Result<i64, Failure> {
    if let Ok(offset) = units::parse_duration(text) {
        return Ok(started_ns.saturating_add(i64::try_from(offset.as_nanos()).unwrap_or(i64::MAX)));
    }
    let at: Timestamp = text.parse().map_err(|_| {
        Failure::usage(format!("'{text}' is not a time; write \"90s\" into the run, or \"2026-11-22T03:20:00Z\""))
    })?;
    i64::try_from(at.as_nanosecond()).map_err(|_| Failure::usage(format!("'{text}' is too far away")))
}

/// Writes a whole file or none: a reader never sees half a picture.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path).map_err(|error| error.error)
    });
    let written = written.with_context(|| format!("{} cannot be written", path.display()));
    written.map(drop).map_err(|error| Failure::new(Status::Failed, error))
}
