//! Forgetting: samples that are older than they are kept for, and the oldest ones when the store grows too large: first
//! those of single kernels, copies and allocations, which crowd all others out, then kernels by the minute, then the rest.
//!
//! Rows go a minute at a time, on the writer's connection, so that no commit waits long behind it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::totals;

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Samples of devices, processes and allocators, windows and spans of kernels, copies, allocations: many a second.
    pub(crate) raw: Duration,
    /// Samples of the host and of engines, which come once a second at most, and kernels by the minute.
    pub(crate) seconds: Duration,
    /// Events, losses, settled decisions with the files they changed, and totals of runs that have ended. Runs themselves
    /// are kept for ever.
    pub(crate) history: Duration,
    /// Database and write-ahead log together, bytes.
    pub(crate) max_size_bytes: u64,
}

/// How much of the oldest samples goes in one step.
const STEP_NS: i64 = 60_000_000_000;
/// Free pages that are given back to the file system in one step.
const FREE_PAGES: &str = "PRAGMA incremental_vacuum(2000)";

/// Samples that are kept equally long.
struct Kind {
    oldest: &'static str,
    delete: &'static [&'static str],
}

/// What single kernels, copies and allocations did: by far the most rows. Their totals are elsewhere.
const TRACED: Kind = Kind {
    oldest: "SELECT min(at_ns) FROM (
                 SELECT min(start_ns) AS at_ns FROM _kernel_window UNION ALL SELECT min(start_ns) FROM _kernel_span
                 UNION ALL SELECT min(start_ns) FROM _copy_window UNION ALL SELECT min(at_ns) FROM _allocation)",
    delete: &[
        "DELETE FROM _kernel_window WHERE start_ns < ?",
        "DELETE FROM _kernel_span WHERE start_ns < ?",
        "DELETE FROM _copy_window WHERE start_ns < ?",
        "DELETE FROM _allocation WHERE at_ns < ?",
    ],
};
const MANY_A_SECOND: Kind = Kind {
    oldest: "SELECT min(at_ns) FROM (
                 SELECT min(at_ns) AS at_ns FROM _device_raw UNION ALL SELECT min(at_ns) FROM _process_raw
                 UNION ALL SELECT min(at_ns) FROM _allocator_raw)",
    delete: &[
        "DELETE FROM _device_raw WHERE at_ns < ?",
        "DELETE FROM _process_raw WHERE at_ns < ?",
        "DELETE FROM _allocator_raw WHERE at_ns < ?",
    ],
};
const ONE_A_SECOND_AT_MOST: Kind = Kind {
    oldest: "SELECT min(at_ns) FROM (
                 SELECT min(at_ns) AS at_ns FROM _host_raw UNION ALL SELECT min(at_ns) FROM _engine_raw)",
    delete: &[
        "DELETE FROM _host_raw WHERE at_ns < ?",
        "DELETE FROM _engine_raw WHERE at_ns < ?",
    ],
};
/// A row for each kernel and process: a busy machine has more of them than of all samples.
const MINUTES: Kind = Kind {
    oldest: "SELECT min(start_ns) FROM _kernel_minute",
    delete: &["DELETE FROM _kernel_minute WHERE start_ns < ?"],
};

impl Kind {
    async fn oldest(&self, connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(self.oldest).fetch_one(connection).await
    }

    /// Says how many rows went.
    async fn delete(&self, connection: &mut SqliteConnection, until_ns: i64) -> Result<u64, sqlx::Error> {
        let mut rows = 0;
        for sql in self.delete {
            rows += sqlx::query(*sql)
                .bind(until_ns)
                .execute(&mut *connection)
                .await?
                .rows_affected();
        }
        Ok(rows)
    }

    /// Deletes at most one step before the time given; says whether more is left.
    async fn prune(&self, connection: &mut SqliteConnection, cutoff_ns: i64) -> Result<bool, sqlx::Error> {
        let Some(oldest_ns) = self.oldest(connection).await? else {
            return Ok(false);
        };
        let until_ns = oldest_ns.saturating_add(STEP_NS).min(cutoff_ns);
        self.delete(connection, until_ns).await?;
        Ok(until_ns < cutoff_ns)
    }
}

/// Deletes one step's worth of what has become too old; says whether more is left to do.
pub(crate) async fn prune(
    connection: &mut SqliteConnection,
    now_ns: i64,
    keep: &Keep,
) -> Result<bool, sqlx::Error> {
    let (raw_ns, seconds_ns) = (before(now_ns, keep.raw), before(now_ns, keep.seconds));
    let more = TRACED.prune(connection, raw_ns).await?
        | MANY_A_SECOND.prune(connection, raw_ns).await?
        | MINUTES.prune(connection, seconds_ns).await?
        | ONE_A_SECOND_AT_MOST.prune(connection, seconds_ns).await?;
    prune_history(connection, before(now_ns, keep.history)).await?;
    Ok(more)
}

/// What one step towards the size limit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    /// Nothing is to be done, or nothing can be done now.
    Done,
    /// Free pages went back to the file system; there may be more to do.
    Shrunk,
    /// Something had to go; its pages go back with the next step.
    Deleted(Trimmed),
}

/// What there is to give up, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Windows and spans of kernels, copies, allocations: an hour of them may be more than weeks of all else.
    Traced,
    /// Kernels by the minute: of many processes and names, still most of what is left.
    Minutes,
    /// Totals of runs that ended before all samples that are left.
    Totals,
    /// All other samples.
    Samples,
}

