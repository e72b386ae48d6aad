//! The NVML collector: the driver's devices and their processes.
//!
//! One thread, `plimsoll-nvml`, owns the driver's library. It lives in scopes: start the driver, sample, and when the
//! handles go bad drop everything, back off and start again ([`life`], [`worker`]). Nothing of the driver outlives a
//! scope; what has to is in the [`ledger`].
//!
//! Calls into the driver can hang and cannot be cancelled. So the thread says where it is ([`activity`]), and [`Nvml::tick`]
//! looks: a thread that hangs in one device is left there with that device, and another one with a start of its own goes
//! on with the rest. The number of such threads is bounded.

mod activity;
mod figures;
mod gpu;
mod identities;
mod ledger;
mod life;
mod look;
mod memory;
mod mig;
mod opening;
mod processes;
mod raw;
mod refusal;
mod slow;
mod tally;
mod throttle;
mod utilization;
mod worker;
mod xid;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use plimsoll_trace::{Batch, Record, Stamp};

use crate::{Collector, Deliver};
use activity::{Place, Visit};
use ledger::Ledger;
pub use look::{Card, Driver, look};
use refusal::Missing;
use worker::Worker;

/// So many threads may hang in the driver at once. When one more does, nothing is sampled until one returns.
const HUNG_THREADS: usize = 4;

/// How the driver is sampled.
#[derive(Clone, Debug)]
pub struct NvmlOptions {
    /// The driver's library: a path, or a name that the dynamic linker finds.
    pub library: PathBuf,
    /// How long the driver may take over one sample of one device before it counts as hung; its own start, and the
    /// first question to a device, may take five times as long.
    pub watchdog: Duration,
    /// How often PCIe throughput is read, which takes the driver 40 ms per device; zero for never. A reading is shown in
    /// the next sample, unless that comes later than the next reading would.
    pub slow_lane: Duration,
    /// The first pause after the driver or a device could not be used; doubled each time up to `retry_max`.
    pub retry: Duration,
    /// The longest pause before the driver or a device is tried again.
    pub retry_max: Duration,
}

impl Default for NvmlOptions {
    fn default() -> Self {
        Self {
            library: PathBuf::from("libnvidia-ml.so.1"),
            watchdog: Duration::from_secs(2),
            slow_lane: Duration::from_secs(30),
            retry: Duration::from_millis(500),
            retry_max: Duration::from_secs(10),
        }
    }
}

impl NvmlOptions {
    /// The pause after so many former failures.
    fn pause(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.retry.saturating_mul(factor).min(self.retry_max)
    }
}

/// The collector of GPU samples. Its records: `DeviceInfo`, `Device`, `Process`, `Event` and `Loss`, one batch per tick.
/// While there is no driver there are no batches but those that say so.
pub struct Nvml {
    options: NvmlOptions,
    deliver: Deliver,
    ledger: Arc<Mutex<Ledger>>,
    worker: Option<Worker>,
    hung: Vec<Worker>,
    /// What was read of a tick in which a thread hung, until another thread delivers it.
    leftover: Batch,
    /// Disconnected when no thread is in the driver any more and `ending` is dropped.
    ended: Receiver<()>,
    ending: Option<Sender<()>>,
}

impl Nvml {
    /// Starts the collector. The driver is started at once, so that it is ready for the first tick.
    #[must_use]
    pub fn spawn(options: NvmlOptions, deliver: Deliver) -> Self {
        let (ending, ended) = channel();
        let mut nvml = Self {
            options,
            deliver,
            ledger: Arc::default(),
            worker: None,
            hung: Vec::new(),
            leftover: Batch::new(Stamp::default()),
            ended,
            ending: Some(ending),
        };
        nvml.start();
        nvml
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a sampling thread in place of the present one, which is returned.
    fn start(&mut self) -> Option<Worker> {
        let ending = self.ending.clone()?;
        match Worker::spawn(
            thread::Builder::new(),
            &self.options,
            &self.deliver,
            &self.ledger,
            &mut self.leftover,
            ending,
        ) {
            Ok(worker) => self.worker.replace(worker),
            Err(error) => {
                self.ledger()
                    .driver_missing(refusal::no_thread(&error), &self.options.library);
                self.worker.take()
            }
        }
    }

    /// A call has not returned in time.
    fn on_hang(&mut self, at: Stamp, visit: Visit) {
        self.hung.retain(|worker| !worker.has_ended());
        match visit.place {
            // Without the driver there is nothing to go on with. The thread goes on when the call returns.
            Place::Driver => {
                let missing = Missing::Hangs(visit.lasted);
                self.ledger().driver_missing(missing, &self.options.library);
            }
            Place::Device(index) if self.hung.len() < HUNG_THREADS => {
                let Some(worker) = self
                    .worker
                    .as_ref()
                    .filter(|worker| worker.world.activity.give_up(visit))
                else {
                    return;
                };
                let spot = worker.world.spot(index);
                self.leftover = worker.world.take_batch();
                let mut ledger = self.ledger();
                ledger.hangs(&spot, visit.lasted);
                ledger.avoid(spot);
                drop(ledger);
                let former = self.start();
                self.hung.extend(former);
                return;
            }
            Place::Device(index) => {
                let spot = self.worker.as_ref().map(|worker| worker.world.spot(index));
                // Should it have returned just now, the next visit is to another device.
                if let Some(spot) = spot.filter(|_| self.is_still(visit)) {
                    self.ledger().hangs(&spot, visit.lasted);
                }
            }
        }
        self.tell(at);
    }

    fn is_still(&self, visit: Visit) -> bool {
        let now = self
            .worker
            .as_ref()
            .and_then(|worker| worker.world.activity.visit());
        now.is_some_and(|now| now.is_same(visit))
    }

    /// Delivers the news while no sampling thread can. A thread of its own, because whoever ticks must not be blocked.
    fn tell(&self, at: Stamp) {
        let news = self.ledger().take_news();
        if news.is_empty() {
            return;
        }
        let mut batch = Batch::new(at);
        batch.records.extend(news.into_iter().map(Record::Event));
        let deliver = self.deliver.clone();
        let teller = thread::Builder::new().name("plimsoll-nvml-news".to_owned());
        if let Err(error) = teller.spawn(move || deliver(batch)) {
            tracing::error!(%error, "an event about a hanging driver could not be delivered");
        }
    }
}

impl Collector for Nvml {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn tick(&mut self, at: Stamp) {
        if self.worker.as_ref().is_none_or(Worker::has_ended) {
            self.start();
        }
        if self.worker.is_none() {
            self.tell(at);
        }
        let visit = self
            .worker
            .as_ref()
            .and_then(|worker| worker.world.activity.visit());
        if let Some(visit) = visit.filter(|visit| visit.lasted > visit.pace.limit(self.options.watchdog)) {
            self.on_hang(at, visit);
        }
        if !self.worker.as_ref().is_some_and(|worker| worker.tick(at)) {
            self.ledger().missed_ticks += 1;
        }
    }
}

impl Drop for Nvml {
    /// Ends the threads and waits until they have left the driver, but no longer than the watchdog allows.
    fn drop(&mut self) {
        self.worker = None;
        self.hung.clear();
        self.ending = None;
        if self.ended.recv_timeout(self.options.watchdog) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("a call to the NVIDIA driver still hangs; it is left behind");
        }
    }
}
