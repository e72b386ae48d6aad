//! Peaks and gaps of a series of readings.

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
    let distances: Vec<i64> = samples
        .windows(2)
        .map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns))
        .collect();
    let mut gaps = Vec::new();
    for (index, distance) in distances.iter().enumerate() {
        if *distance <= SHORTEST_GAP_NS || *distance <= usual(&distances, index).saturating_mul(3) {
            continue;
        }
        gaps.push(Span {
            from_ns: samples[index].at_ns,
            to_ns: samples[index + 1].at_ns,
        });
    }
    gaps
}

fn usual(distances: &[i64], index: usize) -> i64 {
    let before = &distances[index.saturating_sub(NEIGHBOURS)..index];
    let after = &distances[index + 1..distances.len().min(index + 1 + NEIGHBOURS)];
    let mut around: Vec<i64> = before.iter().chain(after).copied().collect();
    around.sort_unstable();
    around.get(around.len() * 3 / 4).copied().unwrap_or(0)
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
