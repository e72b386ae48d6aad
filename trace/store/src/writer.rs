//! The face of the writing side: the store, the handles to it, and the task that owns the connection.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use plimsoll_trace::{Batch, DecisionId, Event, EventKind, Loss, Record, RunId, Stamp, units::show_bytes};
use sqlx::SqliteConnection;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    StoreError,
    ledger::Ledger,
    lock::Lock,
    queue::{CAPACITY, Item, Queue},
    retention::{self, Gone, Keep, Trim, Trimmed},
    schema, totals,
};

/// Where a store is and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The database file.
    pub path: PathBuf,
    /// How long samples of devices and processes are kept.
    pub keep_raw: Duration,
    /// How long samples of the host and of engines are kept: they come once a second at most.
    pub keep_seconds: Duration,
    /// How long events, losses, settled decisions and totals of kernels are kept. Runs are kept for ever.
    pub keep_minutes: Duration,
    /// The most that database and write-ahead log may take, bytes; beyond it the oldest samples go, those of single
    /// kernels, copies and allocations first.
    pub max_size_bytes: u64,
    /// How often samples reach the disk; what happened or was decided reaches it at once.
    pub commit_every: Duration,
}

impl StoreOptions {
    /// A store at `path` that keeps what the configuration keeps by default: 24 h, 14 days, 400 days and 4 GiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            path: path.into(),
            keep_raw: DAY,
            keep_seconds: 14 * DAY,
            keep_minutes: 400 * DAY,
            max_size_bytes: 4 << 30,
            commit_every: Duration::from_secs(1),
        }
    }
}

/// A store that is open for writing. There is one per file: a second one is refused, in this process or another.
///
/// Records go in through [`Writer`]s. [`Store::close`] stores the last of them; a store that is merely dropped stores
/// them too, if the runtime lives long enough.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
    task: Option<JoinHandle<Result<(), StoreError>>>,
}

/// A handle to the writing side of a store; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    queue: Queue,
    /// The last commit failed: what is taken in now may be lost.
    failing: AtomicBool,
    /// So many of the batches that were appended are stored, or counted as lost.
    stored: AtomicU64,
    runs: AtomicI64,
    decisions: AtomicI64,
    changes: AtomicI64,
}

impl Store {
    /// Opens the store, creates it if there is none, and starts its writer as a task of the current runtime, which may
    /// be a single-threaded one.
    ///
    /// # Errors
    /// When another process writes it, when the file is damaged, no store, or newer than this program (it is left
    /// untouched then), when the folder does not exist, or when the system refuses.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let path = schema::resolve(&options.path)?;
        let lock = Lock::take(&path)?;
        let (connect, mut connection) = schema::open(&path).await?;
        let writer = Writer(Arc::new(Shared {
            queue: Queue::new(CAPACITY),
            failing: AtomicBool::new(false),
            stored: AtomicU64::new(0),
            runs: last_id(&mut connection, "SELECT coalesce(max(id), 0) FROM _run").await?,
            decisions: last_id(&mut connection, "SELECT coalesce(max(id), 0) FROM _decision").await?,
            changes: last_id(&mut connection, "SELECT coalesce(max(id), 0) FROM _config_change").await?,
        }));
        let keeper = Keeper::new(path, &options);
        let ledger = Ledger::new(connect, connection, CAPACITY);
        let task = tokio::spawn(write(
            writer.0.clone(),
            ledger,
            keeper,
            options.commit_every,
            lock,
        ));
        Ok(Self {
            writer,
            task: Some(task),
        })
    }

    /// A handle to write with.
    #[must_use]
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Stores what has come in so far and closes the file. Records that come later are refused.
    ///
    /// # Errors
    /// When the last records could not be stored; they are lost then.
    pub async fn close(mut self) -> Result<(), StoreError> {
        self.writer.0.queue.close();
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Err(StoreError::Closed)),
            None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writer.0.queue.close();
    }
}

async fn last_id(connection: &mut SqliteConnection, sql: &'static str) -> Result<AtomicI64, StoreError> {
    let id = sqlx::query_scalar::<_, i64>(sql).fetch_one(connection).await;
    id.map(AtomicI64::new)
        .map_err(StoreError::sql("reading the last numbers"))
}

