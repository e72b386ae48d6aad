//! Where a sampling thread is, so that somebody else can see how long it has been there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a sampling thread asks for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The driver as a whole: its start, its end, a question about all devices.
    Driver,
    /// The device at this index.
    Device(u32),
}

/// The thread was given up while it was at this device; another one has taken over all the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abandoned {
    pub(super) index: u32,
}

/// A visit that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) place: Place,
    pub(super) lasted: Duration,
    since: u64,
}

const NOWHERE: u64 = 0;
const GIVEN_UP: u64 = u64::MAX;
const DRIVER: u32 = u32::MAX;

/// Written by one sampling thread, read by whoever ticks it.
#[derive(Debug)]
pub(super) struct Activity {
    epoch: Instant,
    /// When the present visit began, ns since `epoch`; it names the visit.
    since: AtomicU64,
    place: AtomicU32,
    /// A tick was handed over and is not answered yet.
    busy: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            since: AtomicU64::new(NOWHERE),
            place: AtomicU32::new(DRIVER),
            busy: AtomicBool::new(false),
        }
    }

    /// Calls the driver as a whole. Such a visit is never given up: without the driver there is nothing to go on with.
    pub(super) fn at_driver<T>(&self, call: impl FnOnce() -> T) -> T {
        self.enter(DRIVER);
        let answer = call();
        self.since.store(NOWHERE, Ordering::Release);
        answer
    }

    /// Calls a device. The answer is dropped when somebody gave the visit up meanwhile.
    pub(super) fn at_device<T>(&self, index: u32, call: impl FnOnce() -> T) -> Result<T, Abandoned> {
        let since = self.enter(index);
        let answer = call();
        match self
            .since
            .compare_exchange(since, NOWHERE, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(answer),
            Err(_) => Err(Abandoned { index }),
        }
    }

    fn enter(&self, place: u32) -> u64 {
        let since = self.now();
        self.place.store(place, Ordering::Relaxed);
        self.since.store(since, Ordering::Release);
        since
    }

    /// The visit that goes on, if any.
    pub(super) fn visit(&self) -> Option<Visit> {
        let since = self.since.load(Ordering::Acquire);
        if since == NOWHERE || since == GIVEN_UP {
            return None;
        }
        let place = match self.place.load(Ordering::Relaxed) {
            DRIVER => Place::Driver,
            index => Place::Device(index),
        };
        let lasted = Duration::from_nanos(self.now().saturating_sub(since));
        Some(Visit { place, lasted, since })
    }

    /// Gives a visit to a device up; false if it ended meanwhile.
    pub(super) fn give_up(&self, visit: Visit) -> bool {
        self.since
            .compare_exchange(visit.since, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Marks a tick as handed over; false if the former one is not answered yet.
    pub(super) fn begin_tick(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// Marks the tick as answered.
    pub(super) fn end_tick(&self) {
        self.busy.store(false, Ordering::Release);
    }

    fn now(&self) -> u64 {
        // Never 0, and 584 years below the mark for given up.
        u64::try_from(self.epoch.elapsed().as_nanos())
            .unwrap_or(GIVEN_UP - 1)
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_where_the_thread_is() {
        let activity = Activity::new();
        assert!(activity.visit().is_none());
        activity.at_driver(|| {
            assert_eq!(activity.visit().map(|visit| visit.place), Some(Place::Driver));
        });
        let answer = activity.at_device(3, || activity.visit().map(|visit| visit.place));
        assert_eq!(answer, Ok(Some(Place::Device(3))));
        assert!(activity.visit().is_none());
    }

    #[test]
    fn a_visit_is_given_up_once_and_only_while_it_lasts() {
        let activity = Activity::new();
        let answer = activity.at_device(1, || {
            let visit = activity.visit().expect("at the device");
            assert!(activity.give_up(visit));
            assert!(!activity.give_up(visit));
        });
        assert_eq!(answer, Err(Abandoned { index: 1 }));
        assert!(activity.visit().is_none());

        let activity = Activity::new();
        let mut ended = None;
        assert_eq!(activity.at_device(1, || ended = activity.visit()), Ok(()));
        assert!(!activity.give_up(ended.expect("at the device")));
    }

    #[test]
    fn one_tick_at_a_time() {
        let activity = Activity::new();
        assert!(activity.begin_tick());
        assert!(!activity.begin_tick());
        activity.end_tick();
        assert!(activity.begin_tick());
    }
}
