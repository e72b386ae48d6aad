//! Whether CUPTI still talks to the agent. Registering buffer callbacks is for the whole process and the last caller wins,
//! without a word to the others.

/// So many flushes without a buffer are suspicious where there were some before.
const SILENT: u32 = 5;
/// While nothing comes, launches are watched in two of so many flushes.
const ROUND: u32 = 10;

/// What one flush brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Buffers with records.
    pub(crate) buffers: u64,
    /// Buffers that another profiler had handed out.
    pub(crate) foreign: u64,
    /// Somebody else has subscribed since the start, as far as that was looked at.
    pub(crate) has_rival: bool,
    /// Launches that were seen, if they were watched.
    pub(crate) launches: u64,
}

/// What is known about it.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    was_active: bool,
    silent: u32,
    launches: u64,
    is_displaced: bool,
}

impl Presence {
    /// Takes in what a flush brought while kernels were recorded. Returns how many launches were missed, as far as they
    /// were watched.
    pub(crate) fn flushed(&mut self, flushed: Flushed) -> u64 {
        if flushed.foreign > 0 {
            self.is_displaced = true;
        } else if flushed.buffers > 0 {
            *self = Self {
                was_active: true,
                ..Self::default()
            };
            return 0;
        }
        self.is_displaced |= flushed.has_rival;
        self.silent = self.silent.saturating_add(1);
        self.launches += flushed.launches;
        // A launch may take longer than a flush, but not two: what was launched before the last flush is over.
        if self.launches > flushed.launches {
            self.is_displaced = true;
        }
        if self.is_displaced {
            std::mem::take(&mut self.launches)
        } else {
            0
        }
    }

    /// Kernels were not recorded: silence says nothing.
    pub(crate) const fn excuse(&mut self) {
        self.silent = 0;
        self.launches = 0;
    }

    /// Whether launches should be watched until the next flush.
    pub(crate) const fn wants_watch(&self) -> bool {
        (self.was_active || self.is_displaced) && self.silent >= SILENT && (self.silent - SILENT) % ROUND < 2
    }

    /// Whether another profiler has taken over.
    pub(crate) const fn is_displaced(&self) -> bool {
        self.is_displaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(presence: &mut Presence, buffers: u64, launches: u64) -> u64 {
        let launches = if presence.wants_watch() { launches } else { 0 };
        presence.flushed(Flushed {
            buffers,
            launches,
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
        presence.flushed(Flushed {
            foreign: 1,
            ..Flushed::default()
        });
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
    fn nothing_is_watched_where_nothing_ever_came() {
        let mut presence = Presence::default();
        for _ in 0..100 {
            flush(&mut presence, 0, 1);
            assert!(!presence.wants_watch());
        }
    }
}
