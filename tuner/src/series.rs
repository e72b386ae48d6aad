//! One signal's recent values.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_trace::Stamp;

use crate::signals::Reading;
use crate::stat::Stat;

/// More values than this are never kept: ten minutes at the fastest sampling are 6,000.
const MOST_POINTS: usize = 16_384;

/// Recent values of one signal, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    points: VecDeque<(Stamp, f64)>,
    /// Whether the newest sample had a value.
    known: bool,
}

impl Series {
    /// Takes a sample; `None` is a sample that does not know the value. Keeps what a window of `keep` needs.
    pub(crate) fn push(&mut self, at: Stamp, value: Option<f64>, keep: Duration) {
        let value = value.filter(|value| value.is_finite());
        self.known = value.is_some();
        let in_order = self
            .points
            .back()
            .is_none_or(|(last, _)| last.mono_ns < at.mono_ns);
        if let Some(value) = value.filter(|_| in_order) {
            self.points.push_back((at, value));
        }
        // The value that stood when the window began is kept as well.
        while self.points.len() > MOST_POINTS
            || self
                .points
                .get(1)
                .is_some_and(|(next, _)| at.since(*next) >= keep)
        {
            self.points.pop_front();
        }
    }

    /// The figure that `stat` asks for; `None` when the newest value is missing or older than `max_age`, or when less
    /// than half of the window is covered by values. A value stands until the next one, but no longer than `max_age`.
    pub(crate) fn read(
        &self,
        stat: Stat,
        window: Duration,
        max_age: Duration,
        now: Stamp,
    ) -> Option<Reading> {
        let &(at, last) = self.points.back().filter(|_| self.known)?;
        if now.since(at) > max_age {
            return None;
        }
        let value = match stat {
            Stat::Last => last,
            Stat::Mean => {
                let (covered_secs, sum) = self.sum(window, Duration::ZERO, max_age, now)?;
                sum / covered_secs
            }
            Stat::Change => {
                let half = window / 2;
                let (secs_before, before) = self.sum(window, half, max_age, now)?;
                let (secs_after, after) = self.sum(half, Duration::ZERO, max_age, now)?;
                let before = Some(before / secs_before).filter(|before| *before > 0.0)?;
                after / secs_after / before
            }
            Stat::Max => {
                let mut covered_secs = 0.0;
                let mut max = last;
                for (value, secs) in self.stood(window, Duration::ZERO, max_age, now) {
                    covered_secs += secs;
                    max = max.max(value);
                }
                is_covered(covered_secs, window).then_some(max)?
            }
            Stat::Percentile(hundredths) => {
                let mut stood_for = Vec::with_capacity(self.points.len());
                stood_for.extend(self.stood(window, Duration::ZERO, max_age, now));
                let covered_secs: f64 = stood_for.iter().map(|(_, secs): &(f64, f64)| secs).sum();
                let wanted_secs = covered_secs * f64::from(hundredths) / 100.0;
                is_covered(covered_secs, window)
                    .then(|| percentile(stood_for, wanted_secs).unwrap_or(last))?
            }
        };
        Some(Reading { value, at })
    }

    /// The seconds that are covered between `from` and `until` before now, and the sum of the values over them. `None` when
    /// less than half is covered.
    fn sum(&self, from: Duration, until: Duration, max_age: Duration, now: Stamp) -> Option<(f64, f64)> {
        let mut all = (0.0, 0.0);
        for (value, secs) in self.stood(from, until, max_age, now) {
            all.0 += secs;
            all.1 += value * secs;
        }
        (all.0 > 0.0 && is_covered(all.0, from.saturating_sub(until))).then_some(all)
    }

    /// The values that stood between `from` and `until` before now, and for how many seconds of that.
    fn stood(
        &self,
        from: Duration,
        until: Duration,
        max_age: Duration,
        now: Stamp,
    ) -> impl Iterator<Item = (f64, f64)> {
        let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let (from, until) = (
            now.mono_ns.saturating_sub(ns(from)),
            now.mono_ns.saturating_sub(ns(until)),
        );
        let max_age = ns(max_age);
        // The value that stood when the window began is the last one before it.
        let first = self
            .points
            .partition_point(|(at, _)| at.mono_ns <= from)
            .saturating_sub(1);
        let next = self.points.range(first..).skip(1).map(|(at, _)| at.mono_ns);
        let points = self.points.range(first..).zip(next.chain([now.mono_ns]));
        points.filter_map(move |((at, value), next)| {
            let end = next.min(at.mono_ns.saturating_add(max_age)).min(until);
            let inside = end - at.mono_ns.max(from);
            (inside > 0).then_some((*value, inside as f64 / 1e9))
        })
    }
}

/// Whether at least half of a window is covered.
fn is_covered(secs: f64, window: Duration) -> bool {
    secs * 2.0 >= window.as_secs_f64()
}

