//! What a change does to the engine's memory, once it serves again.

use std::time::Duration;

use plimsoll_trace::{Stamp, units};

use super::live::Latest;

/// How long the effect on memory is waited for where nothing was promised.
const WITHIN: Duration = Duration::from_secs(10);
/// So many readings make up the effect.
const READINGS: u32 = 3;
/// A reading older than this says nothing about the engine before the change, unless values are read even more seldom.
const FRESH: Duration = Duration::from_secs(30);

/// The reading, if it is of late: the last one of an engine that does not run is still known.
pub(super) fn fresh(latest: &Latest, now: Stamp, interval: Duration) -> Option<(Stamp, f64)> {
    let fresh = FRESH.max(interval.saturating_mul(2));
    latest.vram.filter(|(at, _)| now.since(*at) <= fresh)
}

/// How long the effect is waited for: as long as a promise may take to be kept, a shorter while without one, and at least
/// until a few readings have come, and one more that was under way already.
pub(super) fn within(interval: Duration, promised: Duration, promises: bool) -> Duration {
    let most = if promises { promised } else { promised.min(WITHIN) };
    most.max(interval.saturating_mul(READINGS + 1))
}

/// Less than this comes and goes with the requests of the moment.
const NOTHING_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

pub(super) fn show(freed: f64) -> String {
    if freed.abs() < NOTHING_BYTES {
        return "no device memory freed".to_owned();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a non-negative byte count, printed"
    )]
    let bytes = units::show_bytes(freed.abs() as u64);
    if freed >= 0.0 {
        format!("{bytes} of device memory freed")
    } else {
        format!("{bytes} more device memory in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_sampling_is_waited_for() {
        let minute = Duration::from_secs(60);
        let latest = Latest {
            root: None,
            vram: Some((Stamp::at_secs(100), 1.0)),
        };
        assert!(fresh(&latest, Stamp::at_secs(160), minute).is_some());
        assert!(fresh(&latest, Stamp::at_secs(160), Duration::from_secs(1)).is_none());
        let half = Duration::from_secs(30);
        assert!(within(minute, half, true) > minute * 3);
        assert_eq!(within(Duration::from_secs(1), half, true), half);
        assert_eq!(within(Duration::from_secs(1), half, false), WITHIN);
    }
}
