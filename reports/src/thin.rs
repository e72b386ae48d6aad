//! M4 while readings come: of a window of any length only what a picture can show is kept.

use crate::downsample::column_of;

/// In one column of pixels a series is cut this often at most; what comes after is one piece.
const MOST_PIECES: usize = 16;

/// A series that keeps genuine readings only: of each column, and in it of each stretch of known or unknown readings,
/// the first, the lowest, the highest and the last. [`m4`](crate::downsample::m4) of what is kept is that of all, in
/// columns as wide or a multiple as wide.
#[derive(Clone, Debug)]
pub(crate) struct Thin<T> {
    from_ns: i64,
    width_ns: i64,
    column: i64,
    /// Pieces begun in the column.
    pieces: usize,
    piece: Option<Piece<T>>,
    seen: usize,
    kept: Vec<T>,
}

/// A reading and how many came before it.
type Numbered<T> = (usize, T);

#[derive(Clone, Debug)]
struct Piece<T> {
    is_known: bool,
    first: Numbered<T>,
    low: Option<(u64, Numbered<T>)>,
    high: Option<(u64, Numbered<T>)>,
    /// The last one without a value.
    unknown: Option<Numbered<T>>,
    last: Numbered<T>,
}

impl<T: Copy> Thin<T> {
    /// Columns of `width_ns` from `from_ns` on.
    pub(crate) fn new(from_ns: i64, width_ns: i64) -> Self {
        Self {
            from_ns,
            width_ns: width_ns.max(1),
            column: 0,
            pieces: 0,
            piece: None,
            seen: 0,
            kept: Vec::new(),
        }
    }

    /// Takes the next reading, of value `value`. `is_apart` says that it may not be connected to the one before.
    pub(crate) fn push(&mut self, at_ns: i64, value: Option<u64>, reading: T, is_apart: bool) {
        let column = column_of(at_ns, self.from_ns, self.width_ns);
        if column != self.column {
            self.end_piece();
            (self.column, self.pieces) = (column, 0);
        }
        if let Some(piece) = &self.piece
            && (is_apart || piece.is_known != value.is_some())
            && self.pieces < MOST_PIECES
        {
            self.end_piece();
        }
        let numbered = (self.seen, reading);
        self.seen += 1;
        let piece = self.piece.get_or_insert_with(|| {
            self.pieces += 1;
            Piece {
                is_known: value.is_some(),
                first: numbered,
                low: None,
                high: None,
                unknown: None,
                last: numbered,
            }
        });
        piece.take(value, numbered);
    }

    /// What is kept, in the order in which it came.
    pub(crate) fn finish(mut self) -> Vec<T> {
        self.end_piece();
        self.kept
    }

    fn end_piece(&mut self) {
        let Some(piece) = self.piece.take() else { return };
        let mut chosen = [
            Some(piece.first),
            piece.low.map(|(_, reading)| reading),
            piece.high.map(|(_, reading)| reading),
            piece.unknown,
            Some(piece.last),
        ];
        chosen.sort_unstable_by_key(|reading| reading.map(|(number, _)| number));
        let mut before = None;
        for (number, reading) in chosen.into_iter().flatten() {
            if before != Some(number) {
                self.kept.push(reading);
            }
            before = Some(number);
        }
    }
}

impl<T: Copy> Piece<T> {
    fn take(&mut self, value: Option<u64>, reading: Numbered<T>) {
        self.last = reading;
        let Some(value) = value else {
            self.unknown = Some(reading);
            return;
        };
        if self.low.is_none_or(|(low, _)| value < low) {
            self.low = Some((value, reading));
        }
        if self.high.is_none_or(|(high, _)| value > high) {
            self.high = Some((value, reading));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::downsample::m4;

    type Reading = (i64, Option<u64>);

    fn thin(readings: &[Reading], from_ns: i64, width_ns: i64) -> Vec<Reading> {
        let mut thin = Thin::new(from_ns, width_ns);
        for reading in readings {
            thin.push(reading.0, reading.1, *reading, false);
        }
        thin.finish()
    }

    /// What is drawn of a series: M4 of each stretch of known readings, and where unknown ones begin and end.
    fn drawn(readings: &[Reading], from_ns: i64, width_ns: i64) -> Vec<Reading> {
        let mut out = Vec::new();
        for run in readings.chunk_by(|a, b| a.1.is_some() == b.1.is_some()) {
            let known: Vec<(i64, u64)> = run
                .iter()
                .filter_map(|(at, value)| Some((*at, (*value)?)))
                .collect();
            out.extend(m4(&known, from_ns, width_ns).into_iter().map(|index| run[index]));
            if known.is_empty() {
                out.extend([run[0], run[run.len() - 1]]);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn the_picture_of_what_is_kept_is_that_of_all(
            runs in prop::collection::vec((prop::bool::weighted(0.8), prop::collection::vec((1_i64..40, 0_u64..50), 1..60)), 0..12),
            from_ns in -100_i64..100,
            width_ns in 1_i64..300,
        ) {
            let mut at = 0;
            let mut readings: Vec<Reading> = Vec::new();
            for (is_known, steps) in runs {
                for (step, value) in steps {
                    at += step;
                    readings.push((at, is_known.then_some(value)));
                }
            }
            let kept = thin(&readings, from_ns, width_ns);
            for multiple in [1, 2, 4, 8] {
                prop_assert_eq!(
                    drawn(&kept, from_ns, width_ns * multiple),
                    drawn(&readings, from_ns, width_ns * multiple)
                );
            }
        }

        #[test]
        fn of_any_series_little_is_kept_and_no_extreme_lost(
            readings in prop::collection::vec((0_i64..3, prop::option::of(0_u64..1000)), 1..2000),
        ) {
            let mut at = 0;
            let readings: Vec<Reading> = readings.iter().map(|(step, value)| { at += step; (at, *value) }).collect();
            let kept = thin(&readings, 0, 500);
            let columns = usize::try_from(at / 500 + 1).expect("few");
            prop_assert!(kept.len() <= columns * 5 * MOST_PIECES);
            prop_assert!(kept.is_sorted_by_key(|(at, _)| *at));
            let highest = |readings: &[Reading]| readings.iter().filter_map(|(_, value)| *value).max();
            prop_assert_eq!(highest(&kept), highest(&readings));
            let has_unknown = |readings: &[Reading]| readings.iter().any(|(_, value)| value.is_none());
            prop_assert_eq!(has_unknown(&kept), has_unknown(&readings));
        }
    }
}
