//! `plimsoll sql`: the user's own questions, read-only and within limits.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use plimsoll_reports::table;
use plimsoll_store::{Limits, QueryError, Value};

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
    let width = terminal_width();
    print(&match width.filter(|_| format == table::Format::Table) {
        Some(width) if is_too_wide(&answer.columns, &answer.rows, width) => {
            row_by_row(&answer.columns, &answer.rows, width)
        }
        _ => table::render(&answer.columns, &answer.rows, format, width),
    })?;
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

/// Columns that are narrower than this on the average are broken within words until nobody can read them.
const NARROWEST: usize = 12;
/// How many rows are looked at to see how wide an answer is.
const SAMPLE: usize = 100;

/// Whether a table of this answer would be wider than the terminal, and not to be saved by breaking a few cells.
fn is_too_wide(columns: &[String], rows: &[Vec<Value>], width: u16) -> bool {
    let width = usize::from(width);
    let natural = || {
        table::render(
            columns,
            &rows[..rows.len().min(SAMPLE)],
            table::Format::Table,
            None,
        )
    };
    columns.len() * NARROWEST > width && natural().lines().any(|line| line.chars().count() > width)
}

/// Each row as a table of its own: a line a column.
fn row_by_row(columns: &[String], rows: &[Vec<Value>], width: u16) -> String {
    let one = |(index, row): (usize, &Vec<Value>)| {
        let header = [format!("row {}", index + 1), String::new()];
        let lines: Vec<Vec<Value>> = columns
            .iter()
            .zip(row)
            .map(|(name, value)| vec![Value::from(name.as_str()), value.clone()])
            .collect();
        table::render(&header, &lines, table::Format::Table, Some(width))
    };
    rows.iter().enumerate().map(one).collect::<Vec<_>>().join("\n")
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
pub(super) fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|&columns| columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_answers_are_shown_row_by_row_in_a_narrow_terminal() {
        let columns: Vec<String> = (0..8).map(|index| format!("column_{index}")).collect();
        let rows = vec![
            vec![Value::from("sixteen letters!"); 8],
            vec![Value::Integer(7); 8],
        ];
        assert!(is_too_wide(&columns, &rows, 80) && !is_too_wide(&columns, &rows, 200));
        assert!(!is_too_wide(&columns, &rows[1..], 95), "it fits as it is");
        assert!(!is_too_wide(&columns, &[], 95));
        let shown = row_by_row(&columns, &rows, 40);
        assert!(
            shown.starts_with("row 1\ncolumn_0  sixteen letters!\n")
                && shown.contains("\n\nrow 2\ncolumn_0  7\n"),
            "{shown}"
        );
    }
}
