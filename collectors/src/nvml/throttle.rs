//! When a device lowers its clocks for heat or power.

use std::time::Duration;

use plimsoll_trace::Stamp;

/// The reasons worth an event, as NVML names its bits. The others are of the user's or the device's own choice: idle, a
/// clock setting, a power cap.
const WORTH_TELLING: [(u64, &str); 4] = [
    (0x08, "hardware slowdown"),
    (0x20, "software thermal slowdown"),
    (0x40, "hardware thermal slowdown"),
    (0x80, "power brake"),
];

/// A reason that comes back within this time is the same episode.
const EPISODE: Duration = Duration::from_secs(10);

/// One device's present reasons, each with the last time it was seen.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    seen: [Option<Stamp>; WORTH_TELLING.len()],
}

impl Throttle {
    /// Takes a reading; the names of the reasons that begin with it.
    pub(super) fn observe(&mut self, reasons: u64, at: Stamp) -> Vec<&'static str> {
        let mut begun = Vec::new();
        for ((bit, name), seen) in WORTH_TELLING.iter().zip(&mut self.seen) {
            if reasons & bit != 0 {
                if seen.is_none_or(|seen| at.since(seen) >= EPISODE) {
                    begun.push(*name);
                }
                *seen = Some(at);
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_beginning_of_an_episode_only() {
        let mut throttle = Throttle::default();
        let t = Stamp::at_secs;
        assert!(
            throttle.observe(0x1 | 0x4, t(0)).is_empty(),
            "idle and a power cap are nobody's trouble"
        );
        assert_eq!(throttle.observe(0x40, t(1)), ["hardware thermal slowdown"]);
        for second in 2..30 {
            assert!(throttle.observe(0x40, t(second)).is_empty());
        }
        assert_eq!(throttle.observe(0x40 | 0x80, t(30)), ["power brake"]);
        assert!(throttle.observe(0, t(31)).is_empty());
        assert!(throttle.observe(0x40, t(35)).is_empty(), "flapping");
        assert!(throttle.observe(0, t(36)).is_empty());
        assert_eq!(
            throttle.observe(0x48, t(45)),
            ["hardware slowdown", "hardware thermal slowdown"]
        );
    }
}
