//! The axes: integer arithmetic from data to pixels, and ticks at steps that people count in.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::instant::{Clock, SECOND_NS, format_in, offset_ns};

/// Steps between time ticks, ns.
const TIME_STEPS_NS: [i64; 24] = {
    const MINUTE: i64 = 60 * SECOND_NS;
    const HOUR: i64 = 60 * MINUTE;
    [
        SECOND_NS,
        2 * SECOND_NS,
        5 * SECOND_NS,
        10 * SECOND_NS,
        15 * SECOND_NS,
        30 * SECOND_NS,
        MINUTE,
        2 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        3 * HOUR,
        6 * HOUR,
        12 * HOUR,
        24 * HOUR,
        48 * HOUR,
        7 * 24 * HOUR,
        14 * 24 * HOUR,
        28 * 24 * HOUR,
        91 * 24 * HOUR,
        364 * 24 * HOUR,
    ]
};

const DAY_NS: i64 = 86_400 * SECOND_NS;

/// Time from left to right.
#[derive(Clone)]
pub(super) struct TimeAxis {
    from_ns: i64,
    to_ns: i64,
    ticks: Vec<i64>,
}

impl TimeAxis {
    /// An axis with at most `most` ticks, at round elapsed times or round local times.
    pub(super) fn new(from_ns: i64, to_ns: i64, clock: &Clock, most: usize) -> Self {
        let to_ns = to_ns.max(from_ns.saturating_add(1));
        let zero = clock
            .zero_ns
            .unwrap_or_else(|| offset_ns(from_ns, &clock.zone).saturating_neg());
        let span = to_ns.saturating_sub(from_ns);
        let most = i64::try_from(most.max(1)).unwrap_or(i64::MAX);
        let step = TIME_STEPS_NS
            .into_iter()
            .find(|step| span / step < most)
            .unwrap_or(span);
        let first = from_ns
            .saturating_sub(zero)
            .div_euclid(step)
            .saturating_mul(step)
            .saturating_add(zero);
        let ticks = std::iter::successors(Some(first), |tick| tick.checked_add(step))
            .skip_while(|tick| *tick < from_ns)
            .take_while(|tick| *tick <= to_ns)
            .collect();
        Self {
            from_ns,
            to_ns,
            ticks,
        }
    }
}

/// "00:17" since the start, "14:30" by the local clock, or the date at local midnight.
pub(super) fn time_label(at_ns: i64, clock: &Clock) -> String {
    if clock.zero_ns.is_some() {
        return clock.label(at_ns);
    }
    let since_midnight = at_ns
        .saturating_add(offset_ns(at_ns, &clock.zone))
        .rem_euclid(DAY_NS);
    let format = if since_midnight == 0 { "%b %-d" } else { "%H:%M" };
    format_in(at_ns, &clock.zone, format)
}

impl Ranged for TimeAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        place(
            i128::from(*value) - i128::from(self.from_ns),
            i128::from(self.to_ns) - i128::from(self.from_ns),
            limit,
        )
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<i64> {
        bold_only(&self.ticks, &hint)
    }

    fn range(&self) -> Range<i64> {
        self.from_ns..self.to_ns
    }
}

/// A quantity from 0 at the bottom: bytes, or thousandths.
#[derive(Clone)]
pub(super) struct ValueAxis {
    top: u64,
    ticks: Vec<u64>,
}

impl ValueAxis {
    /// Bytes up to `top`, with at most `most` ticks above 0, none above `last_tick`.
    pub(super) fn bytes(top: u64, last_tick: u64, most: u64) -> Self {
        let top = top.max(1);
        let step = (0..62)
            .map(|power| 1_u64 << power)
            .find(|step| last_tick / step <= most.max(1))
            .unwrap_or(top);
        let ticks = (0..=last_tick / step).map(|n| n * step).collect();
        Self { top, ticks }
    }

    /// Thousandths from 0 to `top`, with ticks at the given ones.
    pub(super) fn share(top: u64, ticks: &[u64]) -> Self {
        Self {
            top,
            ticks: ticks.to_vec(),
        }
    }
}

