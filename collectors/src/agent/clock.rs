//! From CUPTI's clock to Unix time.

use std::time::Duration;

use plimsoll_trace::Stamp;
use plimsoll_trace::wire::Clock;

/// A clock that went this much otherwise than the monotonic one was set.
const STEP_NS: i128 = 1_000_000_000;
/// What waits in a ring for a daemon is not older than this.
const OLDEST: Duration = Duration::from_secs(30 * 86_400);
/// Nothing happens later than now, but clocks differ.
const NEWEST: Duration = Duration::from_secs(3_600);

/// How CUPTI's clock lies to the others, from the newest reading of all of them at one instant.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    last: Option<Clock>,
}

impl Clocks {
    /// Takes in a reading; says whether CUPTI's or the realtime clock was set since the one before.
    pub(super) fn read(&mut self, clock: Clock) -> bool {
        let last = self.last.replace(clock);
        last.is_some_and(|last| {
            let passed = |now: u64, then: u64| i128::from(now) - i128::from(then);
            let steady = passed(clock.monotonic_ns, last.monotonic_ns);
            let clocks = [
                passed(clock.realtime_ns, last.realtime_ns),
                passed(clock.cupti_ns, last.cupti_ns),
            ];
            clocks.iter().any(|clock| (clock - steady).abs() > STEP_NS)
        })
    }

    pub(super) const fn is_known(&self) -> bool {
        self.last.is_some()
    }

    /// An instant of CUPTI's clock in Unix time; `None` when no reading tells, or when the result is no time at which
    /// anything could have happened.
    pub(super) fn unix_ns(&self, cupti_ns: u64, now: Stamp) -> Option<i64> {
        let clock = self.last?;
        let offset = i128::from(clock.realtime_ns) - i128::from(clock.cupti_ns);
        let at = i64::try_from(i128::from(cupti_ns) + offset).ok()?;
        let ns = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let oldest = now.unix_ns.saturating_sub(ns(OLDEST));
        (oldest..=now.unix_ns.saturating_add(ns(NEWEST)))
            .contains(&at)
            .then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn clock(cupti: u64, monotonic: u64, realtime: u64) -> Clock {
        Clock {
            cupti_ns: cupti * SECOND,
            monotonic_ns: monotonic * SECOND,
            realtime_ns: realtime * SECOND,
        }
    }

    #[test]
    fn cupti_s_clock_may_be_any() {
        let now = Stamp::at_secs(1_700_000_000);
        let mut clocks = Clocks::default();
        assert_eq!(clocks.unix_ns(5, now), None);
        assert!(!clocks.read(clock(100, 100, 1_700_000_000)));
        assert_eq!(
            clocks.unix_ns(99 * SECOND + 5, now),
            Some(1_699_999_999_000_000_005)
        );
        // Far from any clock.
        assert_eq!(clocks.unix_ns(u64::MAX, now), None);
        assert_eq!(clocks.unix_ns(0, Stamp::at_secs(5)), None);
        assert!(clocks.read(clock(1_700_000_010, 110, 1_700_000_010)));
        assert_eq!(
            clocks.unix_ns(1_700_000_009 * SECOND, now),
            Some(1_700_000_009_000_000_000)
        );
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_either_way() {
        let mut clocks = Clocks::default();
        for (reading, stepped) in [
            (clock(1, 1, 1_000), false),
            (clock(2, 2, 1_001), false),
            (clock(3, 3, 4_000), true),
            (clock(4, 4, 4_001), false),
            (clock(5, 5, 1_000), true),
            (clock(u64::MAX / SECOND, 0, 0), true),
        ] {
            assert_eq!(clocks.read(reading), stepped, "{reading:?}");
        }
    }
}
