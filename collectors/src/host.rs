//! The host: processor, memory, swap.

use std::io;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

use plimsoll_trace::{Batch, HostSample, Loss, Record, Stamp};
use sysinfo::System;

use crate::pace::Pace;
use crate::{Collector, Deliver};

/// Samples the host at most once a second. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Host {
    /// `None` only while it is being dropped.
    ticks: Option<SyncSender<Tick>>,
    thread: Option<JoinHandle<()>>,
    pace: Pace,
    missed: u64,
}

/// An order for a sample.
#[derive(Debug)]
struct Tick {
    at: Stamp,
    /// Ticks that found the thread busy since the last one that did not.
    missed: u64,
}

impl Host {
    /// Starts the thread `plimsoll-host`, which hands its samples to `deliver`.
    ///
    /// # Errors
    /// The operating system refuses another thread, or is none that can be sampled.
    pub fn spawn(deliver: Deliver) -> io::Result<Self> {
        let mut reader = Reader::new()?;
        let (ticks, orders) = mpsc::sync_channel::<Tick>(1);
        let thread = std::thread::Builder::new()
            .name("plimsoll-host".to_owned())
            .spawn(move || {
                for tick in orders {
                    let mut batch = Batch::new(tick.at);
                    batch.records.push(Record::Host(reader.sample()));
                    if tick.missed > 0 {
                        let loss = Loss::new("host", "collector_busy", tick.missed);
                        batch.records.push(Record::Loss(loss));
                    }
                    deliver(batch);
                }
            })?;
        Ok(Self {
            ticks: Some(ticks),
            thread: Some(thread),
            pace: Pace::default(),
            missed: 0,
        })
    }
}

impl Collector for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn tick(&mut self, at: Stamp) {
        let Some(ticks) = self.ticks.as_ref().filter(|_| self.pace.is_due(at)) else {
            return;
        };
        let missed = self.missed;
        match ticks.try_send(Tick { at, missed }) {
            Ok(()) => self.missed = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.missed += 1,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ticks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the host collector's thread ended by a panic");
        }
    }
}

/// What must be kept between two samples: the processor's time counters.
struct Reader {
    system: System,
    has_baseline: bool,
}

impl Reader {
    fn new() -> io::Result<Self> {
        let system = System::new().map_err(io::Error::other)?;
        Ok(Self {
            system,
            has_baseline: false,
        })
    }

    fn sample(&mut self) -> HostSample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        // The share is a difference of two readings, so the first is unknown; sysinfo would say 0.
        let cpu_known = std::mem::replace(&mut self.has_baseline, true);
        // Without a readable /proc/meminfo everything is 0.
        let memory_known = self.system.total_memory() > 0;
        HostSample {
            cpu_busy_ratio: cpu_known
                .then(|| f64::from(self.system.global_cpu_usage()) / 100.0)
                .filter(|ratio| ratio.is_finite())
                .map(|ratio| ratio.clamp(0.0, 1.0)),
            memory_available_bytes: memory_known.then(|| self.system.available_memory()),
            memory_total_bytes: memory_known.then(|| self.system.total_memory()),
            swap_used_bytes: memory_known.then(|| self.system.used_swap()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_share_is_unknown() {
        let mut reader = Reader::new().expect("reader");
        let first = reader.sample();
        assert_eq!(first.cpu_busy_ratio, None);
        let (available, total) = (first.memory_available_bytes, first.memory_total_bytes);
        assert!(
            total > Some(0) && available > Some(0) && available <= total,
            "{first:?}"
        );
        let ratio = reader.sample().cpu_busy_ratio.expect("there is a baseline now");
        assert!((0.0..=1.0).contains(&ratio));
    }
}