impl Ranged for ValueAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = u64;

    fn map(&self, value: &u64, limit: (i32, i32)) -> i32 {
        place(i128::from(*value), i128::from(self.top), limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<u64> {
        bold_only(&self.ticks, &hint)
    }

    fn range(&self) -> Range<u64> {
        0..self.top
    }
}

/// plotters asks twice, for bold lines and for light ones between them; there are no light ones here.
fn bold_only<T: Clone>(ticks: &[T], hint: &impl KeyPointHint) -> Vec<T> {
    if hint.weight().allow_light_points() {
        Vec::new()
    } else {
        ticks.to_vec()
    }
}

/// The pixel of `offset` out of `span` between two limits, rounded to the nearest. A window without length has one pixel.
fn place(offset: i128, span: i128, (start, end): (i32, i32)) -> i32 {
    let span = span.max(1);
    let width = i128::from(end) - i128::from(start);
    let scaled = (2 * offset * width + span).div_euclid(2 * span);
    let pixel = (i128::from(start) + scaled).clamp(-100_000, 100_000);
    i32::try_from(pixel).unwrap_or(start)
}

/// "8 GiB", "512 MiB", "0": round sizes without decimals.
pub(super) fn size_label(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};

    use super::*;
    use crate::timeline::{Timeline, Title};

    fn clock(from_ns: i64, to_ns: i64, zone: TimeZone) -> Clock {
        let timeline = Timeline {
            title: Title::default(),
            from_ns,
            to_ns,
            devices: Vec::new(),
            marks: Vec::new(),
        };
        Clock::of(&timeline, &zone)
    }

    fn labels(from_secs: i64, to_secs: i64, zone: TimeZone) -> Vec<String> {
        let (from_ns, to_ns) = (from_secs * SECOND_NS, to_secs * SECOND_NS);
        let clock = clock(from_ns, to_ns, zone);
        let axis = TimeAxis::new(from_ns, to_ns, &clock, 10);
        axis.ticks.iter().map(|tick| time_label(*tick, &clock)).collect()
    }

    #[test]
    fn short_windows_count_from_their_start() {
        assert_eq!(
            labels(1_000_003, 1_000_033, TimeZone::UTC),
            ["00:00", "00:05", "00:10", "00:15", "00:20", "00:25", "00:30"]
        );
    }

    #[test]
    fn long_windows_tell_local_time_and_the_date_at_midnight() {
        // 2026-11-22 09:52 UTC, read half an hour east of a full hour.
        let zone = TimeZone::fixed(Offset::from_seconds(19_800).expect("an offset"));
        let from = 1_795_341_120;
        assert_eq!(
            labels(from, from + 86_400, zone),
            [
                "18:00", "21:00", "Nov 23", "03:00", "06:00", "09:00", "12:00", "15:00"
            ]
        );
    }

    #[test]
    fn ticks_stay_few_for_any_window() {
        for (from, to) in [(0, i64::MAX), (i64::MIN, i64::MAX), (5, 5), (i64::MAX, i64::MAX)] {
            let clock = clock(from, to, TimeZone::UTC);
            assert!(
                TimeAxis::new(from, to, &clock, 10).ticks.len() <= 12,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn memory_ticks_are_powers_of_two() {
        let ticks = |top: u64| -> Vec<String> {
            ValueAxis::bytes(top, top, 6)
                .ticks
                .iter()
                .map(|b| size_label(*b))
                .collect()
        };
        assert_eq!(
            ticks(24 << 30),
            ["0", "4 GiB", "8 GiB", "12 GiB", "16 GiB", "20 GiB", "24 GiB"]
        );
        assert_eq!(
            ticks(80 << 30),
            ["0", "16 GiB", "32 GiB", "48 GiB", "64 GiB", "80 GiB"]
        );
        assert_eq!(ticks(1 << 30), ["0", "256 MiB", "512 MiB", "768 MiB", "1 GiB"]);
        assert_eq!(ticks(0), ["0"]);
        assert!(ticks(u64::MAX).len() <= 7);
    }

    #[test]
    fn pixels_are_rounded_and_bounded() {
        let axis = ValueAxis::bytes(100, 100, 4);
        assert_eq!(axis.map(&0, (200, 0)), 200);
        assert_eq!(axis.map(&100, (200, 0)), 0);
        assert_eq!(axis.map(&50, (200, 0)), 100);
        assert_eq!(axis.map(&u64::MAX, (200, 0)), -100_000);
    }
}