/// The smallest value such that it and those below it stood for `wanted_secs`.
fn percentile(mut stood_for: Vec<(f64, f64)>, wanted_secs: f64) -> Option<f64> {
    stood_for.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut secs = 0.0;
    let reaches = |(_, stood): &&(f64, f64)| {
        secs += stood;
        secs >= wanted_secs
    };
    stood_for.iter().find(reaches).map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    fn series(points: &[(i64, Option<f64>)]) -> Series {
        let mut series = Series::default();
        for &(secs, value) in points {
            series.push(Stamp::at_secs(secs), value, Duration::from_secs(30));
        }
        series
    }

    fn read(series: &Series, stat: Stat, now: i64) -> Option<f64> {
        series
            .read(stat, Duration::from_secs(20), AGE, Stamp::at_secs(now))
            .map(|reading| reading.value)
    }

    #[test]
    fn the_newest_value_ages() {
        let s = series(&[(0, Some(1.0)), (5, Some(2.0))]);
        assert_eq!(read(&s, Stat::Last, 15), Some(2.0));
        assert_eq!(read(&s, Stat::Last, 16), None);
    }

    #[test]
    fn a_sample_without_a_value_is_unknown_at_once() {
        let mut s = series(&[(0, Some(1.0)), (1, None)]);
        assert_eq!(read(&s, Stat::Last, 1), None);
        s.push(Stamp::at_secs(2), Some(f64::NAN), AGE);
        assert_eq!(read(&s, Stat::Last, 2), None);
        s.push(Stamp::at_secs(3), Some(4.0), AGE);
        assert_eq!(read(&s, Stat::Last, 3), Some(4.0));
    }

    #[test]
    fn the_mean_weighs_by_time_and_not_by_samples() {
        // 10 s at 0, then a burst of samples within 10 s at 1: the mean is a half, not nearly 1.
        let mut points: Vec<_> = [(0, 0.0), (5, 0.0), (10, 1.0)]
            .map(|(at, value)| (at, Some(value)))
            .to_vec();
        points.extend((11..=20).map(|at| (at, Some(1.0))));
        assert_eq!(read(&series(&points), Stat::Mean, 20), Some(0.5));
        assert_eq!(read(&series(&points), Stat::Max, 20), Some(1.0));
    }

    #[test]
    fn percentiles_weigh_by_time_too() {
        // 18 of 20 s at 0, then 2 s at 1: a tenth of the time.
        let mut points: Vec<_> = [(0, 0.0), (5, 0.0), (10, 0.0), (15, 0.0)]
            .map(|(at, value)| (at, Some(value)))
            .to_vec();
        points.extend([(18, Some(1.0)), (19, Some(1.0))]);
        for (hundredths, value) in [(1, 0.0), (90, 0.0), (91, 1.0), (99, 1.0)] {
            let stat = Stat::Percentile(hundredths);
            assert_eq!(read(&series(&points), stat, 20), Some(value), "{stat}");
        }
    }

    #[test]
    fn a_window_needs_half_its_time_covered() {
        let s = series(&[(0, Some(1.0)), (5, Some(1.0))]);
        assert_eq!(read(&s, Stat::Mean, 9), None);
        assert_eq!(read(&s, Stat::Mean, 10), Some(1.0));
        // A value before a long gap covers no more than its maximum age.
        let gap = series(&[(0, Some(9.0)), (29, Some(1.0))]);
        assert_eq!(read(&gap, Stat::Max, 30), None);
    }

    #[test]
    fn a_change_is_the_second_half_over_the_first() {
        let read = |points: &[(i64, Option<f64>)], now| read(&series(points), Stat::Change, now);
        let even: Vec<_> = (0..=20).map(|at| (at, Some(3.0))).collect();
        assert_eq!(read(&even, 20), Some(1.0));
        let halved: Vec<_> = (0..=20)
            .map(|at| (at, Some(if at < 10 { 4.0 } else { 2.0 })))
            .collect();
        assert_eq!(read(&halved, 20), Some(0.5));
        assert_eq!(
            read(&[(0, Some(4.0)), (10, Some(2.0))], 20),
            Some(0.5),
            "values stand"
        );
        assert_eq!(
            read(&[(6, Some(4.0)), (10, Some(2.0))], 20),
            None,
            "not half covered"
        );
        let from_nothing: Vec<_> = (0..=20)
            .map(|at| (at, Some(f64::from(i32::from(at >= 10)))))
            .collect();
        assert_eq!(read(&from_nothing, 20), None);
    }

    #[test]
    fn old_values_are_let_go() {
        let points: Vec<_> = (0..1000).map(|at| (at, Some(1.0))).collect();
        assert!(series(&points).points.len() <= 32);
    }
}
