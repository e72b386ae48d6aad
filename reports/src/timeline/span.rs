//! Peaks and gaps of a series of readings.

use std::collections::VecDeque;

use super::{Peak, Sample, Span};

/// Shorter holes are late samples, not gaps: two readings missing at the default interval of 1 s.
const SHORTEST_GAP_NS: i64 = 3_000_000_000;

/// How many distances on each side say what is usual around one of them.
const NEIGHBOURS: usize = 8;

/// The highest reading and the first time it was reached.
#[must_use]
pub fn find_peak(samples: &[Sample]) -> Option<Peak> {
    samples
        .iter()
        .filter_map(|sample| {
            sample.used_bytes.map(|used_bytes| Peak {
                at_ns: sample.at_ns,
                used_bytes,
            })
        })
        .reduce(|best, next| {
            if next.used_bytes > best.used_bytes {
                next
            } else {
                best
            }
        })
}

/// Where samples are missing: a distance over 3 s and over three times what is usual around it.
///
/// What is usual is the third quartile of the eight distances on each side, because the sampling interval changes
/// (100 ms to 60 s) while a value moves fast.
#[must_use]
pub fn find_gaps(samples: &[Sample]) -> Vec<Span> {
    let mut gaps = Gaps::default();
    for sample in samples {
        gaps.push(sample.at_ns);
    }
    gaps.finish()
}

/// Finds gaps while samples come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    last_ns: Option<i64>,
    /// Where distances begin and how long they are: those not decided, and up to eight before them.
    distances: VecDeque<(i64, i64)>,
    decided: usize,
    found: Vec<Span>,
}

impl Gaps {
    /// Takes the instant of the next sample. Answers whether a gap may be before it.
    pub(crate) fn push(&mut self, at_ns: i64) -> bool {
        let Some(last_ns) = self.last_ns.replace(at_ns) else {
            return false;
        };
        let distance = at_ns.saturating_sub(last_ns);
        self.distances.push_back((last_ns, distance));
        if self.distances.len() > self.decided + NEIGHBOURS {
            self.decide();
        }
        distance > SHORTEST_GAP_NS
    }

    pub(crate) fn finish(mut self) -> Vec<Span> {
        while self.decided < self.distances.len() {
            self.decide();
        }
        self.found
    }

    fn decide(&mut self) {
        let (from_ns, distance) = self.distances[self.decided];
        if distance > SHORTEST_GAP_NS && distance > self.usual().saturating_mul(3) {
            let to_ns = from_ns.saturating_add(distance);
            self.found.push(Span { from_ns, to_ns });
        }
        if self.decided == NEIGHBOURS {
            self.distances.pop_front();
        } else {
            self.decided += 1;
        }
    }

    /// What is usual around the distance to be decided.
    fn usual(&self) -> i64 {
        let all = self.distances.iter().enumerate();
        let others = all.filter(|(index, _)| *index != self.decided);
        let mut around: Vec<i64> = others.map(|(_, (_, distance))| *distance).collect();
        around.sort_unstable();
        around.get(around.len() * 3 / 4).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: &[i64]) -> Vec<Sample> {
        millis
            .iter()
            .map(|ms| Sample {
                at_ns: ms * 1_000_000,
                used_bytes: Some(1),
            })
            .collect()
    }

    #[test]
    fn a_hole_is_a_gap_whatever_the_interval() {
        let mut times: Vec<i64> = (0..20).map(|s| s * 1000).collect();
        times.extend((50..70).map(|s| s * 1000));
        let gaps = find_gaps(&at(&times));
        assert_eq!(gaps.len(), 1);
        assert_eq!((gaps[0].from_ns, gaps[0].to_ns), (19_000_000_000, 50_000_000_000));

        let slow: Vec<i64> = (0..20).map(|n| n * 60_000).collect();
        assert!(find_gaps(&at(&slow)).is_empty());
    }

    #[test]
    fn a_burst_of_fast_samples_makes_no_gaps() {
        let mut times: Vec<i64> = (0..20).map(|n| n * 2_900).collect();
        times.extend((1..200).map(|n| 19 * 2_900 + n * 100));
        let last = times[times.len() - 1];
        times.extend((1..20).map(|n| last + n * 2_900));
        assert!(find_gaps(&at(&times)).is_empty());
    }

    #[test]
    fn several_gaps_do_not_hide_each_other() {
        let mut times = Vec::new();
        for block in 0..6 {
            times.extend((0..12).map(|s| block * 60_000 + s * 1000));
        }
        assert_eq!(find_gaps(&at(&times)).len(), 5);
    }

    #[test]
    fn a_peak_is_the_first_highest_known_reading() {
        assert_eq!(find_peak(&[]), None);
        let mut samples = at(&[0, 1, 2, 3]);
        samples[1].used_bytes = Some(9);
        samples[2].used_bytes = Some(9);
        samples[3].used_bytes = None;
        assert_eq!(
            find_peak(&samples),
            Some(Peak {
                at_ns: 1_000_000,
                used_bytes: 9
            })
        );
    }
}
