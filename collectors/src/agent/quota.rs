//! How much of one agent is taken in.
//!
//! What is beyond an agent's share of reading stays in its ring until later: an honest agent that tells so much counts
//! itself what it finds no room for, and a dishonest one holds up only itself. What nobody can have done in the time that
//! the process lives is not believed.

use plimsoll_trace::Stamp;

/// Reading of so many units at once: a full ring of the usual size, of the smallest items.
const BURST: u64 = 524_288;
/// So many more each second: twice the names that an agent may tell at a flush.
const A_SECOND: u64 = 24_576;
/// A frame is reckoned by its length too, so that large ones that say little are not free.
const UNIT_BYTES: usize = 128;

const SECOND_NS: u64 = 1_000_000_000;

/// What reading one frame counts.
pub(super) fn units(items: usize, bytes: usize) -> u64 {
    items.max(bytes / UNIT_BYTES).max(1) as u64
}

/// An agent's share of reading.
#[derive(Debug)]
pub(super) struct Share {
    left: u64,
    filled: Stamp,
}

impl Share {
    pub(super) const fn new(now: Stamp) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    /// How much may be read now.
    pub(super) fn left(&mut self, now: Stamp) -> u64 {
        let passed = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        let more = passed.min(BURST * SECOND_NS / A_SECOND) * A_SECOND / SECOND_NS;
        if more > 0 {
            self.left = (self.left + more).min(BURST);
            self.filled = now;
        }
        self.left
    }

    pub(super) const fn spend(&mut self, units: u64) {
        self.left = self.left.saturating_sub(units);
    }
}

/// What all devices that one process uses can do together in a second of its life, with room to spare.
const LAUNCHES: u64 = 100_000_000;
const BUSY_NS: u64 = 1_024 * SECOND_NS;
const COPIED_BYTES: u64 = 1 << 47;
/// Of any of these in a whole life: nine years. Sums over agents still fit into 64 bits.
const MOST: u64 = 1 << 58;

/// What an agent has told that its process did, against what it can have done.
#[derive(Debug)]
pub(super) struct Account {
    began: Stamp,
    launches: u64,
    busy_ns: u64,
    copied_bytes: u64,
    allocated_bytes: u64,
}

impl Account {
    /// Of a process that lives since `began`.
    pub(super) const fn new(began: Stamp) -> Self {
        Self {
            began,
            launches: 0,
            busy_ns: 0,
            copied_bytes: 0,
            allocated_bytes: 0,
        }
    }

    /// Takes in an allocation or release of so much, if it can be.
    pub(super) const fn admit_memory(&mut self, bytes: u64) -> bool {
        let sum = self.allocated_bytes.saturating_add(bytes);
        let can_be = sum <= MOST;
        if can_be {
            self.allocated_bytes = sum;
        }
        can_be
    }

    /// Takes in work of so much, if it can be.
    pub(super) fn admit(&mut self, now: Stamp, launches: u64, busy_ns: u64, copied_bytes: u64) -> bool {
        // A process that is younger than a minute may be told of with clocks that differ.
        let secs = now.since(self.began).as_secs().saturating_add(60);
        let sums = [
            (self.launches.saturating_add(launches), LAUNCHES),
            (self.busy_ns.saturating_add(busy_ns), BUSY_NS),
            (self.copied_bytes.saturating_add(copied_bytes), COPIED_BYTES),
        ];
        let can_be = sums
            .iter()
            .all(|(sum, rate)| *sum <= rate.saturating_mul(secs).min(MOST));
        if can_be {
            [self.launches, self.busy_ns, self.copied_bytes] = sums.map(|(sum, _)| sum);
        }
        can_be
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_is_spent_and_comes_back_with_time() {
        let start = Stamp::at_secs(1_000);
        let mut share = Share::new(start);
        assert_eq!(share.left(start), BURST);
        share.spend(BURST + 1);
        assert_eq!(share.left(start), 0);
        // Fractions are not lost, however often it is asked.
        for millis in 1..=1_000 {
            share.left(start.plus(Duration::from_millis(millis)));
        }
        let after = share.left(start.plus(Duration::from_secs(1)));
        assert!((A_SECOND - 1_000..=A_SECOND).contains(&after), "{after}");
        assert_eq!(share.left(start.plus(Duration::from_secs(u64::MAX / 4))), BURST);
    }

    #[test]
    fn what_cannot_have_been_done_is_not_admitted() {
        let start = Stamp::at_secs(1_000);
        let mut account = Account::new(start);
        assert!(account.admit(start, 1, 60 * SECOND_NS, 1 << 40));
        assert!(!account.admit(start, u64::MAX, 0, 0));
        assert!(!account.admit(start, 0, u64::MAX, 0));
        assert!(!account.admit(start, 0, 0, u64::MAX));
        assert!(!account.admit(start, 0, 60 * BUSY_NS, 0));
        assert!(account.admit(start.plus(Duration::from_secs(1)), 0, 60 * BUSY_NS, 0));
        assert!(account.admit_memory(MOST - 1) && !account.admit_memory(2) && account.admit_memory(1));
    }
}
