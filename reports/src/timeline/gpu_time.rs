//! Where a device's time went, by family of kernels.

use crate::family::Family;

const FAMILIES: usize = Family::ALL.len();

/// The kernels and copies of traced processes in one stretch of time on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuTime {
    /// Its start, ns since the Unix epoch.
    pub from_ns: i64,
    /// Its end, ns since the Unix epoch.
    pub to_ns: i64,
    /// For how much of it kernels were recorded, ns. Of the rest nothing is known, not even that it was idle.
    pub recorded_ns: u64,
    /// How long the kernels of each family took together, in the order of [`Family::ALL`], ns. Kernels run side by side,
    /// so that the sum can be longer than the time.
    pub family_ns: [u64; FAMILIES],
}

/// Shares of a stretch of time, which with what is unknown add up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shares {
    /// In the order of [`Family::ALL`].
    pub(crate) families: [f64; FAMILIES],
    /// No kernel ran.
    pub(crate) idle: f64,
    /// Nothing was recorded.
    pub(crate) unknown: f64,
}

impl GpuTime {
    /// Nothing recorded yet.
    #[must_use]
    pub const fn unknown(from_ns: i64, to_ns: i64) -> Self {
        Self {
            from_ns,
            to_ns,
            recorded_ns: 0,
            family_ns: [0; FAMILIES],
        }
    }

    /// Time of all families together, ns.
    pub(crate) fn sum_ns(&self) -> u64 {
        self.family_ns.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// Two neighbours as one.
    pub(crate) fn with(mut self, next: &Self) -> Self {
        self.to_ns = self.to_ns.max(next.to_ns);
        self.recorded_ns = self.recorded_ns.saturating_add(next.recorded_ns);
        for (sum, ns) in self.family_ns.iter_mut().zip(next.family_ns) {
            *sum = sum.saturating_add(ns);
        }
        self
    }

    /// Shares of the time. Where kernels ran side by side for longer than was recorded, each counts for less.
    #[expect(
        clippy::cast_precision_loss,
        reason = "shares for people, of times far below 2^52 ns"
    )]
    pub(crate) fn shares(&self) -> Shares {
        let whole = u64::try_from(self.to_ns.saturating_sub(self.from_ns))
            .unwrap_or(0)
            .max(1);
        let recorded = self.recorded_ns.min(whole);
        let sum = self.sum_ns();
        let scale = recorded as f64 / whole as f64 / sum.max(recorded).max(1) as f64;
        Shares {
            families: self.family_ns.map(|ns| ns as f64 * scale),
            idle: recorded.saturating_sub(sum) as f64 * scale,
            unknown: (whole - recorded) as f64 / whole as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(recorded_ns: u64, attention: u64, other: u64) -> GpuTime {
        let mut time = GpuTime::unknown(0, 100);
        time.recorded_ns = recorded_ns;
        time.family_ns[0] = attention;
        time.family_ns[FAMILIES - 1] = other;
        time
    }

    #[test]
    fn shares_add_up_and_what_was_not_recorded_is_not_idle() {
        let shares = |recorded, attention, other| {
            let shares = time(recorded, attention, other).shares();
            let parts = [
                shares.families[0],
                shares.families[FAMILIES - 1],
                shares.idle,
                shares.unknown,
            ];
            parts.map(|part| (part * 100.0).round())
        };
        assert_eq!(shares(100, 30, 20), [30.0, 20.0, 50.0, 0.0]);
        assert_eq!(shares(40, 20, 10), [20.0, 10.0, 10.0, 60.0]);
        assert_eq!(shares(0, 0, 0), [0.0, 0.0, 0.0, 100.0]);
        // Side by side, and more than was recorded.
        assert_eq!(shares(100, 300, 100), [75.0, 25.0, 0.0, 0.0]);
        assert_eq!(shares(50, 120, 80), [30.0, 20.0, 0.0, 50.0]);
        assert_eq!(shares(u64::MAX, u64::MAX, u64::MAX)[3], 0.0);
    }

    #[test]
    fn neighbours_become_one() {
        let mut next = time(50, 10, 5);
        (next.from_ns, next.to_ns) = (100, 200);
        let both = time(100, 20, 0).with(&next);
        assert_eq!((both.from_ns, both.to_ns, both.recorded_ns), (0, 200, 150));
        assert_eq!((both.family_ns[0], both.sum_ns()), (30, 35));
    }
}
