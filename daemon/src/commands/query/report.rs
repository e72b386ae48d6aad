//! `plimsoll report`: the picture of a run, alone or in a page with everything that was decided.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use plimsoll_reports::{Theme, find_run, flame, html, load, runs, show, svg};
use plimsoll_store::Reader;
use plimsoll_trace::units;
use plimsoll_tuner::condition::Clause;
use plimsoll_tuner::rule::Rule;

use super::super::{Outcome, print, runtime};
use super::{failed, now_ns, open};
use crate::cli;
use crate::config::Config;
use crate::failure::{Failure, Status};
use crate::screen::say;

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
    // A run's name may have slashes, but is no path.
    let output = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.svg", run.replace('/', "-"))));
    let to_stdout = output.as_os_str() == "-";
    let end = output
        .extension()
        .and_then(|end| end.to_str())
        .map(str::to_ascii_lowercase);
    let page = match end.as_deref() {
        Some("html" | "htm") => true,
        Some("svg") => false,
        _ if to_stdout => false,
        _ => {
            let text = format!(
                "'{}' must end in .svg for the picture or .html for the page, or be - for stdout",
                output.display()
            );
            return Err(Failure::usage(text));
        }
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
    // A picture needs no configuration, so a mistake in it is no hindrance; its lines are then those of decisions alone.
    let config = Config::load(arguments.source.config.config.as_deref()).ok();
    let (text, kernels) = runtime()?.block_on(async {
        let reader = open(&arguments.source).await?;
        let text = make(&reader, &drawing, config.as_ref()).await?;
        let kernels = match &arguments.flame {
            Some(file) => Some((file, kernels(&reader, &drawing).await?)),
            None => None,
        };
        Ok::<_, Failure>((text, kernels))
    })?;
    if let Some((file, kernels)) = kernels {
        write(file, &kernels)?;
        say(format_args!("{} written", file.display()));
    }
    if to_stdout {
        return print(&text);
    }
    write(&output, &text)?;
    say(format_args!("{} written", output.display()));
    Ok(ExitCode::SUCCESS)
}

/// Draws a run into a file: a page if its name ends so, else the picture alone.
pub(in crate::commands) async fn draw(reader: &Reader, run: &str, output: &Path) -> Result<(), Failure> {
    let page = output.extension().is_some_and(|end| end == "html");
    let text = make(
        reader,
        &Drawing {
            run,
            from: None,
            to: None,
            theme: Theme::Auto,
            page,
        },
        None,
    )
    .await?;
    write(output, &text)
}

/// The lines of the rules that are configured for an engine.
fn lines(config: &Config, engine: &str) -> Vec<load::RuleLine> {
    let ladder = config.engines.iter().map(|(_, ladder)| ladder);
    let rules = ladder
        .filter(|ladder| ladder.engine == engine)
        .flat_map(|ladder| &ladder.rules);
    let line = |rule: &Rule, clause: &Clause| load::RuleLine {
        rule: rule.name.clone(),
        signal: clause.probe.signal.to_string(),
        enter: clause.enter,
        exit: Some(clause.exit),
    };
    rules
        .flat_map(|rule| rule.when.clauses().iter().map(move |clause| line(rule, clause)))
        .collect()
}

async fn make(reader: &Reader, drawing: &Drawing<'_>, config: Option<&Config>) -> Result<String, Failure> {
    let run = find_run(reader, drawing.run).await.map_err(failed)?;
    let told = runs::one(reader, run).await.map_err(failed)?;
    let zone = TimeZone::system();
    let (from_ns, to_ns) = window(&told, drawing.from, drawing.to, &zone)?;
    let request = load::Request {
        run: Some(run),
        from_ns,
        to_ns,
        rules: config
            .zip(told.engine.as_deref())
            .map_or_else(Vec::new, |(config, engine)| lines(config, engine)),
    };
    let timeline = load::timeline(reader, &request).await.map_err(failed)?;
    let picture = svg(&timeline, drawing.theme, &zone).context("the picture cannot be drawn")?;
    if !drawing.page {
        return Ok(picture);
    }
    let shown = show::load(reader, run, now_ns()).await.map_err(failed)?;
    let kernels = flame::load(reader, run).await.map_err(failed)?;
    let kernels = (!kernels.kernels.is_empty()).then(|| flame::svg(&kernels, drawing.theme));
    Ok(html::page(&shown, &picture, kernels.as_deref(), &zone, now_ns()))
}

/// The picture of a run's kernels.
async fn kernels(reader: &Reader, drawing: &Drawing<'_>) -> Result<String, Failure> {
    let run = find_run(reader, drawing.run).await.map_err(failed)?;
    let kernels = flame::load(reader, run).await.map_err(failed)?;
    Ok(flame::svg(&kernels, drawing.theme))
}

/// The part of a run that the command line names, as far as it does.
pub(super) fn window(
    run: &runs::Run,
    from: Option<&str>,
    to: Option<&str>,
    zone: &TimeZone,
) -> Result<(Option<i64>, Option<i64>), Failure> {
    let instant = |text: Option<&str>| text.map(|text| instant(text, run.started_ns, zone)).transpose();
    let (from_ns, to_ns) = (instant(from)?, instant(to)?);
    let (start, end) = (run.started_ns, run.ended_ns.unwrap_or_else(now_ns));
    if from_ns.is_some_and(|from| from >= end) || to_ns.is_some_and(|to| to <= start) {
        let lasted = Duration::from_nanos(u64::try_from(end.saturating_sub(start)).unwrap_or(0));
        let (lasted, run) = (units::show_duration(lasted), run.id);
        return Err(Failure::usage(format!(
            "nothing of run {run} lies there: it lasted {lasted}; `plimsoll show {run}` says when"
        )));
    }
    Ok((from_ns, to_ns))
}

