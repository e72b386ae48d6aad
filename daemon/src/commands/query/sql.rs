//! `plimsoll sql`: the user's own questions, read-only and within limits.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use plimsoll_reports::table;
use plimsoll_store::{Limits, QueryError};

use super::super::{Outcome, print, runtime};
use super::open;
use crate::cli::{self, Format};
use crate::failure::{Failure, Status};
use crate::screen::say;

/// A longer query is not read from stdin.
const QUERY_LIMIT: u64 = 1 << 20;

pub(in crate::commands) fn sql(arguments: &cli::Sql) -> Outcome {
    let mut query = arguments.query.clone();
    if query == "-" {
        query.clear();
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            say("Write a query, then press Ctrl-D.");
        }
        let read = stdin.lock().take(QUERY_LIMIT + 1).read_to_string(&mut query);
        read.map_err(|error| Failure::usage(format!("the query cannot be read from stdin: {error}")))?;
        if query.len() as u64 > QUERY_LIMIT {
            return Err(Failure::usage("the query on stdin is longer than 1 MiB"));
        }
    }
    let answer = runtime()?.block_on(async {
        let reader = open(&arguments.source).await?;
        reader.console(&query, &Limits::default()).await.map_err(failure)
    })?;
    let format = match arguments.format {
        Format::Table => table::Format::Table,
        Format::Csv => table::Format::Csv,
        Format::Json => table::Format::Json,
        Format::Ndjson => table::Format::Ndjson,
        Format::Markdown => table::Format::Markdown,
    };
    print(&table::render(
        &answer.columns,
        &answer.rows,
        format,
        terminal_width(),
    ))?;
    let cut = answer.truncated.map(|limit| limit.to_string());
    if cut.is_some() || std::io::stdout().is_terminal() {
        say(table::footer(answer.rows.len(), answer.elapsed, cut.as_deref()).trim_end());
    }
    Ok(if cut.is_some() {
        ExitCode::from(Status::Refused as u8)
    } else {
        ExitCode::SUCCESS
    })
}

fn failure(error: QueryError) -> Failure {
    let status = match &error {
        QueryError::Syntax { .. } | QueryError::UnknownName { .. } => Status::Usage,
        QueryError::Forbidden(_) | QueryError::Limit(_) => Status::Refused,
        QueryError::Failed(_) | QueryError::Store(_) => Status::Failed,
    };
    Failure::new(status, error)
}

/// The width of the terminal that stdout is, if it is one.
fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|&columns| columns > 0)
}
