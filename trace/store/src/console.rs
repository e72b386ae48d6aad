//! Other people's SQL: confined, timed, counted.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    StoreError, Value,
    authorizer::{self, Refusal},
    error::sqlite_code,
    query_error::{Limit, Place, QueryError},
    value,
};

/// How much one query may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the query to the last row.
    pub time: Duration,
    /// Rows of the result; what is beyond them is cut off, and the answer says so.
    pub rows: usize,
    /// Memory for the result, bytes; what is beyond it is cut off, and the answer says so. Rows on their way take up to
    /// 352 MiB besides.
    pub bytes: usize,
}

impl Default for Limits {
    /// 3 s, 100,000 rows, 256 MiB.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(3),
            rows: 100_000,
            bytes: 256 << 20,
        }
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Names of the columns, in order; also there when no row is.
    pub columns: Vec<String>,
    /// The rows, each with one value per column.
    pub rows: Vec<Vec<Value>>,
    /// The limit that cut off further rows, if one did.
    pub truncated: Option<Limit>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Instructions of SQLite's machine between two looks at the clock: a few microseconds.
pub(crate) const CLOCK_EVERY: i32 = 1_000;
/// Rows on their way from SQLite's thread. Few, because they may be large and are not counted yet; not one, because the
/// threads would take turns for each.
const ROWS_IN_FLIGHT: usize = 8;
/// A single function call cannot be interrupted. When one runs past the time limit by this much, the caller is
/// answered all the same, and SQLite's thread ends when the call does.
const GRACE: Duration = Duration::from_millis(500);

const ERROR: i32 = 1;
const INTERRUPTED: i32 = 9;
const TOO_BIG: i32 = 18;
const NOT_AUTHORIZED: i32 = 23;

/// Runs one query on a connection of its own, which is confined before it sees the first byte of the query. Nothing
/// that a query leaves behind, not even a connection that is still busy, can be in the way of the next.
pub(crate) async fn answer(
    options: &SqliteConnectOptions,
    sql: &str,
    limits: &Limits,
) -> Result<Answer, QueryError> {
    let started = Instant::now();
    let options = options.clone().row_buffer_size(ROWS_IN_FLIGHT);
    let work = async {
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .map_err(StoreError::sql("opening the store"))?;
        let columns = confine(&mut connection, sql, limits, started).await?;
        let (rows, truncated) = fetch(&mut connection, sql, limits, columns.len()).await?;
        Ok(Answer {
            columns,
            rows,
            truncated,
            elapsed: started.elapsed(),
        })
    };
    match tokio::time::timeout(limits.time + GRACE, work).await {
        Ok(answer) => answer,
        Err(_) => Err(QueryError::Limit(Limit::Time(limits.time))),
    }
}

async fn confine(
    connection: &mut SqliteConnection,
    sql: &str,
    limits: &Limits,
    started: Instant,
) -> Result<Vec<String>, QueryError> {
    let mut handle = connection
        .lock_handle()
        .await
        .map_err(StoreError::sql("confining the query"))?;
    let time = limits.time;
    handle.set_progress_handler(CLOCK_EVERY, move || started.elapsed() < time);
    authorizer::confine(&mut handle, sql).map_err(|refusal| match refusal {
        Refusal::Forbidden(what) => QueryError::Forbidden(what),
        Refusal::Sqlite {
            code,
            message,
            offset,
        } => {
            let offset = offset.or_else(|| place_of(&message, sql));
            refused(
                code,
                message,
                offset.map(|offset| Place::find(sql, offset)),
                limits,
                0,
            )
        }
    })
}

async fn fetch(
    connection: &mut SqliteConnection,
    sql: &str,
    limits: &Limits,
    columns: usize,
) -> Result<(Vec<Vec<Value>>, Option<Limit>), QueryError> {
    let failed = |error: sqlx::Error| match (sqlite_code(&error), error.as_database_error()) {
        // It was well-formed, so what goes wrong now is no matter of syntax.
        (Some(ERROR), Some(said)) => QueryError::Failed(said.message().to_owned()),
        (Some(code), Some(said)) => refused(code, said.message().to_owned(), None, limits, columns),
        _ => StoreError::sql("running the query")(error).into(),
    };
    let mut stream = connection.fetch(sqlx::raw_sql(AssertSqlSafe(sql)));
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = stream.try_next().await.map_err(failed)? {
        if rows.len() >= limits.rows {
            return Ok((rows, Some(Limit::Rows(limits.rows))));
        }
        let row = value::values(&row).map_err(failed)?;
        bytes += size_of_val(&row) + row.iter().map(Value::size).sum::<usize>();
        if bytes > limits.bytes {
            return Ok((rows, Some(Limit::Bytes(limits.bytes))));
        }
        rows.push(row);
    }
    Ok((rows, None))
}

/// `columns` is how many the result has, as far as that is known.
fn refused(code: i32, message: String, place: Option<Place>, limits: &Limits, columns: usize) -> QueryError {
    match code {
        // A view that is written to: found before the authorizer is asked.
        ERROR if message.starts_with("cannot modify") => QueryError::Forbidden("changing data".to_owned()),
        ERROR if message.starts_with("no such") => QueryError::UnknownName { message, place },
        ERROR => QueryError::Syntax { message, place },
        INTERRUPTED => QueryError::Limit(Limit::Time(limits.time)),
        TOO_BIG => QueryError::Limit(Limit::Length(authorizer::max_length(columns))),
        // While it runs, only the table of a pragma asks for more than the query itself does.
        NOT_AUTHORIZED => QueryError::Forbidden("this PRAGMA".to_owned()),
        _ => QueryError::Failed(message),
    }
}

/// The place of a complaint that SQLite gives none for: the end of what is incomplete, or the name that does not
/// exist ("no such table: x").
fn place_of(message: &str, sql: &str) -> Option<usize> {
    if message == "incomplete input" {
        return Some(sql.trim_end().len());
    }
    let name = message.strip_prefix("no such ")?.split_once(": ")?.1;
    // SQLite adds the schema to a name that it looked for.
    let name = name.rsplit('.').next().filter(|name| !name.is_empty())?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    sql.match_indices(name).map(|(start, _)| start).find(|start| {
        let before = sql[..*start].chars().next_back();
        let after = sql[start + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}