/// Reads "90s" or "01:30" into the run, as pictures count; "03:20:00", the first after its start; or a date and time,
/// local unless it says otherwise.
fn instant(text: &str, started_ns: i64, zone: &TimeZone) -> Result<i64, Failure> {
    let text = text.trim();
    let far = || Failure::usage(format!("'{text}' is too far away"));
    if let Ok(offset) = units::parse_duration(text) {
        let offset = i64::try_from(offset.as_nanos()).ok();
        return offset
            .and_then(|offset| started_ns.checked_add(offset))
            .ok_or_else(far);
    }
    if let Some((minutes, secs)) = text.split_once(':')
        && let (Ok(minutes), Ok(secs @ 0..60)) = (minutes.parse::<u32>(), secs.parse::<u32>())
    {
        return started_ns
            .checked_add((i64::from(minutes) * 60 + i64::from(secs)) * 1_000_000_000)
            .ok_or_else(far);
    }
    let at = calendar(text, started_ns, zone).ok_or_else(|| {
        Failure::usage(format!(
            "'{text}' is not a time; write \"90s\" or \"01:30\" into the run, a time of day such as \"03:20:00\", \
             or \"2026-11-22 03:20\""
        ))
    })?;
    i64::try_from(at.as_nanosecond()).map_err(|_| far())
}

fn calendar(text: &str, started_ns: i64, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    // As `plimsoll show` prints times.
    if let Ok(at) = Timestamp::strptime("%Y-%m-%d %H:%M:%S %:z", text) {
        return Some(at);
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    }
    let time: Time = text.parse().ok()?;
    let started = Timestamp::from_nanosecond(i128::from(started_ns)).ok()?;
    let first = started.to_zoned(zone.clone()).date();
    let days = [Some(first), first.tomorrow().ok()].into_iter().flatten();
    let mut candidates = days.filter_map(|day| day.to_datetime(time).to_zoned(zone.clone()).ok());
    candidates
        .find(|at| at.timestamp().as_second() >= started.as_second())
        .map(|at| at.timestamp())
}

/// Writes a whole file or none: a reader never sees half a picture. A link stays one.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let whole = WholeFile::beside(path)?;
    whole
        .file
        .as_file()
        .write_all(text.as_bytes())
        .map_err(|error| unwritable(path, &error))?;
    whole.put_in_place()
}

/// A file that is written beside the one that it will be.
pub(super) struct WholeFile<'a> {
    path: &'a Path,
    target: PathBuf,
    file: tempfile::NamedTempFile,
}

impl<'a> WholeFile<'a> {
    pub(super) fn beside(path: &'a Path) -> Result<Self, Failure> {
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let file =
            tempfile::NamedTempFile::new_in(folder(&target)).map_err(|error| unwritable(path, &error))?;
        Ok(Self { path, target, file })
    }

    /// Where to write.
    pub(super) fn file(&self) -> Result<std::fs::File, Failure> {
        let file = self.file.as_file().try_clone();
        file.map_err(|error| unwritable(self.path, &error))
    }

    pub(super) fn put_in_place(self) -> Result<(), Failure> {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let set = self.file.as_file().set_permissions(mode);
        let written = set.and_then(|()| self.file.persist(&self.target).map_err(|error| error.error));
        written.map(drop).map_err(|error| unwritable(self.path, &error))
    }
}

fn folder(target: &Path) -> &Path {
    target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// Why a file could not be written.
pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = folder(&target);
    let reason = match error.kind() {
        ErrorKind::NotFound if !folder.is_dir() => {
            format!("the folder {} does not exist", folder.display())
        }
        ErrorKind::PermissionDenied => {
            format!("this user may not write into the folder {}", folder.display())
        }
        _ => error.to_string(),
    };
    let text = format!("{} cannot be written: {reason}", path.display());
    Failure::new(Status::Failed, anyhow::Error::msg(text))
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let zone = TimeZone::fixed(Offset::constant(1));
        let ns = |text: &str| {
            text.parse::<Timestamp>()
                .map(|at| at.as_nanosecond())
                .unwrap_or_default()
        };
        let started_ns = i64::try_from(ns("2026-11-22T22:00:00Z")).unwrap_or_default();
        for (text, is) in [
            ("90s", "2026-11-22T22:01:30Z"),
            ("01:30", "2026-11-22T22:01:30Z"),
            ("0", "2026-11-22T22:00:00Z"),
            ("2026-11-22T22:10:00Z", "2026-11-22T22:10:00Z"),
            ("2026-11-22 23:10", "2026-11-22T22:10:00Z"),
            ("2026-11-22 23:10:05 +01:00", "2026-11-22T22:10:05Z"),
            ("23:10:00", "2026-11-22T22:10:00Z"),
            ("03:20:00", "2026-11-23T02:20:00Z"),
        ] {
            let at = instant(text, started_ns, &zone)
                .map(i128::from)
                .map_err(|failure| failure.to_string());
            assert_eq!(at, Ok(ns(is)), "{text}");
        }
        for text in [
            "",
            "5",
            "-5s",
            "yesterday",
            "01:75",
            "9999999d",
            "25:00:00",
            "2026-13-01",
        ] {
            assert!(instant(text, started_ns, &zone).is_err(), "{text}");
        }
    }
}