impl Writer {
    /// Hands records over without waiting. They are stored within the commit interval; at once, together with all
    /// that came before, when one of them is urgent. When too many wait already, values that may be missed are
    /// dropped first, then samples, and every drop is counted in `losses`.
    pub fn append(&self, batch: Batch) {
        self.0.queue.append(batch);
    }

    /// Stores records durably: on `Ok` they survive a crash of this process and of the machine.
    ///
    /// # Errors
    /// When they could not be stored; they will not be stored later either. Dropping the future takes nothing back.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0
            .queue
            .commit(batch)
            .await
            .unwrap_or(Err(StoreError::Closed))
    }

    /// [`Writer::commit`] for a plain thread.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    ///
    /// # Panics
    /// When it is called on a thread that drives an asynchronous runtime, which it would block.
    pub fn commit_blocking(&self, batch: Batch) -> Result<(), StoreError> {
        self.0
            .queue
            .commit(batch)
            .blocking_recv()
            .unwrap_or(Err(StoreError::Closed))
    }

    /// How many records may be appended now without any being dropped, for those who can wait with theirs.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.0.failing.load(Ordering::Relaxed) {
            0
        } else {
            self.0.queue.room()
        }
    }

    /// How many batches were appended so far.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.0.queue.appended()
    }

    /// How many of them, from the first on, are durable or counted as lost.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.0.stored.load(Ordering::Acquire)
    }

    /// A number for a new run. Records may refer to it before its start is stored.
    #[must_use]
    pub fn next_run_id(&self) -> RunId {
        RunId(next(&self.0.runs))
    }

    /// A number for a new decision.
    #[must_use]
    pub fn next_decision_id(&self) -> DecisionId {
        DecisionId(next(&self.0.decisions))
    }

    /// A number for a new change of a file.
    #[must_use]
    pub fn next_change_id(&self) -> i64 {
        next(&self.0.changes)
    }
}

