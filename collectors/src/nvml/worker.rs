//! The thread that samples: start the driver, live with it, back off, start again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use nvml_wrapper::Nvml;
use plimsoll_trace::{Batch, DeviceId, Record, Stamp};

use super::NvmlOptions;
use super::activity::{Abandoned, Activity, Pace};
use super::gpu::{Caches, Reading};
use super::ledger::{Ledger, Spot};
use super::life::{self, Again, End};
use super::refusal::Missing;
use super::tally::Tally;
use crate::Deliver;

/// What a sampling thread shares with whoever ticks it.
pub(super) struct World {
    pub(super) options: NvmlOptions,
    pub(super) activity: Activity,
    /// Which device is visited, where it has told who it is.
    visited: Mutex<Option<DeviceId>>,
    deliver: Deliver,
    ledger: Arc<Mutex<Ledger>>,
    /// What was read of the present tick. Should the thread hang, somebody else delivers it.
    batch: Mutex<Batch>,
}

/// A sampling thread as seen from outside. It ends when this is dropped and it is not inside a call.
pub(super) struct Worker {
    pub(super) world: Arc<World>,
    inbox: SyncSender<Stamp>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread. It takes `leftover`, which is what a hung one could not deliver; `ended` is dropped when it has left
    /// the driver.
    ///
    /// # Errors
    /// The operating system refuses another thread; then `leftover` stays where it is.
    pub(super) fn spawn(
        thread: thread::Builder,
        options: &NvmlOptions,
        deliver: &Deliver,
        ledger: &Arc<Mutex<Ledger>>,
        leftover: &mut Batch,
        ended: Sender<()>,
    ) -> io::Result<Self> {
        let world = Arc::new(World {
            options: options.clone(),
            activity: Activity::new(),
            visited: Mutex::default(),
            deliver: deliver.clone(),
            ledger: ledger.clone(),
            batch: Mutex::new(mem::replace(leftover, Batch::new(Stamp::default()))),
        });
        // Room for one tick: whether one may be put there is decided by `Activity::begin_tick`.
        let (inbox, ticks) = sync_channel(1);
        let inside = world.clone();
        let started = thread.name("plimsoll-nvml".to_owned()).spawn(move || {
            run(&inside, &ticks);
            drop(ended);
        });
        match started {
            Ok(thread) => Ok(Self { world, inbox, thread }),
            Err(error) => {
                *leftover = world.take_batch();
                Err(error)
            }
        }
    }

    /// Hands a tick over; false if the former one is not answered yet.
    pub(super) fn tick(&self, at: Stamp) -> bool {
        self.world.activity.begin_tick() && self.inbox.try_send(at).is_ok()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl World {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the device at `index`, which is `id` if that is known.
    ///
    /// # Errors
    /// Somebody gave this thread up meanwhile; the answer is dropped.
    pub(super) fn at_device<T>(
        &self,
        index: u32,
        id: Option<&DeviceId>,
        pace: Pace,
        call: impl FnOnce() -> T,
    ) -> Result<T, Abandoned> {
        *self.visited.lock().unwrap_or_else(PoisonError::into_inner) = id.cloned();
        self.activity.at_device(index, pace, call)
    }

    /// The device of the present visit, which is at `index`.
    pub(super) fn spot(&self, index: u32) -> Spot {
        let visited = self.visited.lock().unwrap_or_else(PoisonError::into_inner);
        Spot {
            index,
            id: visited.clone(),
        }
    }

    /// What was read so far of a tick that is not delivered yet.
    pub(super) fn take_batch(&self) -> Batch {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *batch, Batch::new(Stamp::default()))
    }

    /// Begins the batch of the tick `at`.
    pub(super) fn begin_batch(&self, at: Stamp) {
        *self.batch.lock().unwrap_or_else(PoisonError::into_inner) = Batch::new(at);
    }

    /// Adds what was read of the device at `index`.
    pub(super) fn add_to_batch(&self, index: u32, readings: Vec<Reading>) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let at = batch.at;
        let mut ledger = self.ledger();
        if let Some((whole, instances)) = readings.split_first() {
            let instances: Vec<&DeviceId> = instances.iter().map(|reading| &reading.info.device).collect();
            ledger.has_instances(&whole.info.device, &instances);
        }
        for reading in readings {
            ledger.sampled(&reading.info, index, &reading.sample, at, &mut batch.records);
            batch.records.push(Record::Device(reading.sample));
            batch
                .records
                .extend(reading.processes.into_iter().map(Record::Process));
        }
    }

