//! Names and their numbers. A number travels with every period, its text only once.
//!
//! A program that goes on making new kernels does not use the numbers up: names that were not seen for long are forgotten,
//! and their numbers stand for others then. Only those whose every mention the daemon has read: whoever reads the ring
//! knows each number by the text that was told before it.

use std::collections::{BTreeSet, HashMap, HashSet};

use plimsoll_trace::wire::{Frame, MAX_NAME};

use crate::buffers::MOST_RECORDS;

/// So many names at most. Engines have hundreds.
pub(crate) const MOST: usize = 12_288;
/// From so many on the next buffer may have more new names than there is room for.
const CROWDED: usize = MOST - MOST_RECORDS;
/// So many stay when others are forgotten.
const KEPT: usize = 4096;

/// All texts together, bytes: at most, and from where on they are too many.
const MOST_BYTES: usize = 16 << 20;
const CROWDED_BYTES: usize = 8 << 20;
const KEPT_BYTES: usize = 4 << 20;

/// So much of a name is looked at.
const LONGEST: usize = 128 << 10;

/// What tells two texts apart: their length and a hash of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    length: u32,
    hash: u64,
}

impl Fingerprint {
    pub(crate) fn of(text: &[u8]) -> Self {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
        let (words, rest) = text.as_chunks::<8>();
        let hash = words
            .iter()
            .fold(ODD, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        Self {
            length: u32::try_from(text.len()).unwrap_or(u32::MAX),
            hash: mix(hash, u64::from_le_bytes(last)),
        }
    }
}

/// The names in use.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_text: HashMap<Fingerprint, u32>,
    /// By number; `None` for a number that is free.
    names: Vec<Option<Name>>,
    free: Vec<u32>,
    untold: BTreeSet<u32>,
    bytes: usize,
}

#[derive(Debug)]
struct Name {
    text: Box<[u8]>,
    fingerprint: Fingerprint,
    /// Behind the last frame that has its number, in the ring.
    mentioned: u64,
}

impl Names {
    /// The number of a text; `None` when there are too many. Texts longer than [`MAX_NAME`] are cut, but two that differ
    /// behind the cut stay two.
    pub(crate) fn number(&mut self, text: &[u8]) -> Option<u32> {
        let fingerprint = Fingerprint::of(text);
        if let Some(number) = self.by_text.get(&fingerprint) {
            return Some(*number);
        }
        let text = &text[..text.len().min(MAX_NAME)];
        if self.by_text.len() >= MOST || self.bytes + text.len() > MOST_BYTES {
            return None;
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.names.push(None);
                u32::try_from(self.names.len() - 1).ok()?
            }
        };
        self.bytes += text.len();
        self.names[number as usize] = Some(Name {
            text: text.into(),
            fingerprint,
            mentioned: 0,
        });
        self.by_text.insert(fingerprint, number);
        self.untold.insert(number);
        Some(number)
    }

    /// Whether a text is the one of this number.
    pub(crate) fn is(&self, number: u32, text: &[u8]) -> bool {
        self.get(number)
            .is_some_and(|name| name.fingerprint == Fingerprint::of(text))
    }

    fn get(&self, number: u32) -> Option<&Name> {
        self.names.get(number as usize)?.as_ref()
    }

    /// Hands each name to `tell` that has not been told, until it refuses one.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(&Frame) -> bool) {
        while let Some(id) = self.untold.first().copied() {
            let name = self.get(id).map_or_else(Vec::new, |name| name.text.to_vec());
            if !tell(&Frame::Name { id, name }) {
                return;
            }
            self.untold.remove(&id);
        }
    }

    /// There is a new listener, who knows none.
    pub(crate) fn tell_again(&mut self) {
        self.untold = self.by_text.values().copied().collect();
    }

    /// A frame was told that ends at this position of the ring.
    pub(crate) fn mentioned(&mut self, frame: &Frame, position: u64) {
        let mut mention = |number: u32| {
            if let Some(Some(name)) = self.names.get_mut(number as usize) {
                name.mentioned = position;
            }
        };
        match frame {
            Frame::Kernels(kernels) => kernels.stats.iter().for_each(|stats| mention(stats.name)),
            Frame::Spans(spans) => spans.spans.iter().for_each(|span| mention(span.name)),
            _ => {}
        }
    }

    /// Whether the next buffer may have more new names than there is room for.
    pub(crate) fn are_crowded(&self) -> bool {
        self.by_text.len() > CROWDED || self.bytes > CROWDED_BYTES
    }

    /// Forgets those that were not mentioned for longest, until enough are gone: of those that are not `in_use` and whose
    /// mentions are all read. Returns their numbers.
    pub(crate) fn forget(&mut self, in_use: &HashSet<u32>, is_read: impl Fn(u64) -> bool) -> HashSet<u32> {
        let numbered = (0_u32..).zip(&self.names);
        let mut oldest: Vec<_> = numbered
            .filter_map(|(number, name)| Some((name.as_ref()?.mentioned, number)))
            .filter(|(mentioned, number)| {
                !in_use.contains(number) && !self.untold.contains(number) && is_read(*mentioned)
            })
            .collect();
        oldest.sort_unstable();
        let mut forgotten = HashSet::new();
        for (_, number) in oldest {
            if self.by_text.len() <= KEPT && self.bytes <= KEPT_BYTES {
                break;
            }
            if let Some(name) = self.names[number as usize].take() {
                self.by_text.remove(&name.fingerprint);
                self.bytes -= name.text.len();
                self.free.push(number);
                forgotten.insert(number);
            }
        }
        forgotten
    }
}

