//! The one place that reads the clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An instant on both clocks, read once per tick and passed down as a parameter.
///
/// `unix_ns` is what is stored and shown. `mono_ns` is what durations are measured with: it does not step when NTP
/// does, it goes on while the machine sleeps, and it is the same for every process since boot (CLOCK_BOOTTIME), so a
/// timer survives a restart of the daemon but not of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Nanoseconds since boot.
    pub mono_ns: i64,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: i64,
}

impl Stamp {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        let (mut mono_ns, mut offset_ns) = (0, 0);
        for _ in 0..TRIES {
            let before = read(ClockId::Boottime);
            let unix_ns = read(ClockId::Realtime);
            mono_ns = read(ClockId::Boottime);
            offset_ns = unix_ns.saturating_sub(mono_ns);
            if mono_ns.saturating_sub(before) < STEP_NS / 2 {
                break;
            }
        }
        // Both clocks run alike, so their distance changes only when somebody sets the wall clock.
        let known_ns = OFFSET_NS.load(Ordering::Relaxed);
        if known_ns.saturating_sub(offset_ns).saturating_abs() < STEP_NS {
            offset_ns = known_ns;
        } else if let Err(theirs_ns) =
            OFFSET_NS.compare_exchange(known_ns, offset_ns, Ordering::Relaxed, Ordering::Relaxed)
        {
            // Another thread found it at this moment. Theirs is as good, and there must be one only.
            offset_ns = theirs_ns;
        }
        Self {
            mono_ns,
            unix_ns: mono_ns.saturating_add(offset_ns),
        }
    }

    /// The stamp of a recorded instant: a recording has the wall clock only. Within one life of the daemon, as long as
    /// nobody set the clock, the distances between such stamps are those between the ones that were recorded.
    #[must_use]
    pub const fn recorded(unix_ns: i64) -> Self {
        Self {
            mono_ns: unix_ns,
            unix_ns,
        }
    }

    /// A stamp for tests and replays: `secs` after the epoch on both clocks.
    #[must_use]
    pub const fn at_secs(secs: i64) -> Self {
        Self {
            mono_ns: secs * 1_000_000_000,
            unix_ns: secs * 1_000_000_000,
        }
    }

    /// Time passed since `earlier` on the monotonic clock; zero if `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.mono_ns.saturating_sub(earlier.mono_ns)).unwrap_or(0))
    }

    /// This stamp moved forward by `by` on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        Self {
            mono_ns: self.mono_ns.saturating_add(by),
            unix_ns: self.unix_ns.saturating_add(by),
        }
    }

    /// This stamp moved back by so many nanoseconds on both clocks.
    #[must_use]
    pub const fn before(self, ns: i64) -> Self {
        Self {
            mono_ns: self.mono_ns.saturating_sub(ns),
            unix_ns: self.unix_ns.saturating_sub(ns),
        }
    }
}

/// The distance of the two clocks as it was found first. It stays what it is until the wall clock was set, so that the
/// distance of two stamps is the same on both clocks, to the nanosecond: a recording, which has the wall clock only, can
/// be replayed.
static OFFSET_NS: AtomicI64 = AtomicI64::new(i64::MIN);
/// A smaller change of that distance is the time between two looks at the clocks.
const STEP_NS: i64 = 1_000_000;
/// So often the clocks are read, should the thread be held up between them.
const TRIES: usize = 5;

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_never_goes_negative() {
        let (a, b) = (Stamp::at_secs(1), Stamp::at_secs(3));
        assert_eq!(b.since(a), Duration::from_secs(2));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(a.plus(Duration::from_secs(2)), b);
    }

    #[test]
    fn distances_are_the_same_on_both_clocks() {
        let (a, b) = (Stamp::now(), Stamp::now());
        assert_eq!(b.mono_ns - a.mono_ns, b.unix_ns - a.unix_ns);
        let wall = read(ClockId::Realtime);
        assert!(
            (wall - b.unix_ns).abs() < 1_000_000_000,
            "{wall} and {}",
            b.unix_ns
        );
    }

    #[test]
    fn now_moves_forward() {
        let a = Stamp::now();
        assert!(Stamp::now() >= a);
        assert!(a.unix_ns > 1_600_000_000_000_000_000);
    }
}
