//! Kernel time as counters: of the rows of `kernel_windows` those of one period of one process become a share for each
//! kind of kernel.

use std::collections::HashMap;

use crate::family::Family;

/// Periods follow each other; a hole this long is one in which nothing was told.
const HOLE_NS: i64 = 100_000_000;

/// Whose period: the number of a device, a process.
pub(super) type Whose = (usize, i64);

/// The share of time of one kind of kernel, from an instant on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) at_ns: i64,
    pub(super) family: Family,
    /// Kernels may run side by side, so that it can exceed 1.
    pub(super) ratio: f64,
}

/// What is told of each process so far.
#[derive(Default)]
pub(super) struct Periods {
    open: HashMap<Whose, Period>,
}

#[derive(Clone, Copy)]
struct Period {
    start_ns: i64,
    end_ns: i64,
    /// None for kinds that never came.
    family_ns: [Option<i64>; Family::ALL.len()],
}

impl Periods {
    /// Takes a row; rows come in the order of their starts. Answers what is known by now of the period before.
    pub(super) fn take(
        &mut self,
        whose: Whose,
        (start_ns, end_ns): (i64, i64),
        family: Family,
        total_ns: i64,
    ) -> Vec<Share> {
        let mut told = Vec::new();
        let period = self.open.entry(whose).or_insert(Period {
            start_ns,
            end_ns,
            family_ns: [None; Family::ALL.len()],
        });
        if period.start_ns != start_ns {
            told = period.shares();
            if start_ns.saturating_sub(period.end_ns) > HOLE_NS {
                told.extend(period.ends());
            }
            let family_ns = period.family_ns.map(|ns| ns.map(|_| 0));
            *period = Period {
                start_ns,
                end_ns,
                family_ns,
            };
        }
        period.end_ns = period.end_ns.max(end_ns);
        let sum = &mut period.family_ns[family as usize];
        *sum = Some(sum.unwrap_or(0).saturating_add(total_ns));
        told
    }

    /// The last period of each process, and that it ended.
    pub(super) fn finish(&mut self) -> Vec<(Whose, Vec<Share>)> {
        let mut last: Vec<(Whose, Period)> = self.open.drain().collect();
        last.sort_by_key(|(whose, _)| *whose);
        let told = |(whose, period): (Whose, Period)| {
            (whose, period.shares().into_iter().chain(period.ends()).collect())
        };
        last.into_iter().map(told).collect()
    }
}

impl Period {
    #[expect(clippy::cast_precision_loss, reason = "a share, for a picture")]
    fn shares(&self) -> Vec<Share> {
        let length_ns = self.end_ns.saturating_sub(self.start_ns).max(1) as f64;
        self.told(self.start_ns, |ns| ns as f64 / length_ns)
    }

    fn ends(&self) -> Vec<Share> {
        self.told(self.end_ns, |_| 0.0)
    }

    fn told(&self, at_ns: i64, ratio: impl Fn(i64) -> f64) -> Vec<Share> {
        let known = Family::ALL.into_iter().zip(self.family_ns);
        let share = |(family, ns): (Family, Option<i64>)| {
            Some(Share {
                at_ns,
                family,
                ratio: ratio(ns?),
            })
        };
        known.filter_map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_period_are_added_up_and_a_hole_is_none_of_it() {
        const SECOND: i64 = 1_000_000_000;
        let mut periods = Periods::default();
        let mut told = Vec::new();
        for (second, family, tenths) in [
            (0, Family::Gemm, 2),
            (0, Family::Gemm, 3),
            (1, Family::Gemm, 1),
            (1, Family::Attention, 4),
            (5, Family::Attention, 12),
        ] {
            let span = (second * SECOND, (second + 1) * SECOND);
            told.extend(periods.take((1, 7), span, family, tenths * SECOND / 10));
        }
        let last = periods.finish();
        assert_eq!(last.len(), 1);
        told.extend(last[0].1.iter().copied());
        let told: Vec<(i64, Family, f64)> = told
            .iter()
            .map(|share| (share.at_ns / SECOND, share.family, share.ratio))
            .collect();
        let (gemm, attention) = (Family::Gemm, Family::Attention);
        assert_eq!(
            told,
            [
                (0, gemm, 0.5),
                (1, attention, 0.4),
                (1, gemm, 0.1),
                (2, attention, 0.0),
                (2, gemm, 0.0),
                (5, attention, 1.2),
                (5, gemm, 0.0),
                (6, attention, 0.0),
                (6, gemm, 0.0),
            ]
        );
        assert_eq!(periods.finish(), []);
    }
}
