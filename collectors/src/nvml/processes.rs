//! The processes of a device and what each of them holds.
//!
//! Own calls instead of the wrapper's: the wrapper first asks for the count with no buffer, which some drivers answer
//! with success and thereby with "none"; it has a spare of five entries and no second try; it knows one generation.
//! Here a roomy buffer is kept, and grown for as long as the driver asks for more.

use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use plimsoll_trace::Stamp;

use super::memory::known;
use super::raw::{self, Filled, Generation, List, ROOMY_WORDS};
use super::refusal::Refusal;

/// Room for so many entries to begin with; most hosts never need more.
const ROOM: usize = 64;
/// No machine runs more processes on one device than this; a driver that asks for more is not believed.
const MOST: usize = 1 << 16;
/// A list that grows faster than this many attempts is given up for this tick.
const ATTEMPTS: u32 = 8;
/// A list that a device does not have is asked for again after this long.
const REST: Duration = Duration::from_secs(10);

/// One process as the driver lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) pid: u32,
    /// `None` when the driver does not say.
    pub(super) used_bytes: Option<u64>,
}

/// What became of reading a device's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rows are all there is.
    Complete,
    /// At least one list is missing, so nothing is known: not even that a process ended.
    Failed,
    /// This device does not say.
    Unsupported,
}

/// The buffers that all devices share.
#[derive(Debug)]
pub(super) struct Buffers {
    words: Vec<u64>,
    pub(super) rows: Vec<Row>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            words: vec![0; ROOM * ROOMY_WORDS],
            rows: Vec::with_capacity(ROOM),
        }
    }
}

/// One device's lists, each with the generation of the call that it answers.
#[derive(Debug)]
pub(super) struct Lists {
    compute: Chain,
    graphics: Chain,
    mps: Chain,
}

impl Lists {
    pub(super) fn new(driver: Option<&str>) -> Self {
        let order = order(driver);
        Self {
            compute: Chain::new(List::Compute, order),
            graphics: Chain::new(List::Graphics, order),
            mps: Chain::new(List::Mps, order),
        }
    }

    /// Reads all lists into `buffers.rows`, one row per pid.
    pub(super) fn read(
        &mut self,
        device: &Device<'_>,
        at: Stamp,
        believable: &mut dyn FnMut(u32) -> bool,
        buffers: &mut Buffers,
    ) -> Outcome {
        buffers.rows.clear();
        let mut outcome = Outcome::Unsupported;
        for chain in [&mut self.compute, &mut self.graphics, &mut self.mps] {
            match chain.read(device, at, believable, buffers) {
                Outcome::Complete => outcome = Outcome::Complete,
                Outcome::Unsupported => {}
                Outcome::Failed => {
                    buffers.rows.clear();
                    return Outcome::Failed;
                }
            }
        }
        merge(&mut buffers.rows);
        outcome
    }
}

#[derive(Debug)]
struct Chain {
    list: List,
    /// What to ask, best first; what the library lacks is taken out.
    order: Vec<Generation>,
    worked: bool,
    rests_until: Option<Stamp>,
}

impl Chain {
    fn new(list: List, order: [Generation; 3]) -> Self {
        Self {
            list,
            order: order.to_vec(),
            worked: false,
            rests_until: None,
        }
    }

    fn read(
        &mut self,
        device: &Device<'_>,
        at: Stamp,
        believable: &mut dyn FnMut(u32) -> bool,
        buffers: &mut Buffers,
    ) -> Outcome {
        if self.rests_until.is_some_and(|until| at < until) {
            return Outcome::Unsupported;
        }
        self.rests_until = None;
        let mut refusal = Refusal::Absent;
        let mut next = 0;
        while let Some(&generation) = self.order.get(next) {
            match fill(device, self.list, generation, &mut buffers.words) {
                Ok(count) => {
                    parse(&buffers.words, count, generation, believable, &mut buffers.rows);
                    self.worked = true;
                    return Outcome::Complete;
                }
                Err(error) => match Refusal::of(&error) {
                    Refusal::Absent => {
                        self.order.remove(next);
                    }
                    other => {
                        refusal = other;
                        next += 1;
                    }
                },
            }
        }
        match refusal {
            // What has worked and now is refused is missing, whatever the reason.
            _ if self.worked => Outcome::Failed,
            Refusal::Absent | Refusal::Unsupported => {
                self.rests_until = Some(at.plus(REST));
                Outcome::Unsupported
            }
            Refusal::Dead | Refusal::Passing => Outcome::Failed,
        }
    }
}

