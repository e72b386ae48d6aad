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

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A question whose answer lies ready.
    Sample,
    /// The start or the end of something. A driver that was idle first wakes its devices, for a second or two each.
    Start,
}

impl Pace {
    /// How long until a call counts as hung.
    pub(super) fn limit(self, watchdog: Duration) -> Duration {
        match self {
            Self::Sample => watchdog,
            Self::Start => watchdog * 5,
        }
    }
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
    pub(super) pace: Pace,
    pub(super) lasted: Duration,
    since: u64,
}

impl Visit {
    /// Whether both are of the same visit.
    pub(super) fn is_same(self, other: Self) -> bool {
        self.since == other.since
    }
}

const NOWHERE: u64 = 0;
const GIVEN_UP: u64 = u64::MAX;
/// In the word for a place: the driver itself, and the bit for [`Pace::Start`].
const DRIVER: u32 = START - 1;
const START: u32 = 1 << 31;

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
    pub(super) fn at_driver<T>(&self, pace: Pace, call: impl FnOnce() -> T) -> T {
        self.enter(DRIVER, pace);
        let answer = call();
        self.since.store(NOWHERE, Ordering::Release);
        answer
    }

    /// Calls a device. The answer is dropped when somebody gave the visit up meanwhile.
    pub(super) fn at_device<T>(
        &self,
        index: u32,
        pace: Pace,
        call: impl FnOnce() -> T,
    ) -> Result<T, Abandoned> {
        let since = self.enter(index, pace);
        let answer = call();
        match self
            .since
            .compare_exchange(since, NOWHERE, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(answer),
            Err(_) => Err(Abandoned { index }),
        }
    }

    fn enter(&self, place: u32, pace: Pace) -> u64 {
        let since = self.now();
        let place = match pace {
            Pace::Sample => place,
            Pace::Start => place | START,
        };
        // Whoever reads this place then reads what `since` became before it.
        self.place.store(place, Ordering::Release);
        self.since.store(since, Ordering::Release);
        since
    }

    /// The visit that goes on, if any.
    pub(super) fn visit(&self) -> Option<Visit> {
        self.visit_in(|| self.place.load(Ordering::Acquire))
    }

    fn visit_in(&self, place: impl FnOnce() -> u32) -> Option<Visit> {
        let since = self.since.load(Ordering::Acquire);
        if since == NOWHERE || since == GIVEN_UP {
            return None;
        }
        let place = place();
        // Another visit may have begun in between: then this place is not that one's, and nobody hangs.
        if self.since.load(Ordering::Acquire) != since {
            return None;
        }
        Some(Visit {
            place: match place & !START {
                DRIVER => Place::Driver,
                index => Place::Device(index),
            },
            pace: if place & START == 0 {
                Pace::Sample
            } else {
                Pace::Start
            },
            lasted: Duration::from_nanos(self.now().saturating_sub(since)),
            since,
        })
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

    fn place(activity: &Activity) -> Option<(Place, Pace)> {
        activity.visit().map(|visit| (visit.place, visit.pace))
    }

    #[test]
    fn shows_where_the_thread_is() {
        let activity = Activity::new();
        assert!(activity.visit().is_none());
        let seen = activity.at_driver(Pace::Start, || place(&activity));
        assert_eq!(seen, Some((Place::Driver, Pace::Start)));
        let seen = activity.at_driver(Pace::Sample, || place(&activity));
        assert_eq!(seen, Some((Place::Driver, Pace::Sample)));
        let seen = activity.at_device(3, Pace::Start, || place(&activity));
        assert_eq!(seen, Ok(Some((Place::Device(3), Pace::Start))));
        let seen = activity.at_device(0, Pace::Sample, || place(&activity));
        assert_eq!(seen, Ok(Some((Place::Device(0), Pace::Sample))));
        assert!(activity.visit().is_none());
    }

    #[test]
    fn a_visit_is_given_up_once_and_only_while_it_lasts() {
        let activity = Activity::new();
        let answer = activity.at_device(1, Pace::Sample, || {
            let visit = activity.visit().expect("at the device");
            assert!(activity.give_up(visit));
            assert!(!activity.give_up(visit));
        });
        assert_eq!(answer, Err(Abandoned { index: 1 }));
        assert!(activity.visit().is_none());

        let activity = Activity::new();
        let mut ended = None;
        assert_eq!(
            activity.at_device(1, Pace::Sample, || ended = activity.visit()),
            Ok(())
        );
        assert!(!activity.give_up(ended.expect("at the device")));
    }

    #[test]
    fn the_beginning_of_one_visit_is_not_shown_with_the_place_of_another() {
        let activity = Activity::new();
        activity.enter(3, Pace::Sample);
        let torn = activity.visit_in(|| {
            activity.since.store(NOWHERE, Ordering::Release);
            activity.enter(DRIVER, Pace::Start);
            activity.place.load(Ordering::Acquire)
        });
        assert!(torn.is_none(), "{torn:?}");
        assert_eq!(place(&activity), Some((Place::Driver, Pace::Start)));
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
