//! Whether CUPTI still talks to the agent. Registering buffer callbacks is for the whole process and the last caller wins,
//! without a word to the others.
//!
//! Calls that must leave records are watched where none come any more: launches while kernels are recorded, otherwise calls
//! that take memory. A kernel that runs for longer than two flushes, with others behind it, looks the same until it ends.

/// So many flushes without a buffer are suspicious.
const SILENT: u32 = 5;
/// While nothing comes, calls are watched in two of so many flushes.
const ROUND: u32 = 10;
/// While nothing comes, each look at the subscription is as far from the last as that was from the beginning, but no
/// farther than so many flushes.
const LOOK_ROUND: u32 = SILENT << 6;

/// What one flush brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Buffers with records.
    pub(crate) buffers: u64,
    /// Buffers that another profiler had handed out.
    pub(crate) foreign: u64,
    /// Somebody else has subscribed since the start, as far as that was looked at.
    pub(crate) has_rival: bool,
    /// Calls that were seen, if they were watched.
    pub(crate) calls: u64,
}

/// What is known about it.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    silent: u32,
    calls: u64,
    is_displaced: bool,
    /// CUPTI was just taken from another profiler, whose buffers still come back.
    expects_foreign: bool,
}

impl Presence {
    /// CUPTI was taken back.
    pub(crate) fn resumed() -> Self {
        Self {
            expects_foreign: true,
            ..Self::default()
        }
    }

    /// Takes in what a flush brought while anything was recorded. Returns how many calls left no record, as far as they were
    /// watched.
    pub(crate) fn flushed(&mut self, flushed: Flushed) -> u64 {
        if flushed.foreign > 0 && !self.expects_foreign {
            self.is_displaced = true;
        } else if flushed.buffers > 0 {
            *self = Self::default();
            return 0;
        }
        self.is_displaced |= flushed.has_rival;
        self.silent = self.silent.saturating_add(1);
        self.calls += flushed.calls;
        // A launch may take longer than a flush, but seldom two: what was launched before the last flush is over.
        if self.calls > flushed.calls {
            self.is_displaced = true;
        }
        if self.is_displaced {
            std::mem::take(&mut self.calls)
        } else {
            0
        }
    }

    /// Nothing is recorded, or something else than before: the silence so far says nothing.
    pub(crate) const fn excuse(&mut self) {
        self.silent = 0;
        self.calls = 0;
    }

    /// Whether calls should be watched until the next flush, also where nothing has come yet: another profiler may have
    /// been first.
    pub(crate) const fn wants_watch(&self) -> bool {
        self.silent >= SILENT && (self.silent - SILENT) % ROUND < 2
    }

    /// Whether it should be looked at who has the subscription. That takes it for a moment, in which another profiler would
    /// be refused: seldom while nothing happens, and not to learn what is known.
    pub(crate) const fn wants_look(&self) -> bool {
        let rounds = self.silent / SILENT;
        !self.is_displaced
            && self.silent.is_multiple_of(SILENT)
            && (rounds.is_power_of_two() || (rounds > 0 && self.silent.is_multiple_of(LOOK_ROUND)))
    }

    /// Whether another profiler has taken over.
    pub(crate) const fn is_displaced(&self) -> bool {
        self.is_displaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(presence: &mut Presence, buffers: u64, calls: u64) -> u64 {
        let calls = if presence.wants_watch() { calls } else { 0 };
        presence.flushed(Flushed {
            buffers,
            calls,
            ..Flushed::default()
        })
    }

    #[test]
    fn a_quiet_program_is_no_other_profiler() {
        let mut presence = Presence::default();
        flush(&mut presence, 3, 0);
        for _ in 0..1_000 {
            flush(&mut presence, 0, 0);
        }
        assert!(!presence.is_displaced());
    }

    #[test]
    fn launches_without_records_are_another_profiler_until_records_come_again() {
        let mut presence = Presence::default();
        flush(&mut presence, 3, 100);
        let missed: u64 = (0..8).map(|_| flush(&mut presence, 0, 100)).sum();
        assert!(presence.is_displaced());
        assert!(missed >= 200, "{missed}");
        flush(&mut presence, 1, 100);
        assert!(!presence.is_displaced());
    }

    #[test]
    fn one_launch_that_is_still_running_is_no_proof() {
        let mut presence = Presence::default();
        flush(&mut presence, 3, 0);
        while !presence.wants_watch() {
            flush(&mut presence, 0, 0);
        }
        flush(&mut presence, 0, 1);
        assert!(!presence.is_displaced());
        flush(&mut presence, 1, 0);
        assert!(!presence.is_displaced());
    }

    #[test]
    fn a_buffer_of_somebody_elses_is_proof() {
        let mut presence = Presence::default();
        let foreign = Flushed {
            foreign: 1,
            ..Flushed::default()
        };
        presence.flushed(foreign);
        assert!(presence.is_displaced());
        // Unless CUPTI was just taken from them.
        let mut presence = Presence::resumed();
        presence.flushed(foreign);
        assert!(!presence.is_displaced());
        flush(&mut presence, 1, 0);
        presence.flushed(foreign);
        assert!(presence.is_displaced());
    }

    #[test]
    fn a_subscriber_who_came_since_is_proof_where_nothing_comes_any_more() {
        let mut presence = Presence::default();
        let rival = Flushed {
            has_rival: true,
            ..Flushed::default()
        };
        presence.flushed(Flushed { buffers: 1, ..rival });
        assert!(!presence.is_displaced());
        presence.flushed(rival);
        assert!(presence.is_displaced());
    }

    #[test]
    fn launches_are_watched_where_nothing_ever_came() {
        let mut presence = Presence::default();
        let missed: u64 = (0..8).map(|_| flush(&mut presence, 0, 100)).sum();
        assert!(presence.is_displaced());
        assert!(missed >= 200, "{missed}");
        // A program that has not begun is none.
        let mut presence = Presence::default();
        for _ in 0..1_000 {
            flush(&mut presence, 0, 0);
        }
        assert!(!presence.is_displaced());
    }

    #[test]
    fn a_quiet_program_s_subscription_is_seldom_looked_at() {
        let mut presence = Presence::default();
        let looked: Vec<_> = (1..=1_000)
            .filter(|_| {
                flush(&mut presence, 0, 0);
                presence.wants_look()
            })
            .collect();
        assert_eq!(looked, [5, 10, 20, 40, 80, 160, 320, 640, 960]);
        // Nor where it is known that another has taken over.
        presence.flushed(Flushed {
            has_rival: true,
            ..Flushed::default()
        });
        assert!((0..1_000).all(|_| {
            flush(&mut presence, 0, 0);
            !presence.wants_look()
        }));
    }
}
