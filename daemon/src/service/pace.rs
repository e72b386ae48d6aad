//! How often samples are taken: more often while a line is near and values move fast.

use std::time::Duration;

use plimsoll_trace::Stamp;

/// A fast pace is kept for so long after it was last wanted: what moved fast may do so again.
const KEPT: Duration = Duration::from_secs(5);

/// The pace of sampling.
#[derive(Debug)]
pub(super) struct Pace {
    slow: Duration,
    fast: Duration,
    interval: Duration,
    /// When so fast a pace was last wanted.
    wanted: Stamp,
}

impl Pace {
    /// Between `fast` and `slow`; slow at first.
    pub(super) const fn new(slow: Duration, fast: Duration, now: Stamp) -> Self {
        Self {
            slow,
            fast,
            interval: slow,
            wanted: now,
        }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// A line may be crossed within `soonest`, so that there should be a sample before. Answers with the interval from now
    /// on if it is another.
    pub(super) fn next(&mut self, soonest: Option<Duration>, now: Stamp) -> Option<Duration> {
        // Halved, and halved again: else every tick would change it.
        let mut wanted = self.slow;
        while soonest.is_some_and(|soonest| wanted > soonest) && wanted > self.fast {
            wanted = (wanted / 2).max(self.fast);
        }
        if wanted <= self.interval {
            self.wanted = now;
        } else if now.since(self.wanted) < KEPT {
            return None;
        }
        let changed = wanted != self.interval;
        (self.interval, self.wanted) = (wanted, now);
        changed.then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_back_later() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(1_000), ms(100), Stamp::at_secs(0));
        let mut next = |soonest: Option<u64>, at| {
            let changed = pace.next(soonest.map(ms), Stamp::at_secs(at));
            changed.map(|changed| changed.as_millis())
        };
        assert_eq!(next(None, 0), None);
        assert_eq!(next(Some(5_000), 1), None);
        assert_eq!(next(Some(600), 2), Some(500));
        assert_eq!(next(Some(10), 3), Some(100), "no faster");
        assert_eq!(next(None, 4), None);
        assert_eq!(next(Some(90), 7), None, "still wanted");
        assert_eq!(next(None, 11), None);
        assert_eq!(next(Some(300), 12), Some(250), "as fast as it is still wanted");
        assert_eq!(next(None, 16), None);
        assert_eq!(next(None, 17), Some(1_000));
        assert_eq!(next(None, 18), None);
    }

    #[test]
    fn one_pace_for_both_stays() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second, second, Stamp::at_secs(0));
        assert_eq!(pace.next(Some(Duration::ZERO), Stamp::at_secs(1)), None);
        assert_eq!(pace.interval(), second);
    }
}