/// The text at an address that CUPTI gave. Whatever its bytes are, it is a name.
///
/// # Safety
/// `address` must be that of a C string, which nobody writes to or frees during `'a`, or 0.
pub(crate) unsafe fn text_at<'a>(address: u64) -> &'a [u8] {
    // What lies on the first page is no address.
    if address < 4096 {
        return b"(unnamed)";
    }
    let start = std::ptr::with_exposed_provenance::<u8>(usize::try_from(address).unwrap_or(0));
    // SAFETY: the caller vouches that a zero ends it.
    let length = unsafe { libc::strnlen(start.cast(), LONGEST) };
    // SAFETY: so many bytes were just read.
    unsafe { std::slice::from_raw_parts(start, length) }
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::wire::{KernelStats, Kernels};

    use super::*;

    #[test]
    fn a_text_has_one_number() {
        let mut names = Names::default();
        assert_eq!(names.number(b"first"), Some(0));
        assert_eq!(names.number(b"\xff\xfe"), Some(1));
        assert_eq!(names.number(b"first"), Some(0));
        assert_eq!(names.number(b""), Some(2));
        assert!(
            names.is(0, b"first") && !names.is(0, b"firsts") && !names.is(1, b"first") && !names.is(9, b"")
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let mut names = Names::default();
        let long = |last: u8| [vec![b'n'; 64 << 10], vec![last]].concat();
        assert_eq!(names.number(&long(b'a')), Some(0));
        assert_eq!(names.number(&long(b'b')), Some(1));
        let mut lengths = Vec::new();
        names.tell(|frame| {
            let Frame::Name { name, .. } = frame else {
                return false;
            };
            lengths.push(name.len());
            true
        });
        assert_eq!(lengths, [MAX_NAME, MAX_NAME]);
    }

    #[test]
    fn there_is_an_end_to_new_names_and_none_to_old_ones() {
        let mut names = Names::default();
        for number in 0..MOST {
            assert!(names.number(format!("kernel_{number}").as_bytes()).is_some());
        }
        assert_eq!(names.number(b"one more"), None);
        assert_eq!(names.number(b"kernel_7"), Some(7));
        assert!(names.are_crowded());
    }

    #[test]
    fn long_texts_are_bounded_by_their_bytes() {
        let mut names = Names::default();
        let long = |number: usize| format!("{number:0MAX_NAME$}");
        let taken = (0..).take_while(|number| names.number(long(*number).as_bytes()).is_some());
        assert_eq!(taken.count(), MOST_BYTES / MAX_NAME);
        names.tell(|_| true);
        names.forget(&HashSet::new(), |_| true);
        assert_eq!(names.by_text.len(), KEPT_BYTES / MAX_NAME);
    }

    fn mention(names: &mut Names, number: u32, position: u64) {
        let stats = vec![KernelStats {
            name: number,
            ..KernelStats::default()
        }];
        let frame = Frame::Kernels(Kernels {
            start_ns: 0,
            end_ns: 0,
            stats,
        });
        names.mentioned(&frame, position);
    }

    #[test]
    fn what_was_not_seen_for_longest_is_forgotten_once_all_of_it_is_read() {
        let mut names = Names::default();
        let all = u32::try_from(KEPT).unwrap() + 10;
        for number in 0..all {
            names.number(format!("kernel_{number}").as_bytes());
            mention(&mut names, number, 100 + u64::from(number));
        }
        let nobody = HashSet::new();
        assert!(
            names.forget(&nobody, |_| true).is_empty(),
            "nobody knows them yet"
        );
        names.tell(|_| true);
        mention(&mut names, 0, 9_000);
        // 1 is in use, and from 8 on nothing is read.
        let in_use = HashSet::from([1]);
        let forgotten = names.forget(&in_use, |position| position < 108);
        assert_eq!(forgotten, (2..8).collect());
        assert!(!names.is(2, b"kernel_2") && names.is(1, b"kernel_1"));
        let rest = names.forget(&nobody, |_| true);
        assert_eq!(rest, HashSet::from([1, 8, 9, 10]));

        // What is seen again is told again, under a number that was free.
        let again = names.number(b"kernel_2").unwrap();
        assert!(again < all, "{again}");
        let mut told = Vec::new();
        names.tell(|frame| {
            told.push(frame.clone());
            true
        });
        let name = b"kernel_2".to_vec();
        assert_eq!(told, [Frame::Name { id: again, name }]);
    }

    #[test]
    fn names_are_told_once_to_each_listener_and_again_when_refused() {
        let mut names = Names::default();
        (0..3_u8).for_each(|name| assert!(names.number(&[name]).is_some()));
        let mut told = Vec::new();
        let mut tell = |names: &mut Names, most: usize| {
            told.clear();
            names.tell(|frame| {
                let Frame::Name { id, .. } = frame else {
                    return false;
                };
                told.push(*id);
                told.len() <= most
            });
            told.clone()
        };
        assert_eq!(tell(&mut names, 1), [0, 1]);
        assert_eq!(tell(&mut names, 9), [1, 2]);
        assert!(tell(&mut names, 9).is_empty());
        names.tell_again();
        assert_eq!(tell(&mut names, 9), [0, 1, 2]);
    }

    #[test]
    fn a_text_ends_at_its_zero_or_where_nobody_would_read_on() {
        let long = vec![b'x'; LONGEST + 10];
        let mut long = long;
        long.push(0);
        // SAFETY: both are C strings that live on.
        let (short, long) = unsafe {
            (
                text_at(c"abc".as_ptr().expose_provenance() as u64),
                text_at(long.as_ptr().expose_provenance() as u64),
            )
        };
        assert_eq!((short, long.len()), (&b"abc"[..], LONGEST));
        // SAFETY: nothing is read at 0.
        assert_eq!(unsafe { text_at(0) }, b"(unnamed)");
    }
}
