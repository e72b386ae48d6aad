//! M4: from each pixel column the first, lowest, highest and last point, so that no extreme is ever lost.
//!
//! Columns are cut by time, not by index, because the sampling interval changes. See U. Jugel et al., "M4: A
//! Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014.

/// Chooses the points of a series to draw in columns of `width_ns` from `from_ns` on.
///
/// `points` are (time, value), ascending in time. The answer is ascending and without repeats; it holds at most four
/// indexes a column, and among them the first of the lowest and the first of the highest of that column.
#[must_use]
pub fn m4<V: PartialOrd + Copy>(points: &[(i64, V)], from_ns: i64, width_ns: i64) -> Vec<usize> {
    let width_ns = width_ns.max(1);
    let mut chosen = Vec::new();
    let mut start = 0;
    while let Some((at_ns, value)) = points.get(start).copied() {
        let column = column_of(at_ns, from_ns, width_ns);
        let (mut end, mut low, mut high) = (start + 1, (start, value), (start, value));
        while let Some((at_ns, value)) = points.get(end).copied() {
            if column_of(at_ns, from_ns, width_ns) != column {
                break;
            }
            if value < low.1 {
                low = (end, value);
            }
            if value > high.1 {
                high = (end, value);
            }
            end += 1;
        }
        let mut four = [start, low.0, high.0, end - 1];
        four.sort_unstable();
        for index in four {
            if chosen.last() != Some(&index) {
                chosen.push(index);
            }
        }
        start = end;
    }
    chosen
}

/// The column that an instant is in.
pub(crate) fn column_of(at_ns: i64, from_ns: i64, width_ns: i64) -> i64 {
    at_ns.saturating_sub(from_ns).div_euclid(width_ns)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_column_keeps_its_extremes_and_ends(
            steps in prop::collection::vec((0_i64..50, 0_u64..1000), 0..400),
            from_ns in -100_i64..100,
            width_ns in 1_i64..300,
        ) {
            let mut at = 0;
            let points: Vec<(i64, u64)> = steps.iter().map(|(step, value)| { at += step; (at, *value) }).collect();
            let chosen = m4(&points, from_ns, width_ns);
            prop_assert!(chosen.is_sorted_by(|a, b| a < b));
            let columns = |indexes: &mut dyn Iterator<Item = usize>| {
                let mut columns: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
                for index in indexes {
                    columns.entry((points[index].0 - from_ns).div_euclid(width_ns)).or_default().push(points[index].1);
                }
                columns
            };
            let (all, kept) = (columns(&mut (0..points.len())), columns(&mut chosen.iter().copied()));
            prop_assert_eq!(all.len(), kept.len());
            for (column, values) in all {
                let kept = &kept[&column];
                prop_assert!(kept.len() <= 4);
                prop_assert_eq!(values.iter().max(), kept.iter().max());
                prop_assert_eq!(values.iter().min(), kept.iter().min());
                prop_assert_eq!(values.first(), kept.first());
                prop_assert_eq!(values.last(), kept.last());
            }
        }
    }

    #[test]
    fn a_spike_of_one_sample_survives() {
        let mut points: Vec<(i64, u64)> = (0..36_000).map(|n| (n * 100, 10)).collect();
        points[17_771].1 = 47;
        let chosen = m4(&points, 0, 3_600_000 / 800);
        assert!(chosen.contains(&17_771));
        assert!(chosen.len() < 2_000);
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(m4::<u64>(&[], 0, 0).is_empty());
        assert_eq!(m4(&[(i64::MIN, 1), (i64::MAX, 2)], 0, 0), [0, 1]);
    }
}
