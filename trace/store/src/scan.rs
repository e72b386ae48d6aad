//! Queries with very many rows, read where SQLite finds them.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use sqlx::{SqliteConnection, sqlite::LockedSqliteHandle};
use tokio::{runtime::Handle, task};

use crate::{
    StoreError, Value,
    console::CLOCK_EVERY,
    reader::AT_MOST,
    statement::{Failure, Row, Statement},
};

const INTERRUPTED: i32 = 9;

/// Whether somebody still waits for an answer.
#[derive(Clone)]
pub(crate) struct Awaited(Arc<AtomicBool>);

/// Dropped when nobody waits any more.
struct Waiting(Awaited);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// SQLite blocks, so it reads on a thread that may.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&Awaited) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let waiting = Waiting(Awaited(Arc::new(AtomicBool::new(true))));
    let awaited = waiting.0.clone();
    match task::spawn_blocking(move || work(&awaited)).await {
        Ok(answer) => answer,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(StoreError::Closed),
        },
    }
}

/// Hands every row of a query to `each`. Blocks.
pub(crate) fn run<S>(
    connection: &mut SqliteConnection,
    sql: &str,
    values: &[Value],
    mut state: S,
    mut each: impl FnMut(&mut S, &Row<'_>),
    awaited: &Awaited,
) -> Result<S, StoreError> {
    let started = Instant::now();
    let mut handle = Handle::current()
        .block_on(connection.lock_handle())
        .map_err(StoreError::sql("reading the store"))?;
    let awaited = awaited.clone();
    handle.set_progress_handler(CLOCK_EVERY, move || {
        awaited.0.load(Ordering::Relaxed) && started.elapsed() < AT_MOST
    });
    let mut statement = prepare(&mut handle, sql, values)?;
    while let Some(row) = statement.step().map_err(refused)? {
        each(&mut state, &row);
    }
    Ok(state)
}

/// Compiles what must be a single statement that reads, with a value in each of its places.
fn prepare<'h>(
    handle: &'h mut LockedSqliteHandle<'_>,
    sql: &str,
    values: &[Value],
) -> Result<Statement<'h>, StoreError> {
    let (statement, read) = Statement::compile(handle, sql).map_err(refused)?;
    let rest = sql.get(read..).unwrap_or_default();
    let mut statement = statement
        .filter(|statement| statement.only_reads() && rest.trim().is_empty())
        .ok_or_else(|| wrong("a scan is one statement that reads".to_owned()))?;
    let (places, given) = (statement.places(), values.len());
    if places != given {
        return Err(wrong(format!("the query takes {places} values, and has {given}")));
    }
    for (place, value) in (1..).zip(values) {
        statement.bind(place, value).map_err(refused)?;
    }
    Ok(statement)
}

fn refused(failure: Failure) -> StoreError {
    if failure.code == INTERRUPTED {
        return wrong(format!("it takes more than {} s", AT_MOST.as_secs()));
    }
    wrong(failure.message)
}

fn wrong(message: String) -> StoreError {
    StoreError::Refused {
        doing: "reading the store",
        message,
    }
}
