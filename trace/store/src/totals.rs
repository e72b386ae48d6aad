//! Totals of kernels: they outlive the samples that they were added up from, so they need bounds of their own.
//!
//! Of a run that ended so long ago that nothing else is left of its kernels only those that took most time keep their
//! names; the others become one. A run that ended longer ago than history is kept has no totals any more. What no total
//! has any more is no name.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::kernels::OTHERS;
use crate::retention::{Keep, before};
use crate::traced::{MOST_IN_A_BUCKET, MOST_IN_ALL};

/// Kernels of a run on a device that keep their names. Together they are nearly all of its time.
const KERNELS: i64 = 500;
/// So many are taken together in one step, so that no commit waits long behind it.
const STEP: i64 = 1_000;

/// One step; says whether there may be more to do.
pub(crate) async fn prune(
    connection: &mut SqliteConnection,
    now_ns: i64,
    keep: &Keep,
) -> Result<bool, sqlx::Error> {
    let without_samples = before(now_ns, keep.raw.max(keep.seconds));
    let forgotten = before(now_ns, keep.history).min(without_samples);
    let more = forget(connection, forgotten).await?.is_some()
        || fold(connection, without_samples, KERNELS).await? > 0;
    if !more {
        drop_names(connection).await?;
    }
    Ok(more)
}

/// One step towards the size limit, among the runs that ended before this; says how many rows went and which run's, by its
/// end, or that there is nothing left.
pub(crate) async fn trim(
    connection: &mut SqliteConnection,
    until_ns: i64,
) -> Result<Option<(u64, i64)>, sqlx::Error> {
    let folded = fold(connection, until_ns, KERNELS).await?;
    let gone = if folded > 0 {
        Some((folded, until_ns))
    } else {
        forget(connection, until_ns).await?
    };
    if gone.is_some() {
        drop_names(connection).await?;
    }
    Ok(gone)
}

/// Deletes the totals of the run that ended first, if it ended before this; says how many rows, and when it ended.
async fn forget(connection: &mut SqliteConnection, until_ns: i64) -> Result<Option<(u64, i64)>, sqlx::Error> {
    let oldest: Option<(i64, i64)> = sqlx::query_as(
        "SELECT id, ended_ns FROM _run WHERE ended_ns < ?
             AND (EXISTS (SELECT 1 FROM _kernel WHERE run_id = _run.id)
                  OR EXISTS (SELECT 1 FROM _copy WHERE run_id = _run.id))
         ORDER BY ended_ns LIMIT 1",
    )
    .bind(until_ns)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((run, ended_ns)) = oldest else {
        return Ok(None);
    };
    let mut rows = 0;
    // Buckets first: those of a kernel that is gone would never be found again.
    for sql in [
        "DELETE FROM _kernel_bucket WHERE kernel_id IN (SELECT id FROM _kernel WHERE run_id = ?)",
        "DELETE FROM _kernel WHERE run_id = ?",
        "DELETE FROM _copy WHERE run_id = ?",
    ] {
        let deleted = sqlx::query(sql).bind(run).execute(&mut *connection).await?;
        rows += deleted.rows_affected();
    }
    Ok(Some((rows, ended_ns)))
}

/// Takes the kernels that took least time of one run and device together, if there are more than `most` and the run ended
/// before this; says how many.
async fn fold(connection: &mut SqliteConnection, until_ns: i64, most: i64) -> Result<u64, sqlx::Error> {
    let crowded: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT k.run_id, k.device_id, count(*) AS kernels FROM _kernel AS k JOIN _run AS r ON r.id = k.run_id
         WHERE r.ended_ns < ? GROUP BY k.run_id, k.device_id HAVING kernels > ? LIMIT 1",
    )
    .bind(until_ns)
    // The one that the others become does not count.
    .bind(most + 1)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((run, device, kernels)) = crowded else {
        return Ok(0);
    };
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let step = (kernels - most - 1).min(STEP);
    let folded = fold_rarest(connection, (run, device), step).await;
    let end = if folded.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::raw_sql(end).execute(connection).await;
    let folded = folded?;
    ended?;
    Ok(folded)
}

/// Number, count, total, shortest and longest of a kernel.
type Rare = (i64, i64, i64, Option<i64>, Option<i64>);

