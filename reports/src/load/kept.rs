//! What the store still has of kernels. Where it grew too large, their windows go first and their minutes next, long
//! before the rest: what an agent said of a time that is gone does not make that time known.

use plimsoll_store::{Reader, Value};

use super::Window;
use crate::error::ReportError;
use crate::row::rows;

pub(super) const MINUTE_NS: i64 = 60_000_000_000;

const FIRST_WINDOW: &str = "SELECT start_ns FROM kernel_windows ORDER BY start_ns LIMIT 1";
const FIRST_MINUTE: &str = "SELECT start_ns FROM kernel_minutes ORDER BY start_ns LIMIT 1";
const CUT_MINUTE: &str = "SELECT start_ns FROM kernel_minutes WHERE start_ns = ?1 AND first_ns < ?2 LIMIT 1";
// Windows go, totals stay: where both have as many launches, nothing is gone.
const GONE: &str = "SELECT 1 WHERE (SELECT total(count) FROM kernel_minutes WHERE ?1 IS NULL OR run_id = ?1)
                    < (SELECT total(count) FROM kernels WHERE ?1 IS NULL OR run_id = ?1)";

/// From when on what is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Whole minutes up to here, windows from here on, ns.
    pub(super) windows_from_ns: i64,
    /// Before this nothing is known of kernels, ns.
    pub(super) from_ns: i64,
}

impl Kept {
    pub(super) async fn read(reader: &Reader, window: &Window) -> Result<Self, ReportError> {
        let first_window = one(reader, FIRST_WINDOW, &[]).await?;
        let windows_from_ns = match first_window {
            None => i64::MAX,
            Some(first_ns) => {
                let minute_ns = first_ns.saturating_sub(first_ns.rem_euclid(MINUTE_NS));
                let bounds = [minute_ns, first_ns].map(Value::Integer);
                match one(reader, CUT_MINUTE, &bounds).await? {
                    // Some of its windows are gone: the minute stands for those that are left, too.
                    Some(_) => minute_ns.saturating_add(MINUTE_NS),
                    None => minute_ns,
                }
            }
        };
        let first_minute = one(reader, FIRST_MINUTE, &[]).await?;
        let first_ns = first_window.into_iter().chain(first_minute).min();
        let mut from_ns = first_ns.unwrap_or(i64::MAX);
        if window.from_ns < from_ns {
            let run = window.run.map_or(Value::Null, Value::Integer);
            if one(reader, GONE, &[run]).await?.is_none() {
                // There were no kernels before.
                from_ns = i64::MIN;
            }
        }
        Ok(Self {
            windows_from_ns,
            from_ns,
        })
    }
}

async fn one(reader: &Reader, sql: &str, values: &[Value]) -> Result<Option<i64>, ReportError> {
    let found = reader.query(sql, values).await?;
    Ok(rows(&found).next().and_then(|mut row| row.int()))
}
