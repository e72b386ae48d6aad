//! Instants as people read them. The time zone is a parameter, so that the same data give the same text.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::timeline::Timeline;

/// Elapsed times are easier to read than the hour of the day up to this length, ns.
const LONGEST_ELAPSED_NS: i64 = 3_600_000_000_000;

pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// "2026-11-22 10:00:17 +01:00"; "unknown" for an instant that no calendar has.
pub(crate) fn full(at_ns: i64, zone: &TimeZone) -> String {
    format_in(at_ns, zone, "%Y-%m-%d %H:%M:%S %:z")
}

/// Formats with strftime's directives.
pub(crate) fn format_in(at_ns: i64, zone: &TimeZone, format: &str) -> String {
    Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(
        |_| "unknown".to_owned(),
        |at| at.to_zoned(zone.clone()).strftime(format).to_string(),
    )
}

/// How far local time is ahead of UTC at an instant, ns.
pub(crate) fn offset_ns(at_ns: i64, zone: &TimeZone) -> i64 {
    Timestamp::from_nanosecond(i128::from(at_ns))
        .map_or(0, |at| i64::from(zone.to_offset(at).seconds()) * SECOND_NS)
}

/// "00:17": minutes and seconds.
pub(crate) fn elapsed(ns: i64) -> String {
    let secs = ns.div_euclid(SECOND_NS);
    let sign = if secs < 0 { "-" } else { "" };
    let secs = secs.unsigned_abs();
    format!("{sign}{:02}:{:02}", secs / 60, secs % 60)
}

/// How a picture names instants: elapsed since its start when it is short, else by the local clock.
pub(crate) struct Clock {
    pub(crate) zone: TimeZone,
    /// The instant that elapsed times count from; `None` for the local clock.
    pub(crate) zero_ns: Option<i64>,
    /// Whether the window needs dates.
    spans_days: bool,
}

impl Clock {
    pub(crate) fn of(timeline: &Timeline, zone: &TimeZone) -> Self {
        let zero = timeline.title.started_ns.unwrap_or(timeline.from_ns);
        let short = timeline.to_ns.saturating_sub(zero) <= LONGEST_ELAPSED_NS && zero <= timeline.to_ns;
        let day = |at_ns| format_in(at_ns, zone, "%F");
        Self {
            zone: zone.clone(),
            zero_ns: short.then_some(zero),
            spans_days: day(timeline.from_ns) != day(timeline.to_ns),
        }
    }

    /// An instant in as few characters as are clear within the window.
    pub(crate) fn label(&self, at_ns: i64) -> String {
        match self.zero_ns {
            Some(zero) => elapsed(at_ns.saturating_sub(zero)),
            None if self.spans_days => format_in(at_ns, &self.zone, "%b %-d %H:%M:%S"),
            None => format_in(at_ns, &self.zone, "%H:%M:%S"),
        }
    }

    /// An instant in full, with the elapsed time where that is shown.
    pub(crate) fn title(&self, at_ns: i64) -> String {
        let full = full(at_ns, &self.zone);
        match self.zero_ns {
            Some(zero) => format!("{} ({full})", elapsed(at_ns.saturating_sub(zero))),
            None => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn instants_carry_their_offset() {
        let zone = TimeZone::fixed(Offset::constant(1));
        assert_eq!(
            full(1_795_338_017 * SECOND_NS, &zone),
            "2026-11-22 10:00:17 +01:00"
        );
        assert_eq!(full(0, &TimeZone::UTC), "1970-01-01 00:00:00 +00:00");
        assert_eq!(offset_ns(0, &zone), 3_600 * SECOND_NS);
    }

    #[test]
    fn elapsed_times_do_not_wrap() {
        assert_eq!(elapsed(17 * SECOND_NS + 999), "00:17");
        assert_eq!(elapsed(3_600 * SECOND_NS), "60:00");
        assert_eq!(elapsed(-1), "-00:01");
    }
}
