//! How often a slow source answers a fast tick.

use std::time::Duration;

use plimsoll_trace::Stamp;

/// A second, less what ticks of one second may jitter; otherwise every early tick would cost a whole sample.
const EVERY: Duration = Duration::from_millis(900);

/// Lets about one tick a second through, whatever the tick.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Stamp>,
}

impl Pace {
    /// Whether this tick is to be answered.
    pub(crate) fn is_due(&mut self, at: Stamp) -> bool {
        let due = self.last.is_none_or(|last| at.since(last) >= EVERY);
        if due {
            self.last = Some(at);
        }
        due
    }

    /// Makes the next tick due.
    pub(crate) const fn hurry(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(tick: Duration, count: u32) -> usize {
        let mut pace = Pace::default();
        (0..count)
            .filter(|n| pace.is_due(Stamp::at_secs(1).plus(tick * *n)))
            .count()
    }

    #[test]
    fn at_most_one_a_second() {
        assert_eq!(passed(Duration::from_millis(100), 90), 10);
        assert_eq!(
            passed(Duration::from_millis(999), 10),
            10,
            "a jittering second is a second"
        );
        assert_eq!(passed(Duration::from_secs(5), 10), 10);
    }

    #[test]
    fn hurry_makes_the_next_one_due() {
        let mut pace = Pace::default();
        assert!(pace.is_due(Stamp::at_secs(1)));
        assert!(!pace.is_due(Stamp::at_secs(1)));
        pace.hurry();
        assert!(pace.is_due(Stamp::at_secs(1)));
    }
}
