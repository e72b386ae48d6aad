//! The sentence above the picture.

use plimsoll_trace::units::show_bytes;

use super::{DeviceTrack, MarkKind, Timeline, device_names};
use crate::instant::Clock;

pub(super) fn sentence(timeline: &Timeline, clock: &Clock) -> String {
    let mut parts = vec![peak(timeline, clock)];
    let count = |kinds: &[MarkKind]| {
        timeline
            .marks
            .iter()
            .filter(|mark| kinds.contains(&mark.kind))
            .count()
    };
    let kept = count(&[MarkKind::Kept, MarkKind::Released]);
    parts.push(format!("{kept} tuner action{} kept", plural(kept)));
    for (kind, word) in [
        (MarkKind::Applied, "being verified"),
        (MarkKind::RolledBack, "rolled back"),
        (MarkKind::Failed, "failed"),
        (MarkKind::Refused, "refused"),
        (MarkKind::Proposed, "only proposed"),
    ] {
        let n = count(&[kind]);
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    parts.push(format!("{} out of memory", count(&[MarkKind::OutOfMemory])));
    parts.join(", ")
}

/// The device that came nearest to its limit, and how near.
fn peak(timeline: &Timeline, clock: &Clock) -> String {
    let nearest = timeline
        .devices
        .iter()
        .enumerate()
        .filter_map(|(index, device)| device.peak.map(|peak| (index, device, peak)))
        .max_by(|a, b| {
            fullness(a.1)
                .total_cmp(&fullness(b.1))
                .then(a.2.used_bytes.cmp(&b.2.used_bytes))
                .then(b.0.cmp(&a.0))
        });
    let Some((index, device, peak)) = nearest else {
        return "memory in use is unknown".to_owned();
    };
    let which = if timeline.devices.len() > 1 {
        let names = device_names(&timeline.devices);
        format!(" on {}", names.get(index).copied().unwrap_or_default())
    } else {
        String::new()
    };
    format!(
        "peak {}{which} at {}",
        of(peak.used_bytes, device.usable_bytes()),
        clock.label(peak.at_ns)
    )
}

#[expect(clippy::cast_precision_loss, reason = "only compared")]
fn fullness(device: &DeviceTrack) -> f64 {
    let used = device.peak.map_or(0, |peak| peak.used_bytes) as f64;
    device
        .usable_bytes()
        .map_or(0.0, |usable| used / (usable.max(1) as f64))
}

/// "22.1 of 23.5 GiB", or only the first when the second is unknown.
fn of(used: u64, usable: Option<u64>) -> String {
    let used = show_bytes(used);
    let Some(usable) = usable else { return used };
    let usable = show_bytes(usable);
    match (used.split_once(' '), usable.split_once(' ')) {
        (Some((number, unit)), Some((_, usable_unit))) if unit == usable_unit => {
            format!("{number} of {usable}")
        }
        _ => format!("{used} of {usable}"),
    }
}

const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