/// What several kernels did together.
#[derive(Default)]
struct Sums {
    count: i64,
    total_ns: i64,
    min_ns: Option<i64>,
    max_ns: Option<i64>,
    /// By number.
    buckets: BTreeMap<i64, i64>,
}

async fn fold_rarest(
    connection: &mut SqliteConnection,
    (run, device): (i64, i64),
    step: i64,
) -> Result<u64, sqlx::Error> {
    sqlx::query("INSERT INTO _kernel_name (raw, name) VALUES (?1, ?1) ON CONFLICT DO NOTHING")
        .bind(OTHERS)
        .execute(&mut *connection)
        .await?;
    let rarest: Vec<Rare> = sqlx::query_as(
        "SELECT k.id, k.count, k.total_ns, k.min_ns, k.max_ns
         FROM _kernel AS k JOIN _kernel_name AS n ON n.id = k.name_id
         WHERE k.run_id = ? AND k.device_id = ? AND n.raw <> ? ORDER BY k.total_ns, k.id LIMIT ?",
    )
    .bind(run)
    .bind(device)
    .bind(OTHERS)
    .bind(step)
    .fetch_all(&mut *connection)
    .await?;
    let mut sums = Sums::default();
    for (_, count, total_ns, min_ns, max_ns) in &rarest {
        sums.count = sums.count.saturating_add(*count);
        sums.total_ns = sums.total_ns.saturating_add(*total_ns);
        sums.min_ns = sums.min_ns.into_iter().chain(*min_ns).min();
        sums.max_ns = sums.max_ns.max(*max_ns);
    }
    let ids: Vec<i64> = rarest.iter().map(|(id, ..)| *id).collect();
    let ids = serde_json::json!(ids).to_string();
    let buckets: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT bucket, count FROM _kernel_bucket WHERE kernel_id IN (SELECT value FROM json_each(?))",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    for (bucket, count) in buckets {
        let sum = sums.buckets.entry(bucket).or_default();
        *sum = sum.saturating_add(count);
    }
    for sql in [
        "DELETE FROM _kernel_bucket WHERE kernel_id IN (SELECT value FROM json_each(?))",
        "DELETE FROM _kernel WHERE id IN (SELECT value FROM json_each(?))",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await?;
    }
    sums.add_to(connection, (run, device)).await?;
    Ok(rarest.len() as u64)
}

impl Sums {
    /// Adds them to what became of others before. Totals end at 2^56 and buckets at 2^48, as those of the writer do:
    /// sums beyond 64 bits are errors, and a view that has one cannot be read at all.
    async fn add_to(
        &self,
        connection: &mut SqliteConnection,
        (run, device): (i64, i64),
    ) -> Result<(), sqlx::Error> {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO _kernel (run_id, device_id, name_id, count, total_ns, min_ns, max_ns)
             VALUES (?, ?, (SELECT id FROM _kernel_name WHERE raw = ?), ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET
                 count = min(min(count, 72057594037927936) + excluded.count, 72057594037927936),
                 total_ns = min(min(total_ns, 72057594037927936) + excluded.total_ns, 72057594037927936),
                 min_ns = min(coalesce(min_ns, excluded.min_ns), coalesce(excluded.min_ns, min_ns)),
                 max_ns = max(coalesce(max_ns, excluded.max_ns), coalesce(excluded.max_ns, max_ns))
             RETURNING id",
        )
        .bind(run)
        .bind(device)
        .bind(OTHERS)
        .bind(self.count.min(MOST_IN_ALL))
        .bind(self.total_ns.min(MOST_IN_ALL))
        .bind(self.min_ns)
        .bind(self.max_ns)
        .fetch_one(&mut *connection)
        .await?;
        for (bucket, count) in &self.buckets {
            sqlx::query(
                "INSERT INTO _kernel_bucket VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET
                     count = min(min(count, 281474976710656) + excluded.count, 281474976710656)",
            )
            .bind(id)
            .bind(bucket)
            .bind((*count).min(MOST_IN_A_BUCKET))
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

async fn drop_names(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM _kernel_name WHERE id NOT IN (SELECT name_id FROM _kernel)")
        .execute(connection)
        .await
        .map(drop)
}

#[cfg(test)]
#[path = "totals_tests.rs"]
mod tests;
