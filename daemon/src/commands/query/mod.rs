//! Commands that read a database: `runs`, `show`, `kernels`, `why`, `report`, `export`, `sql`. They need no daemon.

mod export;
mod report;
mod sql;

use std::io::ErrorKind;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use plimsoll_reports::{ReportError, allocators, find_run, kernels, runs, show, why};
use plimsoll_store::{Reader, Value as Cell};
use plimsoll_trace::Stamp;
use serde_json::Value;

use super::{Outcome, print, runtime};
use crate::cli::Source;
use crate::config;
use crate::failure::{Failure, Status};
use crate::screen::say;

pub(super) use export::export;
pub(super) use report::{draw, report};
pub(super) use sql::sql;

pub(super) fn runs(source: &Source, json: bool) -> Outcome {
    let runs = runtime()?.block_on(async {
        let reader = open(source).await?;
        runs::load(&reader, None).await.map_err(failed)
    })?;
    print(&if json {
        runs::json(&runs)
    } else {
        runs::text(&runs, &TimeZone::system(), now_ns())
    })
}

pub(super) fn show(run: &str, source: &Source, json: bool) -> Outcome {
    let shown = runtime()?.block_on(async {
        let reader = open(source).await?;
        let run = find_run(&reader, run).await.map_err(failed)?;
        show::load(&reader, run, now_ns()).await.map_err(failed)
    })?;
    print(&if json {
        show::json(&shown)
    } else {
        show::text(&shown, &TimeZone::system(), now_ns())
    })
}

/// What a run's allocators hold: measured now, where the run goes on and a daemon answers.
pub(super) fn allocators(run: &str, source: &Source, json: bool) -> Outcome {
    let shown = runtime()?.block_on(async {
        let reader = open(source).await?;
        let run = find_run(&reader, run).await.map_err(failed)?;
        if runs::one(&reader, run).await.map_err(failed)?.ended_ns.is_none()
            && let Err(failure) = super::control::measure_allocators(run, source)
        {
            say(format_args!(
                "not measured now, only what was told last: {failure}"
            ));
        }
        allocators::load(&reader, run, now_ns()).await.map_err(failed)
    })?;
    print(&if json {
        allocators::json(&shown)
    } else {
        allocators::text(&shown, now_ns())
    })
}

/// The number of the run that somebody names.
pub(super) fn find(run: &str, source: &Source) -> Result<i64, Failure> {
    runtime()?.block_on(async {
        let reader = open(source).await?;
        find_run(&reader, run).await.map_err(failed)
    })
}

/// How many single kernels of a run are kept that began since then.
pub(super) fn spans_since(run: i64, since_ns: i64, source: &Source) -> Result<i64, Failure> {
    let sql = "SELECT count(*) FROM kernel_spans WHERE start_ns >= ?1 AND run_id = ?2";
    runtime()?.block_on(async {
        let reader = open(source).await?;
        let counted = reader.query(sql, &[since_ns, run].map(Cell::Integer)).await;
        let counted = counted.map_err(|error| Failure::new(Status::Failed, error))?;
        Ok(match counted.rows.first().and_then(|row| row.first()) {
            Some(Cell::Integer(count)) => *count,
            _ => 0,
        })
    })
}

/// How wide a table may be that goes into a file or a pipe.
const WIDTH: u16 = 120;

pub(super) fn kernels(run: &str, limit: u32, source: &Source, json: bool) -> Outcome {
    let found = runtime()?.block_on(async {
        let reader = open(source).await?;
        let run = find_run(&reader, run).await.map_err(failed)?;
        let limit = (limit > 0).then_some(limit);
        kernels::load(&reader, run, limit, now_ns()).await.map_err(failed)
    })?;
    let width = sql::terminal_width().unwrap_or(WIDTH);
    print(&if json {
        kernels::json(&found)
    } else {
        kernels::text(&found, width.into())
    })
}

/// What was decided, from the store; and where the rules stand: now, as far as a daemon answers, else at the recording's end.
pub(super) fn why(
    subject: Option<&str>,
    rules: Result<Vec<Value>, Failure>,
    source: &Source,
    json: bool,
) -> Outcome {
    let (stands, decisions) = runtime()?.block_on(async {
        let reader = open(source).await?;
        let mut stands = match rules {
            Ok(rules) => vec![(now_ns(), rules)],
            Err(failure) => {
                say(format_args!(
                    "where the rules stood when the recording ends, not where they stand now: {failure}"
                ));
                super::rules::replay::stood(&reader)
                    .await
                    .unwrap_or_else(|failure| {
                        say(format_args!("that is not known either: {failure}"));
                        Vec::new()
                    })
            }
        };
        let wanted = |rule: &Value| subject.is_none_or(|subject| rule["rule"] == subject);
        stands.iter_mut().for_each(|(_, rules)| rules.retain(wanted));
        stands.retain(|(_, rules)| !rules.is_empty());
        let decisions = match why::load(&reader, subject).await {
            // A rule that never decided anything still stands somewhere.
            Err(ReportError::UnknownDecision { .. }) if !stands.is_empty() => Vec::new(),
            loaded => loaded.map_err(failed)?,
        };
        Ok::<_, Failure>((stands, decisions))
    })?;
    if json {
        let mut body: Value = serde_json::from_str(&why::json(&decisions)).map_err(anyhow::Error::from)?;
        body["rules_at_ns"] = stands.first().map(|(at_ns, _)| *at_ns).into();
        body["rules"] = stands.into_iter().flat_map(|(_, rules)| rules).collect();
        return super::print_json(&body);
    }
    let told = stands
        .iter()
        .flat_map(|(at_ns, rules)| rules.iter().map(|rule| super::control::rule_text(rule, *at_ns)));
    let rules: String = told.collect();
    let gap = if rules.is_empty() { "" } else { "\n" };
    print(&format!(
        "{rules}{gap}{}",
        why::text(&decisions, &TimeZone::system())
    ))
}

pub(super) async fn open(source: &Source) -> Result<Reader, Failure> {
    let path: PathBuf = config::store_path(source.db.as_deref(), source.config.config.as_deref())?;
    // What the database would only call "unable to open".
    let hindrance = match std::fs::File::open(&path) {
        Ok(_) if path.is_dir() => Some("is a folder; name the database in it"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Some("may not be read by this user; ask as its owner, for example with sudo")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(
            "does not exist; record something first (`plimsoll run`, `plimsoll daemon`, `plimsoll demo`), or name another with --db",
        ),
        _ => None,
    };
    if let Some(hindrance) = hindrance {
        let text = format!("the database {} {hindrance}", path.display());
        return Err(Failure::new(Status::Failed, anyhow::Error::msg(text)));
    }
    Reader::open(&path)
        .await
        .map_err(|error| Failure::new(Status::Failed, error))
}

pub(super) fn failed(error: ReportError) -> Failure {
    let status = if matches!(error, ReportError::EmptyWindow { .. }) {
        Status::Usage
    } else {
        Status::Failed
    };
    Failure::new(status, error)
}

fn now_ns() -> i64 {
    Stamp::now().unix_ns
}
