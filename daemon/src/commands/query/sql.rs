//! `plimsoll sql`: the user's own questions, read-only and within limits.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use plimsoll_reports::table;
use plimsoll_store::{Limits, QueryError};

use super::super::{Outcome, print, runtime};
use super::open;
use crate::cli::{self, Format};
use crate::failure::{Failure, Status};

/// A longer query is not read from stdin.
const QUERY_LIMIT: u64 = 1 << 20;

pub(in crate::commands) fn sql(arguments: &cli::Sql) -> Outcome {
    let mut query = arguments.query.clone();
    if query == "-" {
        query.clear();
        let read = std::io::stdin().lock().take(QUERY_LIMIT).read_to_string(&mut query);
        read.map_err(|error| Failure::usage(format!("the query cannot be read from stdin: {error}")))?;
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
    print(&table::render(&answer.columns, &answer.rows, format, terminal_width()))?;
    let cut = answer.truncated.map(|limit| limit.to_string());
    if cut.is_some() || std::io::stdout().is_terminal() {
        eprint!("{}", table::footer(answer.rows.len(), answer.elapsed, cut.as_deref()));
    }
    Ok(ExitCode::SUCCESS)
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
