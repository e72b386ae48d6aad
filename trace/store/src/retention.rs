//! Forgetting: samples that are older than they are kept for, and the oldest ones when the store grows too large.
//!
//! Rows go a minute at a time, on the writer's connection, so that no commit waits long behind it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::SqliteConnection;

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Samples of devices, processes and allocators, windows and spans of kernels, allocations: many a second.
    pub(crate) raw: Duration,
    /// Samples of the host and of engines, which come once a second at most.
    pub(crate) seconds: Duration,
    /// Events, losses, and settled decisions with the files they changed. Runs are kept for ever.
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

const MANY_A_SECOND: Kind = Kind {
    oldest: "SELECT min(at_ns) FROM (
                 SELECT min(at_ns) AS at_ns FROM _device_raw UNION ALL SELECT min(at_ns) FROM _process_raw
                 UNION ALL SELECT min(start_ns) FROM _kernel_window UNION ALL SELECT min(start_ns) FROM _kernel_span
                 UNION ALL SELECT min(start_ns) FROM _copy_window UNION ALL SELECT min(at_ns) FROM _allocation
                 UNION ALL SELECT min(at_ns) FROM _allocator_raw)",
    delete: &[
        "DELETE FROM _device_raw WHERE at_ns < ?",
        "DELETE FROM _process_raw WHERE at_ns < ?",
        "DELETE FROM _kernel_window WHERE start_ns < ?",
        "DELETE FROM _kernel_span WHERE start_ns < ?",
        "DELETE FROM _copy_window WHERE start_ns < ?",
        "DELETE FROM _allocation WHERE at_ns < ?",
        "DELETE FROM _allocator_raw WHERE at_ns < ?",
    ],
};
const ONE_A_SECOND: Kind = Kind {
    oldest: "SELECT min(at_ns) FROM (
                 SELECT min(at_ns) AS at_ns FROM _host_raw UNION ALL SELECT min(at_ns) FROM _engine_raw)",
    delete: &[
        "DELETE FROM _host_raw WHERE at_ns < ?",
        "DELETE FROM _engine_raw WHERE at_ns < ?",
    ],
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
    let more = MANY_A_SECOND.prune(connection, before(now_ns, keep.raw)).await?
        | ONE_A_SECOND
            .prune(connection, before(now_ns, keep.seconds))
            .await?;
    prune_history(connection, before(now_ns, keep.history)).await?;
    Ok(more)
}

/// What had to go because the store was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Rows.
    pub(crate) rows: u64,
    /// Nothing older than this is left, ns since the Unix epoch.
    pub(crate) until_ns: i64,
}

/// One step towards the size limit: free pages and the log go first, then the oldest minute of samples. `None` when
/// the store is small enough, or cannot become smaller this way.
pub(crate) async fn trim(
    connection: &mut SqliteConnection,
    path: &Path,
    keep: &Keep,
) -> Result<Option<Trimmed>, sqlx::Error> {
    let log = log_of(path);
    if size_bytes(path) + size_bytes(&log) <= keep.max_size_bytes {
        return Ok(None);
    }
    sqlx::raw_sql(FREE_PAGES).execute(&mut *connection).await?;
    // The file shrinks when the log is written into it. A reader that stays for long keeps the log from shrinking;
    // deleting samples would only make it longer.
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut *connection)
        .await?;
    let (database, log) = (size_bytes(path), size_bytes(&log));
    if log > 0 {
        tracing::warn!(
            log_bytes = log,
            "a reader of the store keeps its write-ahead log from shrinking"
        );
    }
    if database <= keep.max_size_bytes {
        return Ok(None);
    }
    let many = MANY_A_SECOND.oldest(connection).await?;
    let Some(oldest_ns) = many
        .into_iter()
        .chain(ONE_A_SECOND.oldest(connection).await?)
        .min()
    else {
        return Ok(None);
    };
    let until_ns = oldest_ns.saturating_add(STEP_NS);
    let rows =
        MANY_A_SECOND.delete(connection, until_ns).await? + ONE_A_SECOND.delete(connection, until_ns).await?;
    Ok(Some(Trimmed { rows, until_ns }))
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

fn before(now_ns: i64, age: Duration) -> i64 {
    now_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
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
