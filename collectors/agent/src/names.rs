//! Names and their numbers. Each text has one number, for ever; a number travels with every period, its text only once.

use std::collections::HashMap;

use plimsoll_trace::wire::{Frame, MAX_NAME};

/// So many names at most. Engines have hundreds.
pub(crate) const MOST: usize = 4096;

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

/// All names so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_text: HashMap<Fingerprint, u32>,
    /// By number.
    names: Vec<Name>,
    /// All before this number have been told.
    told: usize,
}

#[derive(Debug)]
struct Name {
    text: Box<[u8]>,
    fingerprint: Fingerprint,
}

impl Names {
    /// The number of a text; `None` when there are too many. Texts longer than [`MAX_NAME`] are cut, but two that differ
    /// behind the cut stay two.
    pub(crate) fn number(&mut self, text: &[u8]) -> Option<u32> {
        let fingerprint = Fingerprint::of(text);
        if let Some(number) = self.by_text.get(&fingerprint) {
            return Some(*number);
        }
        if self.names.len() >= MOST {
            return None;
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(Name {
            text: text[..text.len().min(MAX_NAME)].into(),
            fingerprint,
        });
        self.by_text.insert(fingerprint, number);
        Some(number)
    }

    /// Whether a text is the one of this number.
    pub(crate) fn is(&self, number: u32, text: &[u8]) -> bool {
        let name = self.names.get(number as usize);
        name.is_some_and(|name| name.fingerprint == Fingerprint::of(text))
    }

    /// Hands each name to `tell` that has not been told, until it refuses one.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(&Frame) -> bool) {
        while let Some(name) = self.names.get(self.told) {
            let frame = Frame::Name {
                id: u32::try_from(self.told).unwrap_or(u32::MAX),
                name: name.text.to_vec(),
            };
            if !tell(&frame) {
                return;
            }
            self.told += 1;
        }
    }

    /// There is a new listener, who knows none.
    pub(crate) const fn tell_again(&mut self) {
        self.told = 0;
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
