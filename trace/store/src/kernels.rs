//! Numbers of kernels and of their names.
//!
//! A run that goes on for months may have any number of names: it compiles, and every new shape is a kernel of its own. So
//! many of a run and device have a row of their own; what comes after them is told together.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_trace::RunId;
use sqlx::SqliteConnection;

use crate::demangle::demangled;
use crate::script;

/// What is told in place of the names that are not kept.
pub(crate) const OTHERS: &str = "(other kernels)";
/// Kernels of a run on a device with names of their own.
const NAMED: i64 = 16_384;
/// Kernels, names and runs that are remembered; more than the programs of a host have.
const REMEMBERED: usize = 65_536;

/// Numbers that the database gave to kernels and their names, as far as they are committed.
pub(crate) struct Kernels {
    named: i64,
    names: HashMap<Arc<str>, i64>,
    kernels: HashMap<Key, i64>,
    /// How many kernels a run has on a device.
    counts: HashMap<[i64; 2], i64>,
}

/// Run, device and name of a kernel.
pub(crate) type Key = [i64; 3];

impl Default for Kernels {
    fn default() -> Self {
        Self {
            named: NAMED,
            names: HashMap::new(),
            kernels: HashMap::new(),
            counts: HashMap::new(),
        }
    }
}

impl Kernels {
    /// The number of a kernel of one run on one device.
    pub(crate) async fn of(
        &mut self,
        connection: &mut SqliteConnection,
        begun: &mut bool,
        (run, device, name): (RunId, i64, &Arc<str>),
    ) -> Result<(i64, Key), sqlx::Error> {
        // A name is stored only when there is a kernel to have it.
        if let Some(name) = self.known_name(connection, name).await? {
            let key = [run.0, device, name];
            if let Some(id) = self.known_kernel(connection, key).await? {
                return Ok((id, key));
            }
        }
        let is_full = self.count(connection, [run.0, device]).await? >= self.named;
        script::begin(connection, begun).await?;
        let others;
        let name = if is_full {
            others = Arc::from(OTHERS);
            &others
        } else {
            name
        };
        let key = [run.0, device, self.name(connection, name).await?];
        let id = match self.known_kernel(connection, key).await? {
            Some(id) => id,
            None => self.add(connection, key).await?,
        };
        Ok((id, key))
    }

    async fn known_kernel(
        &mut self,
        connection: &mut SqliteConnection,
        key: Key,
    ) -> Result<Option<i64>, sqlx::Error> {
        if let Some(id) = self.kernels.get(&key) {
            return Ok(Some(*id));
        }
        let id =
            sqlx::query_scalar("SELECT id FROM _kernel WHERE run_id = ? AND device_id = ? AND name_id = ?")
                .bind(key[0])
                .bind(key[1])
                .bind(key[2])
                .fetch_optional(connection)
                .await?;
        if let Some(id) = id {
            remember(&mut self.kernels, key, id);
        }
        Ok(id)
    }

    async fn add(&mut self, connection: &mut SqliteConnection, key: Key) -> Result<i64, sqlx::Error> {
        let id = sqlx::query_scalar(
            "INSERT INTO _kernel (run_id, device_id, name_id) VALUES (?, ?, ?) RETURNING id",
        )
        .bind(key[0])
        .bind(key[1])
        .bind(key[2])
        .fetch_one(connection)
        .await?;
        remember(&mut self.kernels, key, id);
        if let Some(count) = self.counts.get_mut(&[key[0], key[1]]) {
            *count += 1;
        }
        Ok(id)
    }

    async fn count(&mut self, connection: &mut SqliteConnection, of: [i64; 2]) -> Result<i64, sqlx::Error> {
        if let Some(count) = self.counts.get(&of) {
            return Ok(*count);
        }
        let count = sqlx::query_scalar("SELECT count(*) FROM _kernel WHERE run_id = ? AND device_id = ?")
            .bind(of[0])
            .bind(of[1])
            .fetch_one(connection)
            .await?;
        remember(&mut self.counts, of, count);
        Ok(count)
    }

    async fn known_name(
        &mut self,
        connection: &mut SqliteConnection,
        raw: &Arc<str>,
    ) -> Result<Option<i64>, sqlx::Error> {
        if let Some(id) = self.names.get(raw) {
            return Ok(Some(*id));
        }
        let id = sqlx::query_scalar("SELECT id FROM _kernel_name WHERE raw = ?")
            .bind(&**raw)
            .fetch_optional(connection)
            .await?;
        if let Some(id) = id {
            remember(&mut self.names, Arc::clone(raw), id);
        }
        Ok(id)
    }

    async fn name(&mut self, connection: &mut SqliteConnection, raw: &Arc<str>) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.known_name(connection, raw).await? {
            return Ok(id);
        }
        let id = sqlx::query_scalar("INSERT INTO _kernel_name (raw, name) VALUES (?, ?) RETURNING id")
            .bind(&**raw)
            .bind(&*demangled(raw))
            .fetch_one(connection)
            .await?;
        remember(&mut self.names, Arc::clone(raw), id);
        Ok(id)
    }
}

fn remember<K: std::hash::Hash + Eq>(all: &mut HashMap<K, i64>, key: K, number: i64) {
    if all.len() >= REMEMBERED {
        all.clear();
    }
    all.insert(key, number);
}

#[cfg(test)]
#[path = "kernels_tests.rs"]
mod tests;