/// What had to go because the store was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) what: Gone,
    /// Rows.
    pub(crate) rows: u64,
    /// Nothing of it that is older than this is left, ns since the Unix epoch.
    pub(crate) until_ns: i64,
}

/// One step towards the size limit: the log goes first, then free pages, and only when there are none the oldest minute
/// of what is given up first.
pub(crate) async fn trim(
    connection: &mut SqliteConnection,
    path: &Path,
    keep: &Keep,
) -> Result<Trim, sqlx::Error> {
    let log = log_of(path);
    if size_bytes(path) + size_bytes(&log) <= keep.max_size_bytes {
        return Ok(Trim::Done);
    }
    empty_the_log(connection).await?;
    let (database, log) = (size_bytes(path), size_bytes(&log));
    if log > 0 {
        // Whatever is deleted or moved now makes the log longer and the file no shorter.
        tracing::warn!(
            log_bytes = log,
            "a reader of the store keeps its write-ahead log from shrinking; nothing is deleted meanwhile"
        );
        return Ok(Trim::Done);
    }
    if database <= keep.max_size_bytes {
        return Ok(Trim::Done);
    }
    let free = free_pages(connection).await?;
    if free > 0 {
        sqlx::raw_sql(FREE_PAGES).execute(&mut *connection).await?;
        // The file shrinks when the log is written into it.
        empty_the_log(connection).await?;
        let shrunk = free_pages(connection).await? < free;
        return Ok(if shrunk { Trim::Shrunk } else { Trim::Done });
    }
    if let Some(oldest_ns) = TRACED.oldest(connection).await? {
        let until_ns = oldest_ns.saturating_add(STEP_NS);
        let rows = TRACED.delete(connection, until_ns).await?;
        return Ok(deleted(Gone::Traced, rows, until_ns));
    }
    if let Some(oldest_ns) = MINUTES.oldest(connection).await? {
        let until_ns = oldest_ns.saturating_add(STEP_NS);
        let rows = MINUTES.delete(connection, until_ns).await?;
        return Ok(deleted(Gone::Minutes, rows, until_ns));
    }
    let many = MANY_A_SECOND.oldest(connection).await?;
    let oldest_ns = many
        .into_iter()
        .chain(ONE_A_SECOND_AT_MOST.oldest(connection).await?)
        .min();
    if let Some((rows, until_ns)) = totals::trim(connection, oldest_ns.unwrap_or(i64::MAX)).await? {
        return Ok(deleted(Gone::Totals, rows, until_ns));
    }
    let Some(oldest_ns) = oldest_ns else {
        return Ok(Trim::Done);
    };
    let until_ns = oldest_ns.saturating_add(STEP_NS);
    let rows = MANY_A_SECOND.delete(connection, until_ns).await?
        + ONE_A_SECOND_AT_MOST.delete(connection, until_ns).await?;
    Ok(deleted(Gone::Samples, rows, until_ns))
}

const fn deleted(what: Gone, rows: u64, until_ns: i64) -> Trim {
    Trim::Deleted(Trimmed { what, rows, until_ns })
}

/// Writes the log into the database and empties it, as far as no reader needs it. Readers are hardly waited for: records
/// wait behind this.
async fn empty_the_log(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let patience: i64 = sqlx::query_scalar("PRAGMA busy_timeout")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::raw_sql("PRAGMA busy_timeout = 50")
        .execute(&mut *connection)
        .await?;
    let emptied = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut *connection)
        .await;
    sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA busy_timeout = {patience}")))
        .execute(connection)
        .await?;
    emptied.map(drop)
}

async fn free_pages(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA freelist_count")
        .fetch_one(connection)
        .await
}

/// The write-ahead log of a database.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn size_bytes(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |data| data.len())
}

pub(crate) fn before(now_ns: i64, age: Duration) -> i64 {
    now_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// So many names of processes, containers and signals may be there before those without samples are looked for, which
/// takes a look at every sample.
const NAMES: i64 = 4_096;

/// Deletes the names that no sample has any more, when there are many; says whether any went.
pub(crate) async fn prune_names(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    prune_names_beyond(connection, NAMES).await
}

async fn prune_names_beyond(connection: &mut SqliteConnection, most: i64) -> Result<bool, sqlx::Error> {
    let names: i64 = sqlx::query_scalar("SELECT count(*) FROM _name")
        .fetch_one(&mut *connection)
        .await?;
    if names <= most {
        return Ok(false);
    }
    let unused = "DELETE FROM _name WHERE id NOT IN (
        SELECT process_id FROM _process_raw WHERE process_id IS NOT NULL
        UNION SELECT container_id FROM _process_raw WHERE container_id IS NOT NULL
        UNION SELECT signal_id FROM _engine_raw)";
    let deleted = sqlx::query(unused).execute(connection).await?;
    Ok(deleted.rows_affected() > 0)
}

/// Decisions that are not settled stay, and so do the newest of each kind: the next number follows from them.
async fn prune_history(connection: &mut SqliteConnection, until_ns: i64) -> Result<(), sqlx::Error> {
    for sql in [
        "DELETE FROM _event WHERE at_ns < ?",
        "DELETE FROM _loss WHERE at_ns < ?",
        "DELETE FROM _decision WHERE at_ns < ? AND outcome NOT IN ('applying', 'applied')
             AND id < (SELECT max(id) FROM _decision)",
        "DELETE FROM _config_change WHERE at_ns < ? AND id < (SELECT max(id) FROM _config_change)
             AND decision_id NOT IN (SELECT id FROM _decision)",
    ] {
        sqlx::query(sql).bind(until_ns).execute(&mut *connection).await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