/// The generations to ask, best first. Drivers 535.43 to 535.86 write records of another size under the third one's
/// name, and the second one's are as they should be.
fn order(driver: Option<&str>) -> [Generation; 3] {
    let mut parts = driver.unwrap_or_default().split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(535)), Some(Ok(43..=86))) => [Generation::V2, Generation::V3, Generation::V1],
        _ => [Generation::V3, Generation::V2, Generation::V1],
    }
}

/// Fills `words`, growing it for as long as the list does not fit. Returns the number of entries.
fn fill(
    device: &Device<'_>,
    list: List,
    generation: Generation,
    words: &mut Vec<u64>,
) -> Result<usize, NvmlError> {
    grow_until_it_fits(words, ROOMY_WORDS, 0, |words| {
        raw::processes(device, list, generation, words)
    })
}

/// Calls `fill` with a larger and larger buffer, of `width` elements per entry, until the driver is content.
pub(super) fn grow_until_it_fits<T: Clone>(
    buffer: &mut Vec<T>,
    width: usize,
    blank: T,
    mut fill: impl FnMut(&mut [T]) -> Result<Filled, NvmlError>,
) -> Result<usize, NvmlError> {
    for _ in 0..ATTEMPTS {
        match fill(buffer)? {
            Filled::Entries(count) => return Ok(count),
            Filled::TooSmall(wanted) => {
                let room = (buffer.len() / width)
                    .saturating_mul(2)
                    .max(wanted.saturating_add(ROOM));
                buffer.resize(room.min(MOST) * width, blank.clone());
            }
        }
    }
    Err(NvmlError::InsufficientSize(None))
}

/// Reads `count` entries: pid (padded to 8 bytes), used bytes, and from the second generation on two instance ids.
fn parse(
    words: &[u64],
    count: usize,
    generation: Generation,
    believable: &mut dyn FnMut(u32) -> bool,
    rows: &mut Vec<Row>,
) {
    let width = match generation {
        Generation::V1 => 2,
        Generation::V2 => 3,
        Generation::V3 if is_wide(words, count, believable) => 4,
        Generation::V3 => 3,
    };
    rows.extend(words.chunks_exact(width).take(count).filter_map(|entry| {
        Some(Row {
            pid: pid(*entry.first()?),
            used_bytes: known(*entry.get(1)?),
        })
    }));
}

/// Whether the entries are 32 bytes long although they should be 24: then reading them as 24 gives pids that are
/// nobody's, and reading them as 32 does not. One entry alone reads the same either way.
fn is_wide(words: &[u64], count: usize, believable: &mut dyn FnMut(u32) -> bool) -> bool {
    let mut all_believable = |width| {
        words
            .chunks_exact(width)
            .take(count)
            .all(|entry| entry.first().is_some_and(|word| believable(pid(*word))))
    };
    count > 1 && !all_believable(3) && all_believable(4)
}

