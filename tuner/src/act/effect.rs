//! What a change does to the engine's memory, once it serves again.

use std::time::{Duration, Instant};

use plimsoll_trace::{Stamp, units};

use super::live::{Latest, Live};

/// How long the effect on memory is waited for at least.
const WITHIN: Duration = Duration::from_secs(10);
/// So many readings after the engine is ready make up the effect; their median counts.
const READINGS: usize = 3;
/// A reading older than this says nothing about the engine before the change, unless values are read even more seldom.
const FRESH: Duration = Duration::from_secs(30);

/// The reading, if it is of late: the last one of an engine that does not run is still known.
pub(super) fn fresh(latest: &Latest, now: Stamp, interval: Duration) -> Option<(Stamp, f64)> {
    let fresh = FRESH.max(interval.saturating_mul(2));
    latest.vram.filter(|(at, _)| now.since(*at) <= fresh)
}

/// Long enough for the readings to come, and one more that was under way already.
fn within(interval: Duration) -> Duration {
    let readings = u32::try_from(READINGS + 1).unwrap_or(u32::MAX);
    WITHIN.max(interval.saturating_mul(readings))
}

/// The median of the first readings taken after `since`.
pub(super) fn settled(engine: &str, since: Stamp, live: &Live) -> Option<f64> {
    let deadline = Instant::now() + within(live.interval());
    let (mut last, mut readings) = (since, Vec::new());
    while readings.len() < READINGS {
        let fresh = |now: &Latest| now.vram.filter(|(at, _)| at.mono_ns > last.mono_ns);
        let Some((at, bytes)) = live.wait_for(engine, deadline, fresh) else {
            break;
        };
        last = at;
        readings.push(bytes);
    }
    readings.sort_by(f64::total_cmp);
    readings.get(readings.len() / 2).copied()
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
        assert!(within(minute) > minute * 3);
        assert_eq!(within(Duration::from_secs(1)), WITHIN);
    }
}
