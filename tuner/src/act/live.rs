//! What the executor sees of the world while it acts: kept up to date by the pipeline, read by the action's thread.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_trace::{EngineFigures, Stamp};

/// A process, safe against a pid that is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRef {
    /// The process id.
    pub pid: u32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started_ticks: u64,
}

/// The latest of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latest {
    /// The engine's root process, when it runs.
    pub root: Option<ProcessRef>,
    /// The device memory that its run holds, and when that was read.
    pub vram: Option<(Stamp, f64)>,
}

/// What an engine's metrics said is kept so long: the figures that a change is held against are taken from it.
const KEEP: Duration = Duration::from_secs(300);
/// More readings of an engine's metrics are not kept.
const MOST: usize = 400;

#[derive(Debug, Default)]
struct Known {
    latest: Latest,
    /// What its metrics said, oldest first.
    figures: VecDeque<EngineFigures>,
}

/// The latest of every engine.
#[derive(Debug, Default)]
pub struct Live {
    engines: Mutex<HashMap<String, Known>>,
    changed: Condvar,
    interval_millis: AtomicU64,
}

impl Live {
    /// The latest of `engine`; empty when nothing is known.
    #[must_use]
    pub fn latest(&self, engine: &str) -> Latest {
        self.lock()
            .get(engine)
            .map(|known| known.latest)
            .unwrap_or_default()
    }

    /// Tells what is now known of `engine`.
    pub fn update(&self, engine: &str, change: impl FnOnce(&mut Latest)) {
        change(&mut self.lock().entry(engine.to_owned()).or_default().latest);
        self.changed.notify_all();
    }

    /// Tells what the metrics of `engine` say.
    pub fn add_figures(&self, engine: &str, figures: EngineFigures) {
        {
            let mut engines = self.lock();
            let kept = &mut engines.entry(engine.to_owned()).or_default().figures;
            kept.retain(|then| figures.at.since(then.at) <= KEEP);
            while kept.len() >= MOST {
                kept.pop_front();
            }
            kept.push_back(figures);
        }
        self.changed.notify_all();
    }

    /// What the metrics of `engine` said after `since`, oldest first, as far as it is kept.
    pub(super) fn figures(&self, engine: &str, since: Stamp) -> Vec<EngineFigures> {
        let engines = self.lock();
        let kept = engines.get(engine).map(|known| known.figures.iter());
        let kept = kept.into_iter().flatten();
        kept.filter(|figures| figures.at.mono_ns > since.mono_ns)
            .cloned()
            .collect()
    }

    /// Tells how often values are read.
    pub fn set_interval(&self, interval: Duration) {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.interval_millis.store(millis, Ordering::Relaxed);
    }

    /// How often values are read; zero when nobody said.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_millis.load(Ordering::Relaxed))
    }

    /// Waits until `found` answers something, at most until `deadline`.
    pub fn wait_for<T>(
        &self,
        engine: &str,
        deadline: Instant,
        mut found: impl FnMut(&Latest) -> Option<T>,
    ) -> Option<T> {
        let mut engines = self.lock();
        loop {
            if let Some(value) = found(&engines.get(engine).map(|known| known.latest).unwrap_or_default()) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Bounded waits, so that a condition that depends on the clock is looked at again.
            let (guard, _) = self
                .changed
                .wait_timeout(engines, left.min(Duration::from_millis(250)))
                .unwrap_or_else(PoisonError::into_inner);
            engines = guard;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