fn next(last: &AtomicI64) -> i64 {
    last.fetch_add(1, Ordering::Relaxed) + 1
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

/// The writer: everything that changes the database happens here, in turn. The lock is let go of when it ends.
async fn write(
    shared: Arc<Shared>,
    mut ledger: Ledger,
    mut keeper: Keeper,
    every: Duration,
    lock: Lock,
) -> Result<(), StoreError> {
    let mut tick = interval(every.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.queue.woken() => {}
        }
        let taken = shared.queue.take();
        ledger.accept(taken.items, taken.lost);
        let result = ledger.commit().await;
        match &result {
            Err(error) if !failing => {
                let cause = std::error::Error::source(error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::warn!(
                    cause,
                    "{error}; samples are kept in memory for a while and tried again"
                );
            }
            Ok(()) if failing => tracing::info!("records are stored again"),
            _ => {}
        }
        failing = result.is_err();
        shared.failing.store(failing, Ordering::Relaxed);
        if !failing {
            shared.stored.store(taken.appended, Ordering::Release);
        }
        for ack in taken.acks {
            // Whoever waited may have given up.
            drop(ack.send(result.clone()));
        }
        if taken.closed {
            let closed = ledger.close().await;
            drop(lock);
            return result.and(closed);
        }
        if !failing {
            keeper.keep_house(&mut ledger).await;
        }
    }
}

/// Forgets what is too old or too much, now and then.
struct Keeper {
    path: PathBuf,
    keep: Keep,
    due: Instant,
    analyze: Instant,
    /// Totals of kernels are being looked through, a step at a time.
    is_at_totals: bool,
    told: Option<Instant>,
}

/// What one look at the house came to.
struct Step {
    /// There is more that is too old.
    more: bool,
    trim: Trim,
    /// Numbers of names that the ledger may remember are void.
    names_went: bool,
}

impl Keeper {
    const EVERY: Duration = Duration::from_secs(60);
    /// While there is a backlog, a step is made this often.
    const BEHIND: Duration = Duration::from_secs(1);
    const ANALYZE_EVERY: Duration = Duration::from_secs(6 * 3_600);
    const TELL_EVERY: Duration = Duration::from_secs(3_600);

    fn new(path: PathBuf, options: &StoreOptions) -> Self {
        let now = Instant::now();
        Self {
            path,
            keep: Keep {
                raw: options.keep_raw,
                seconds: options.keep_seconds,
                history: options.keep_minutes,
                max_size_bytes: options.max_size_bytes,
            },
            due: now + Self::EVERY,
            // The first time soon: a new store had nothing to analyze when it was opened.
            analyze: now + Self::TELL_EVERY,
            is_at_totals: false,
            told: None,
        }
    }

    async fn keep_house(&mut self, ledger: &mut Ledger) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        // A clock that runs ahead, or a record from the future, must not make everything look old.
        let Some(newest_ns) = ledger.newest_ns() else {
            return;
        };
        let now_ns = newest_ns.min(Stamp::now().unix_ns);
        let Some(connection) = ledger.connection() else {
            return;
        };
        let behind = match self.step(connection, now, now_ns).await {
            Ok(step) => {
                if step.names_went {
                    ledger.forget_names();
                }
                if let Trim::Deleted(trimmed) = step.trim {
                    self.tell(ledger, now, now_ns, trimmed);
                }
                step.more || step.trim != Trim::Done
            }
            Err(error) => {
                tracing::warn!(%error, "old samples could not be deleted");
                // Whether names went before it failed is not known.
                ledger.forget_names();
                false
            }
        };
        self.due = now + if behind { Self::BEHIND } else { Self::EVERY };
    }

    async fn step(
        &mut self,
        connection: &mut SqliteConnection,
        now: Instant,
        now_ns: i64,
    ) -> Result<Step, sqlx::Error> {
        let mut more = retention::prune(connection, now_ns, &self.keep).await?;
        let trim = retention::trim(connection, &self.path, &self.keep).await?;
        let mut names_went = matches!(
            trim,
            Trim::Deleted(Trimmed {
                what: Gone::Totals,
                ..
            })
        );
        if now >= self.analyze {
            self.analyze = now + Self::ANALYZE_EVERY;
            names_went |= retention::prune_names(connection).await?;
            schema::analyze(connection).await?;
            self.is_at_totals = true;
        }
        // What is too old goes first: it refers to kernels that are taken together here.
        if self.is_at_totals && !more {
            self.is_at_totals = totals::prune(connection, now_ns, &self.keep).await?;
            more = self.is_at_totals;
            names_went = true;
        }
        Ok(Step {
            more,
            trim,
            names_went,
        })
    }

    /// What went for want of room is a loss; that it goes is an event, though not one a minute.
    fn tell(&mut self, ledger: &mut Ledger, now: Instant, now_ns: i64, trimmed: Trimmed) {
        let mut records = vec![Record::Loss(Loss::new("store", "max_size", trimmed.rows))];
        if self
            .told
            .is_none_or(|told| now.duration_since(told) >= Self::TELL_EVERY)
        {
            self.told = Some(now);
            records.push(Record::Event(full(&self.path, &self.keep, trimmed)));
        }
        let items = records.into_iter().map(|record| Item {
            at_ns: now_ns,
            record,
            ticket: None,
        });
        ledger.accept(items.collect::<VecDeque<_>>(), 0);
    }
}

fn full(path: &Path, keep: &Keep, trimmed: Trimmed) -> Event {
    let message = format!(
        "{} reached its limit of {}: {} are deleted before their time",
        path.display(),
        show_bytes(keep.max_size_bytes),
        match trimmed.what {
            Gone::Traced => "the oldest windows of kernels and copies, single kernels and allocations",
            Gone::Minutes => "the oldest minutes of kernels",
            Gone::Totals => "totals of kernels of the oldest runs",
            Gone::Samples => "the oldest samples",
        }
    );
    Event::new(EventKind::SamplingGap, message).with_detail(serde_json::json!({
        "deleted_until_ns": trimmed.until_ns,
        "max_size_bytes": keep.max_size_bytes,
    }))
}
