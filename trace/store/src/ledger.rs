//! The writer's own side of the store: what waits, and how it reaches the disk.
//!
//! One connection, one transaction per commit, and almost always one text for all of it ([`Script`]). sqlx's own `Transaction` is not used, because one
//! ROLLBACK that SQLite has already done by itself (disk full) makes it refuse every later BEGIN.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use plimsoll_trace::{DeviceId, Loss, Record, Work};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    StoreError,
    changes::ProcessChanges,
    error::sqlite_code,
    kernels::Kernels,
    queue::{self, Item},
    rows,
    script::{self, Script},
    traced,
};

/// SQLite's result codes after which the connection is as good as before: somebody else writes, or the disk is full.
const BUSY: i32 = 5;
const FULL: i32 = 13;
/// Names of processes, containers and signals that are remembered; more than a host has at a time.
const NAMES: usize = 4_096;

pub(crate) struct Ledger {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    dictionary: Dictionary,
    changes: ProcessChanges,
    pending: VecDeque<Item>,
    capacity: usize,
    lost: Lost,
    newest_ns: Option<i64>,
}

/// Records that are dropped and not yet stored as losses.
#[derive(Default)]
struct Lost {
    queue_full: u64,
    not_stored: u64,
}

/// Numbers that the database gave to devices and names, as far as they are committed.
#[derive(Default)]
struct Dictionary {
    kernels: Kernels,
    devices: HashMap<DeviceId, i64>,
    names: HashMap<Arc<str>, i64>,
    /// The transaction of the present commit has begun, because something was new.
    begun: bool,
}

impl Ledger {
    pub(crate) fn new(options: SqliteConnectOptions, connection: SqliteConnection, capacity: usize) -> Self {
        Self {
            options,
            connection: Some(connection),
            dictionary: Dictionary::default(),
            changes: ProcessChanges::default(),
            pending: VecDeque::new(),
            capacity,
            lost: Lost::default(),
            newest_ns: None,
        }
    }

    /// The latest instant that any record came from, if one did.
    pub(crate) fn newest_ns(&self) -> Option<i64> {
        self.newest_ns
    }

    /// The connection, while it is in order.
    pub(crate) fn connection(&mut self) -> Option<&mut SqliteConnection> {
        self.connection.as_mut()
    }

    /// Numbers of names and kernels are asked for anew: those of what went are given to others.
    pub(crate) fn forget_names(&mut self) {
        self.dictionary.names.clear();
        self.dictionary.kernels = Kernels::default();
    }

    /// Takes over what came in.
    pub(crate) fn accept(&mut self, items: VecDeque<Item>, lost: u64) {
        self.lost.queue_full += lost;
        for item in items {
            self.newest_ns = self.newest_ns.max(Some(item.at_ns));
            self.changes.filter(item, &mut self.pending);
        }
        self.changes.instant_over();
    }