    /// Answers the tick: delivers the batch with `more`, the news and what was lost. From here on the next tick may come.
    pub(super) fn deliver_batch(&self, more: Vec<Record>, tally: &mut Tally) {
        let mut batch = self.take_batch();
        batch.records.extend(more);
        let mut ledger = self.ledger();
        tally.add("busy", mem::take(&mut ledger.missed_ticks));
        batch
            .records
            .extend(ledger.take_news().into_iter().map(Record::Event));
        drop(ledger);
        tally.report(batch.at, &mut batch.records);
        self.activity.end_tick();
        self.deliver(batch);
    }

    /// An empty batch is nobody's concern.
    fn deliver(&self, batch: Batch) {
        if !batch.records.is_empty() {
            (self.deliver)(batch);
        }
    }
}

fn run(world: &World, inbox: &Receiver<Stamp>) {
    world.deliver(world.take_batch());
    let options = &world.options;
    let mut caches = Caches {
        generations: world.ledger().generations.clone(),
        ..Caches::default()
    };
    let mut again: Option<Again> = None;
    // Starts in a row that failed, and lives in a row that ended early.
    let (mut failures, mut short_lives) = (0, 0);
    loop {
        let (began, former) = (Instant::now(), again.take());
        let end = match world.activity.at_driver(Pace::Start, || {
            Nvml::builder().lib_path(options.library.as_os_str()).init()
        }) {
            Ok(nvml) => {
                let end = life::live(&nvml, world, &mut caches, inbox, former);
                // Shutting down may hang like any other call. When it is refused it is tried once more, by the drop.
                if let Err(error) = world.activity.at_driver(Pace::Start, || nvml.shutdown()) {
                    tracing::debug!(%error, "the driver did not shut down at once");
                }
                end
            }
            Err(error) => End::Missing(Missing::of(&error)),
        };
        let (unanswered, pause) = match end {
            End::Closed => return,
            End::Recovered(spot) => {
                world.ledger().released(&spot);
                return;
            }
            End::Missing(missing) => {
                world.ledger().driver_missing(missing, &options.library);
                failures += 1;
                (former.and_then(|former| former.tick), options.pause(failures - 1))
            }
            // The ledger paces these.
            End::Again(next @ Again { tick: None, .. }) => {
                again = Some(next);
                continue;
            }
            End::Again(next) => {
                failures = 0;
                short_lives = if began.elapsed() < options.retry_max {
                    short_lives + 1
                } else {
                    0
                };
                if short_lives < 2 {
                    again = Some(next);
                    continue;
                }
                again = Some(Again { tick: None, ..next });
                (next.tick, options.pause(short_lives - 2))
            }
        };
        if let Some(at) = unanswered {
            skip(world, at, &mut caches.tally);
        }
        if rest(world, inbox, pause, &mut caches.tally).is_err() {
            return;
        }
    }
}

/// Nobody wants samples any more.
struct Closed;

/// Waits for `pause`, and lets ticks go by meanwhile.
fn rest(world: &World, inbox: &Receiver<Stamp>, pause: Duration, tally: &mut Tally) -> Result<(), Closed> {
    let began = Instant::now();
    loop {
        match inbox.recv_timeout(pause.saturating_sub(began.elapsed())) {
            Ok(at) => skip(world, at, tally),
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(Closed),
        }
    }
}

/// Answers a tick without a driver: with the news, if there are any.
fn skip(world: &World, at: Stamp, tally: &mut Tally) {
    world.begin_batch(at);
    world.deliver_batch(Vec::new(), tally);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_a_hung_thread_left_is_kept_until_another_can_deliver_it() {
        let options = NvmlOptions {
            library: "/nowhere/libnvidia-ml.so.1".into(),
            ..NvmlOptions::default()
        };
        let (send, delivered) = channel();
        let deliver: Deliver = Arc::new(move |batch| drop(send.send(batch)));
        let (ledger, (ended, _)) = (Arc::default(), channel());
        let mut leftover = Batch::new(Stamp::at_secs(7));
        let reading = plimsoll_trace::DeviceSample::unknown("GPU-0".into());
        leftover.records.push(Record::Device(reading));
        let kept = leftover.clone();

        // No machine has room for such a stack.
        let refused = thread::Builder::new().stack_size(1 << 60);
        let start = |thread, leftover: &mut Batch| {
            Worker::spawn(thread, &options, &deliver, &ledger, leftover, ended.clone())
        };
        assert!(start(refused, &mut leftover).is_err());
        assert_eq!(leftover, kept);
        let _worker = start(thread::Builder::new(), &mut leftover).expect("a thread");
        assert_eq!(delivered.recv().expect("delivered"), kept);
        assert_eq!(leftover.records, []);
    }
}