/// The pid is the first four bytes in memory; the other four are padding.
fn pid(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// One row per pid. A process may be in several lists, which then mean the same memory: the larger figure counts.
fn merge(rows: &mut Vec<Row>) {
    rows.sort_unstable_by_key(|row| row.pid);
    rows.dedup_by(|next, kept| {
        let same = next.pid == kept.pid;
        if same {
            kept.used_bytes = kept.used_bytes.max(next.used_bytes);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(pid: u32, used_bytes: Option<u64>) -> Row {
        Row { pid, used_bytes }
    }

    fn parsed(words: &[u64], count: usize, generation: Generation) -> Vec<Row> {
        let mut rows = Vec::new();
        parse(
            words,
            count,
            generation,
            &mut |pid| (100..200).contains(&pid),
            &mut rows,
        );
        rows
    }

    #[test]
    fn every_generation_has_its_width() {
        let expected = vec![row(101, Some(5)), row(102, None)];
        assert_eq!(parsed(&[101, 5, 102, u64::MAX], 2, Generation::V1), expected);
        let narrow = [101, 5, u64::MAX, 102, u64::MAX, u64::MAX, 0, 0];
        assert_eq!(parsed(&narrow, 2, Generation::V2), expected);
        assert_eq!(parsed(&narrow, 2, Generation::V3), expected);
    }

    #[test]
    fn wide_records_are_seen_through() {
        let wide = [101, 5, u64::MAX, 0, 102, u64::MAX, u64::MAX, 0, 103, 7, 1, 9];
        let expected = vec![row(101, Some(5)), row(102, None), row(103, Some(7))];
        assert_eq!(parsed(&wide, 3, Generation::V3), expected);
        assert_eq!(parsed(&wide[..4], 1, Generation::V3), vec![row(101, Some(5))]);
        // Unbelievable either way: read as documented, and left to the reader to doubt.
        let bad = [0, 5, 0, u64::MAX, 5, 0, 0, 0];
        assert_eq!(
            parsed(&bad, 2, Generation::V3),
            vec![row(0, Some(5)), row(u32::MAX, Some(5))]
        );
    }

    #[test]
    fn the_larger_figure_of_several_lists_counts() {
        let mut rows = vec![
            row(3, Some(1)),
            row(1, None),
            row(3, Some(2)),
            row(1, Some(4)),
            row(2, None),
            row(3, None),
        ];
        merge(&mut rows);
        assert_eq!(rows, [row(1, Some(4)), row(2, None), row(3, Some(2))]);
    }

    #[test]
    fn the_drivers_with_the_wrong_third_generation_are_asked_for_the_second() {
        for (driver, first) in [
            ("535.43.02", Generation::V2),
            ("535.86.10", Generation::V2),
            ("535.98", Generation::V3),
            ("535.42.01", Generation::V3),
            ("580.65", Generation::V3),
            ("garbage", Generation::V3),
            ("535", Generation::V3),
        ] {
            assert_eq!(order(Some(driver))[0], first, "{driver}");
        }
        assert_eq!(order(None)[0], Generation::V3);
    }

    #[test]
    fn the_buffer_grows_with_the_list_and_not_for_ever() {
        let mut buffer = vec![0_u8; 4];
        let mut list = 20;
        let count = grow_until_it_fits(&mut buffer, 2, 0, |buffer| {
            list += 60;
            Ok(if buffer.len() / 2 < list {
                Filled::TooSmall(list)
            } else {
                Filled::Entries(list)
            })
        });
        assert_eq!(count.ok(), Some(list));

        let mut calls = 0;
        let never = grow_until_it_fits(&mut buffer, 2, 0, |_| {
            calls += 1;
            Ok(Filled::TooSmall(usize::MAX))
        });
        assert!(matches!(never, Err(NvmlError::InsufficientSize(None))));
        assert_eq!((calls, buffer.len()), (ATTEMPTS, MOST * 2));
    }

    proptest! {
        #[test]
        fn foreign_words_never_panic(words in prop::collection::vec(any::<u64>(), 0..40), count in 0_usize..50) {
            for generation in [Generation::V1, Generation::V2, Generation::V3] {
                let mut rows = parsed(&words, count, generation);
                prop_assert!(rows.len() <= count);
                merge(&mut rows);
                prop_assert!(rows.windows(2).all(|pair| pair[0].pid < pair[1].pid));
            }
        }
    }
}
