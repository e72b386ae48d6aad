//! What a change does to the engine's memory, once it serves again.

use std::time::{Duration, Instant};

use plimsoll_trace::{Stamp, units};

use super::live::{Latest, Live};

/// How long the effect on memory is waited for.
const WITHIN: Duration = Duration::from_secs(10);
/// So many readings after the engine is ready make up the effect; their median counts.
const READINGS: usize = 3;
/// A reading older than this says nothing about the engine before the change.
const FRESH: Duration = Duration::from_secs(30);

/// The reading, if it is of late: the last one of an engine that does not run is still known.
pub(super) fn fresh(reading: Option<(Stamp, f64)>, now: Stamp) -> Option<(Stamp, f64)> {
    reading.filter(|(at, _)| now.since(*at) <= FRESH)
}

/// The median of the first readings taken after `since`.
pub(super) fn settled(engine: &str, since: Stamp, live: &Live) -> Option<f64> {
    let deadline = Instant::now() + WITHIN;
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

pub(super) fn show(freed: f64) -> String {
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
