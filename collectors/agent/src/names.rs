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
mod tests;