    /// Stores everything that waits, durably.
    ///
    /// # Errors
    /// When nothing was stored. Records that somebody waits for are then withdrawn, because they will hear of the
    /// error; the others stay for the next time, as many as there is room for.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match SqliteConnection::connect_with(&self.options).await {
                Ok(connection) => connection,
                Err(error) => return Err(self.keep(error)),
            },
        };
        match self.transact(&mut connection).await {
            Ok(peaks) => {
                self.connection = Some(connection);
                for (run, bytes) in peaks {
                    self.changes.peak_is_stored(run, bytes);
                }
                for item in self.pending.drain(..) {
                    if let Record::RunEnd(end) = item.record {
                        self.changes.run_is_over(end.id);
                    }
                }
                self.lost = Lost::default();
                Ok(())
            }
            Err(error) => {
                // SQLite may have rolled back by itself already; then this has nothing to do, which is no news.
                let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut connection).await;
                tracing::trace!(?rolled_back, "a commit failed");
                if matches!(sqlite_code(&error), Some(BUSY | FULL)) {
                    self.connection = Some(connection);
                }
                Err(self.keep(error))
            }
        }
    }

    /// Closes the connection; the last one to close brings the write-ahead log into the database.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        match self.connection {
            Some(connection) => connection
                .close()
                .await
                .map_err(StoreError::sql("closing the store")),
            None => Ok(()),
        }
    }

    async fn transact(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<(plimsoll_trace::RunId, u64)>, sqlx::Error> {
        let peaks = self.changes.unstored_peaks();
        let losses = self.lost.as_losses();
        let newest_ns = self.newest_ns.unwrap_or_default();
        if self.pending.is_empty() && losses.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = Script::default();
        self.dictionary.begun = false;
        self.write_pending(&mut script, connection).await?;
        let before_peaks = script.len();
        for (run, bytes) in &peaks {
            rows::run_peak(&mut script, *run, *bytes);
        }
        for loss in &losses {
            rows::loss(&mut script, newest_ns, loss);
        }
        let changed = script.commit(connection, self.dictionary.begun).await?;
        let changed = changed.into_iter().skip(before_peaks);
        let stored = peaks.into_iter().zip(changed).filter(|(_, rows)| *rows > 0);
        Ok(stored.map(|(peak, _)| peak).collect())
    }

    /// Turns what waits into statements. What has no number yet gets one now, inside the transaction.
    async fn write_pending(
        &mut self,
        script: &mut Script,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let dictionary = &mut self.dictionary;
        let (mut devices, mut processes, mut engines) = (Vec::new(), Vec::new(), Vec::new());
        let mut work = traced::Rows::default();
        for Item { at_ns, record, .. } in &self.pending {
            let at_ns = *at_ns;
            match record {
                Record::Device(sample) => {
                    let device = dictionary.device(connection, &sample.device).await?;
                    devices.push(rows::DeviceRow {
                        at_ns,
                        device,
                        sample,
                    });
                }
                Record::Process(sample) => processes.push(rows::ProcessRow {
                    at_ns,
                    device: dictionary.device(connection, &sample.device).await?,
                    process: dictionary.name(connection, sample.process.as_ref()).await?,
                    container: dictionary.name(connection, sample.container.as_ref()).await?,
                    sample,
                }),
                Record::Engine(sample) => {
                    if let Some(signal) = dictionary.name(connection, Some(&sample.signal)).await? {
                        engines.push(rows::EngineRow {
                            at_ns,
                            run: sample.run,
                            signal,
                            value: sample.value,
                        });
                    }
                }
                Record::Event(event) => {
                    let device = match &event.device {
                        Some(device) => Some(dictionary.device(connection, device).await?),
                        None => None,
                    };
                    rows::event(script, at_ns, device, event);
                }
                Record::Traced(traced) => {
                    if let (Work::Signal { signal, value }, Some(run)) = (&traced.work, traced.run) {
                        if let Some(signal) = dictionary.name(connection, Some(signal)).await? {
                            engines.push(rows::EngineRow {
                                at_ns,
                                run,
                                signal,
                                value: *value,
                            });
                        }
                        continue;
                    }
                    let device = match &traced.device {
                        Some(device) => Some(dictionary.device(connection, device).await?),
                        None => None,
                    };
                    let known = (&mut dictionary.kernels, &mut dictionary.begun);
                    work.take(connection, known, at_ns, device, traced).await?;
                }
                Record::Host(sample) => rows::host(script, at_ns, sample),
                Record::DeviceInfo(info) => rows::device_info(script, info),
                Record::Loss(loss) => rows::loss(script, at_ns, loss),
                Record::RunStart(run) => rows::run_start(script, at_ns, run),
                Record::RunEnd(end) => rows::run_end(script, at_ns, end),
                Record::Decision(decision) => rows::decision(script, decision),
                Record::ConfigChange(change) => rows::config_change(script, change),
                Record::EngineMemo(memo) => rows::engine_memo(script, memo),
                Record::LadderMark(mark) => rows::ladder_mark(script, mark),
            }
        }
        rows::store_devices(script, &devices);
        rows::store_processes(script, &processes);
        rows::store_engines(script, &engines);
        work.store(script);
        Ok(())
    }

    /// After a failed commit: what is kept for the next, and what is given up and counted.
    fn keep(&mut self, error: sqlx::Error) -> StoreError {
        // Numbers that were given out inside the transaction are void.
        self.dictionary = Dictionary::default();
        self.pending.retain(|item| item.ticket.is_none());
        if self.pending.len() > self.capacity {
            self.lost.not_stored += queue::evict(&mut self.pending, self.capacity - self.capacity / 8);
            self.changes.forget_what_is_stored();
        }
        StoreError::sql("storing records")(error)
    }
}

impl Lost {
    fn as_losses(&self) -> Vec<Loss> {
        [("queue_full", self.queue_full), ("not_stored", self.not_stored)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| Loss::new("store", reason, count))
            .collect()
    }
}

impl Dictionary {
    /// Begins the transaction early, for the numbers belong to it.
    async fn device(
        &mut self,
        connection: &mut SqliteConnection,
        device: &DeviceId,
    ) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.devices.get(device) {
            return Ok(*id);
        }
        script::begin(connection, &mut self.begun).await?;
        sqlx::query("INSERT INTO _device (uuid) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(&**device)
            .execute(&mut *connection)
            .await?;
        let id = sqlx::query_scalar("SELECT id FROM _device WHERE uuid = ?")
            .bind(&**device)
            .fetch_one(&mut *connection)
            .await?;
        self.devices.insert(device.clone(), id);
        Ok(id)
    }

    async fn name(
        &mut self,
        connection: &mut SqliteConnection,
        name: Option<&Arc<str>>,
    ) -> Result<Option<i64>, sqlx::Error> {
        let Some(name) = name else { return Ok(None) };
        if let Some(id) = self.names.get(name) {
            return Ok(Some(*id));
        }
        script::begin(connection, &mut self.begun).await?;
        sqlx::query("INSERT INTO _name (text) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(&**name)
            .execute(&mut *connection)
            .await?;
        let id = sqlx::query_scalar("SELECT id FROM _name WHERE text = ?")
            .bind(&**name)
            .fetch_one(&mut *connection)
            .await?;
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        self.names.insert(name.clone(), id);
        Ok(Some(id))
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
