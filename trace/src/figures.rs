//! What an engine says of its own work at one instant: levels, counters since its start, and histograms of latencies.

use crate::Stamp;

/// A cumulative histogram, as Prometheus' text format has it: how many observations were at or below each bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound, and how many observations are at or below it; bounds ascend, the last may be infinite.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// A histogram of these buckets, in any order. `None` when there are none, when a bound or a count is no number, or
    /// when the counts fall as the bounds rise.
    #[must_use]
    pub fn new(mut buckets: Vec<(f64, f64)>) -> Option<Self> {
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let sound = buckets
            .iter()
            .all(|(bound, count)| !bound.is_nan() && count.is_finite() && *count >= 0.0);
        let rises = buckets
            .iter()
            .zip(buckets.iter().skip(1))
            .all(|((_, below), (_, above))| below <= above);
        (!buckets.is_empty() && sound && rises).then_some(Self { buckets })
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// What came since an earlier reading. `None` when a count went back, as after a restart, or the bounds are others.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let same = |((a, _), (b, _)): (&(f64, f64), &(f64, f64))| a.total_cmp(b).is_eq();
        if self.buckets.len() != earlier.buckets.len() || !self.buckets.iter().zip(&earlier.buckets).all(same)
        {
            return None;
        }
        let later = self.buckets.iter().zip(&earlier.buckets);
        Self::new(
            later
                .map(|((bound, now), (_, then))| (*bound, now - then))
                .collect(),
        )
    }

    /// The value that a share `q` (0..1) of the observations is at or below, taken to lie evenly inside its bucket. Beyond
    /// the last finite bound it is that bound. `None` without observations.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total <= 0.0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total;
        let (mut lower, mut below) = (0.0_f64, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= rank && count > below {
                if bound.is_infinite() {
                    return Some(lower);
                }
                let from = lower.min(bound);
                return Some(from + (bound - from) * ((rank - below) / (count - below)).clamp(0.0, 1.0));
            }
            (lower, below) = (if bound.is_finite() { bound } else { lower }, count);
        }
        Some(lower)
    }

    /// How many observations lie above `value`, taken to lie evenly inside their buckets. Those beyond the last finite
    /// bound count as above every value.
    #[must_use]
    pub fn above(&self, value: f64) -> f64 {
        let (mut lower, mut below) = (0.0_f64, 0.0);
        for &(bound, count) in &self.buckets {
            if bound.is_infinite() {
                break;
            }
            if value < bound {
                let share = if bound > lower {
                    ((value - lower) / (bound - lower)).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                return self.count() - (below + (count - below) * share);
            }
            (lower, below) = (bound, count);
        }
        self.count() - below
    }
}

/// What an engine's metrics said at one instant. Counters and histograms count since its start; what it does not show is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineFigures {
    /// When they were read.
    pub at: Stamp,
    /// Requests being served.
    pub running: Option<f64>,
    /// Requests in the queue.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, 0..1.
    pub kv_used_ratio: Option<f64>,
    /// Requests that were thrown out of the batch.
    pub preemptions: Option<f64>,
    /// Requests that came to an end, well or not.
    pub finished: Option<f64>,
    /// Of those, the ones that failed.
    pub failed: Option<f64>,
    /// Requests turned away or dropped; not among the finished.
    pub refused: Option<f64>,
    /// Times to the first token, seconds.
    pub ttft: Option<Histogram>,
    /// Times per output token, seconds.
    pub tpot: Option<Histogram>,
}

impl EngineFigures {
    /// Whether a counter went back since `earlier`: the engine was started anew, and nothing can be taken as a difference.
    #[must_use]
    pub fn restarted_since(&self, earlier: &Self) -> bool {
        let back = |now: Option<f64>, then: Option<f64>| matches!((now, then), (Some(now), Some(then)) if now < then);
        let count = |histogram: &Option<Histogram>| histogram.as_ref().map(Histogram::count);
        back(self.preemptions, earlier.preemptions)
            || back(self.finished, earlier.finished)
            || back(self.failed, earlier.failed)
            || back(self.refused, earlier.refused)
            || back(count(&self.ttft), count(&earlier.ttft))
            || back(count(&self.tpot), count(&earlier.tpot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [f64; 4]) -> Histogram {
        let bounds = [0.1, 0.2, 0.4, f64::INFINITY];
        Histogram::new(bounds.into_iter().zip(counts).collect()).expect("a histogram")
    }

    #[test]
    fn quantiles_lie_evenly_in_their_bucket() {
        let even = histogram([50.0, 100.0, 100.0, 100.0]);
        let close = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() < 1e-9);
        assert!(close(even.quantile(0.25), 0.05) && close(even.quantile(0.75), 0.15));
        assert!(close(even.quantile(1.0), 0.2));
        assert!((even.above(0.15) - 25.0).abs() < 1e-9 && even.above(0.4) == 0.0);
        // Nobody knows how far beyond.
        let far = histogram([0.0, 0.0, 0.0, 8.0]);
        assert!(close(far.quantile(0.5), 0.4) && far.above(100.0) == 8.0);
        assert_eq!(histogram([0.0; 4]).quantile(0.95), None);
    }

    #[test]
    fn a_difference_is_unknown_after_a_restart() {
        let (then, now) = (histogram([1.0, 2.0, 3.0, 4.0]), histogram([1.0, 4.0, 6.0, 8.0]));
        assert_eq!(now.since(&then), Some(histogram([0.0, 2.0, 3.0, 4.0])));
        assert_eq!(then.since(&now), None);
        assert_eq!(Histogram::new(vec![(1.0, 2.0), (2.0, 1.0)]), None);
        assert_eq!(Histogram::new(vec![(f64::NAN, 2.0)]), None);
        assert_eq!(Histogram::new(Vec::new()), None);
    }
}
