//! How long something has been known to be so.

use std::time::Duration;

use plimsoll_trace::Stamp;
use serde::{Deserialize, Serialize};

/// Counts the time in which something was known to be so, on the monotonic clock. Time in which it was unknown does
/// not count and does not reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timer {
    /// When it was first seen to be so.
    pub(crate) since: Stamp,
    /// The last time it was looked at.
    pub(crate) last: Stamp,
    counted_ns: u64,
    /// Whether it was known to be so when last looked at.
    running: bool,
}

impl Timer {
    /// Moves a timer on: what is so counts, what is not so resets, what is unknown freezes. A time longer than
    /// `longest` in which nobody looked is unknown time.
    pub(crate) fn advance(slot: &mut Option<Self>, truth: Option<bool>, longest: Duration, now: Stamp) {
        match (truth, slot.as_mut()) {
            (Some(false), _) => *slot = None,
            (Some(true), None) => {
                *slot = Some(Self {
                    since: now,
                    last: now,
                    counted_ns: 0,
                    running: true,
                });
            }
            (Some(true), Some(timer)) => {
                let passed = now.since(timer.last);
                if timer.running && passed <= longest {
                    let passed_ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
                    timer.counted_ns = timer.counted_ns.saturating_add(passed_ns);
                }
                (timer.last, timer.running) = (timer.last.max(now), true);
            }
            (None, Some(timer)) => (timer.last, timer.running) = (timer.last.max(now), false),
            (None, None) => {}
        }
    }

    /// The time counted so far.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.counted_ns)
    }

    /// Whether it was known to be so when last looked at.
    pub(crate) const fn is_running(&self) -> bool {
        self.running
    }
}

/// Whether the timer is running and has counted at least `wanted`.
pub(crate) fn reached(timer: Option<&Timer>, wanted: Duration) -> bool {
    timer.is_some_and(|timer| timer.is_running() && timer.elapsed() >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[(i64, Option<bool>)]) -> Option<Duration> {
        let mut slot = None;
        for &(secs, truth) in steps {
            Timer::advance(&mut slot, truth, Duration::from_secs(10), Stamp::at_secs(secs));
        }
        slot.map(|timer| timer.elapsed())
    }

    #[test]
    fn unknown_freezes_and_false_resets() {
        let (t, f, u) = (Some(true), Some(false), None);
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(run(&[(0, t), (3, t)]), secs(3));
        assert_eq!(run(&[(0, t), (3, t), (4, u), (9, u), (10, t), (12, t)]), secs(5));
        assert_eq!(run(&[(0, t), (3, f), (4, t), (5, t)]), secs(1));
        assert_eq!(run(&[(0, t), (3, f)]), None);
        assert_eq!(run(&[(0, u), (3, u)]), None);
        assert_eq!(
            run(&[(0, t), (2, t), (13, t), (14, t)]),
            secs(3),
            "nobody looked for 11 s"
        );
    }
}
