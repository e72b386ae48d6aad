//! The one place that reads the clock.

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
        Self {
            mono_ns: read(ClockId::Boottime),
            unix_ns: read(ClockId::Realtime),
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
    fn now_moves_forward() {
        let a = Stamp::now();
        assert!(Stamp::now() >= a);
        assert!(a.unix_ns > 1_600_000_000_000_000_000);
    }
}
