//! Cuts a series where it is not known: at gaps, and where there were readings without a value.

use crate::timeline::Span;

/// A series in pieces.
pub(super) struct Stretches<V> {
    /// Known readings (time, value), ascending; nothing is drawn between two pieces.
    pub(super) known: Vec<Vec<(i64, V)>>,
    /// Where there were readings without a value.
    pub(super) unknown: Vec<Span>,
}

/// Cuts `readings`, which ascend in time, at `gaps`. A single known reading lasts `least_ns`, so that it can be seen.
pub(super) fn cut<V: Copy>(
    readings: impl Iterator<Item = (i64, Option<V>)>,
    gaps: &[Span],
    least_ns: i64,
) -> Stretches<V> {
    let (mut known, mut unknown): (Vec<Vec<(i64, V)>>, Vec<Span>) = (Vec::new(), Vec::new());
    let mut gaps = gaps.iter().peekable();
    // The reading before: its time and whether it was known.
    let mut before: Option<(i64, bool)> = None;
    for (at_ns, value) in readings {
        while gaps.next_if(|gap| gap.from_ns < at_ns).is_some() {
            before = None;
        }
        match (value, before) {
            (Some(value), Some((_, true))) => {
                if let Some(run) = known.last_mut() {
                    run.push((at_ns, value));
                }
            }
            (Some(value), _) => known.push(vec![(at_ns, value)]),
            (None, Some((from_ns, true))) => unknown.push(Span {
                from_ns,
                to_ns: at_ns,
            }),
            (None, None) => unknown.push(Span {
                from_ns: at_ns,
                to_ns: at_ns,
            }),
            (None, Some((_, false))) => {}
        }
        if let (Some((_, false)), Some(span)) = (before, unknown.last_mut()) {
            span.to_ns = at_ns;
        }
        before = Some((at_ns, value.is_some()));
    }
    for run in &mut known {
        if let [(at_ns, value)] = run.as_slice() {
            let again = (at_ns.saturating_add(least_ns), *value);
            run.push(again);
        }
    }
    Stretches { known, unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_unknown_readings_cut_the_series() {
        let readings = [
            (0, Some(1)),
            (1, Some(1)),
            (9, Some(2)),
            (10, None),
            (11, None),
            (12, Some(3)),
            (20, None),
        ];
        let gaps = [
            Span { from_ns: 1, to_ns: 9 },
            Span {
                from_ns: 12,
                to_ns: 20,
            },
        ];
        let stretches = cut(readings.into_iter(), &gaps, 2);
        assert_eq!(
            stretches.known,
            [
                vec![(0, 1), (1, 1)],
                vec![(9, 2), (11, 2)],
                vec![(12, 3), (14, 3)]
            ]
        );
        assert_eq!(
            stretches.unknown,
            [
                Span {
                    from_ns: 9,
                    to_ns: 12
                },
                Span {
                    from_ns: 20,
                    to_ns: 20
                }
            ]
        );
    }

    #[test]
    fn all_unknown_is_one_stretch() {
        let stretches = cut((0..5).map(|at| (at, None::<u64>)), &[], 1);
        assert!(stretches.known.is_empty());
        assert_eq!(stretches.unknown, [Span { from_ns: 0, to_ns: 4 }]);
    }
}
