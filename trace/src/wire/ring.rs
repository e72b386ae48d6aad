//! The ring: one writer in the engine's process, one reader in the daemon's, no lock, no system call.
//!
//! The memory is a row of 64-bit words. The first [`HEADER_WORDS`] are the header, the rest is the data. Every word is read
//! and written atomically, so nothing the other side does at the same time is undefined behaviour here: at worst a frame
//! is garbage, and a frame is checked. Positions count words since the beginning and only grow.
//!
//! | word | content |
//! |---|---|
//! | 0 | magic |
//! | 1 | version |
//! | 2 | words of data, a power of two |
//! | 8 | written: where the writer will write next |
//! | 16 | read: where the reader will read next |
//! | 17 | how many records readers have taken, since the beginning |
//! | 18 | how many of these a reader has confirmed to be stored, or counted as lost |
//!
//! A frame is one word of length and kind (bytes in the low half, kind above) and its bytes, padded to words.

use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::VERSION;

/// Words of the header; a page, so that the data begin on one.
pub const HEADER_WORDS: usize = 512;

/// The largest ring that a daemon maps: 64 MiB.
pub const MOST_WORDS: usize = 8 << 20;

/// The most bytes of one frame.
pub const MOST_BYTES: usize = 64 << 10;

const MAGIC: u64 = u64::from_le_bytes(*b"PLIMRING");
const WRITTEN: usize = 8;
const READ: usize = 16;
const TAKEN: usize = 17;
const CONFIRMED: usize = 18;

/// Memory that is not a ring that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingError {
    /// The header's first word is another.
    #[error("the shared memory is no ring of Plimsoll's")]
    Foreign,
    /// A newer agent wrote it.
    #[error("the ring is of version {0}; this daemon knows versions up to {VERSION}")]
    Newer(u64),
    /// The header and the memory's size do not agree.
    #[error("the ring says that it holds {said} words of data; its memory has room for {found}")]
    Size {
        /// What the header says.
        said: u64,
        /// What there is.
        found: u64,
    },
}

/// The writing side.
#[derive(Debug)]
pub struct Writer<'a> {
    words: &'a [AtomicU64],
    data: u64,
    /// Kept here too: what the other side does to the shared copy moves nothing.
    written: u64,
}

impl<'a> Writer<'a> {
    /// Makes a ring of zeroed memory. The data are the largest power of two of words that fits; `None` when not even two
    /// frames of the largest size would.
    #[must_use]
    pub fn create(words: &'a [AtomicU64]) -> Option<Self> {
        let room = words.len().checked_sub(HEADER_WORDS)?;
        if room < MOST_BYTES / 4 {
            return None;
        }
        let data = 1_u64 << room.ilog2();
        words[2].store(data, Ordering::Relaxed);
        words[1].store(u64::from(VERSION), Ordering::Relaxed);
        words[0].store(MAGIC, Ordering::Release);
        Some(Self {
            words,
            data,
            written: 0,
        })
    }

    /// Appends a frame if there is room; never waits. Returns whether it is in: what is not is the caller's to keep, or to
    /// count as lost.
    pub fn append(&mut self, kind: u16, bytes: &[u8]) -> bool {
        let need = 1 + bytes.len().div_ceil(8) as u64;
        let written = self.written;
        // A reader that moves its position backwards or ahead of the writer gets nothing more.
        let waiting = written.wrapping_sub(self.words[READ].load(Ordering::Acquire));
        if bytes.len() > MOST_BYTES || waiting > self.data || need > self.data - waiting {
            return false;
        }
        let put = |at: u64, word: u64| self.words[self.index(at)].store(word, Ordering::Relaxed);
        put(written, (u64::from(kind) << 32) | bytes.len() as u64);
        for (at, chunk) in (written + 1..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            put(at, u64::from_le_bytes(word));
        }
        self.written = written + need;
        self.words[WRITTEN].store(self.written, Ordering::Release);
        true
    }

    /// Where the next frame will begin.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether the reader has taken all that lies before a position.
    #[must_use]
    pub fn is_read(&self, position: u64) -> bool {
        self.words[READ].load(Ordering::Acquire) >= position
    }

    /// How full the ring is, 0..1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share of a few megabytes")]
    pub fn fill_ratio(&self) -> f64 {
        let waiting = self
            .written
            .wrapping_sub(self.words[READ].load(Ordering::Relaxed));
        waiting.min(self.data) as f64 / self.data as f64
    }

    fn index(&self, position: u64) -> usize {
        index(position, self.data)
    }
}

/// The reading side. It trusts nothing that it finds.
#[derive(Debug)]
pub struct Reader<'a> {
    words: &'a [AtomicU64],
    data: u64,
}

/// What reading found.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame of this kind; its bytes are in the buffer.
    Frame(u16),
    /// Nothing more for now.
    Empty,
    /// The positions or a length make no sense. All that was waiting is skipped.
    Garbage,
}

impl<'a> Reader<'a> {
    /// Looks at the header of memory that somebody else wrote.
    ///
    /// # Errors
    /// When it is not a ring, one of a newer version, or smaller than it says.
    pub fn open(words: &'a [AtomicU64]) -> Result<Self, RingError> {
        let word = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Acquire));
        if word(0) != MAGIC {
            return Err(RingError::Foreign);
        }
        if word(1) > u64::from(VERSION) {
            return Err(RingError::Newer(word(1)));
        }
        let found = words.len().saturating_sub(HEADER_WORDS) as u64;
        let data = word(2);
        if !data.is_power_of_two() || data > found {
            return Err(RingError::Size { said: data, found });
        }
        Ok(Self { words, data })
    }

    /// How many words wait to be read, if the writer's position can be trusted; never more than there are.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let read = self.words[READ].load(Ordering::Relaxed);
        let written = self.words[WRITTEN].load(Ordering::Acquire);
        written.wrapping_sub(read).min(self.data)
    }

    /// Takes the next frame's bytes into `buffer`.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Next {
        buffer.clear();
        let read = self.words[READ].load(Ordering::Relaxed);
        let written = self.words[WRITTEN].load(Ordering::Acquire);
        let waiting = written.wrapping_sub(read);
        if waiting == 0 {
            return Next::Empty;
        }
        let head = self.words[index(read, self.data)].load(Ordering::Relaxed);
        let length = head & u64::from(u32::MAX);
        let need = 1 + length.div_ceil(8);
        if waiting > self.data || length > MOST_BYTES as u64 || need > waiting {
            self.words[READ].store(written, Ordering::Release);
            return Next::Garbage;
        }
        for offset in 1..need {
            let word = self.words[index(read.wrapping_add(offset), self.data)].load(Ordering::Relaxed);
            buffer.extend_from_slice(&word.to_le_bytes());
        }
        buffer.truncate(usize::try_from(length).unwrap_or(0));
        self.words[READ].store(read.wrapping_add(need), Ordering::Release);
        let kind = head.to_le_bytes();
        Next::Frame(u16::from_le_bytes([kind[4], kind[5]]))
    }

    /// So many records came out of the ring, which keeps the count for a reader that comes after this one.
    pub fn took(&mut self, records: u64) {
        self.words[TAKEN].fetch_add(records, Ordering::Relaxed);
    }

    /// So many of the records that were taken are stored.
    pub fn confirm(&mut self, records: u64) {
        self.words[CONFIRMED].fetch_add(records, Ordering::Relaxed);
    }

    /// How many records were taken and never confirmed, by readers before this one; asked once, before anything is read.
    pub fn take_unconfirmed(&mut self) -> u64 {
        let taken = self.words[TAKEN].load(Ordering::Relaxed);
        taken.saturating_sub(self.words[CONFIRMED].swap(taken, Ordering::Relaxed))
    }
}

/// Which word of the memory a position is. `data` is a power of two, so the mask keeps it inside.
fn index(position: u64, data: u64) -> usize {
    HEADER_WORDS + usize::try_from(position & (data - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    const SMALL: usize = HEADER_WORDS + MOST_BYTES / 4;

    #[test]
    fn frames_come_out_as_they_went_in_all_the_way_round() {
        let memory = memory(SMALL);
        let (mut writer, mut reader) = (Writer::create(&memory).unwrap(), Reader::open(&memory).unwrap());
        let mut buffer = Vec::new();
        for round in 0..5_000_usize {
            let bytes = vec![round.to_le_bytes()[0]; round % 1_000];
            assert!(writer.append(7, &bytes));
            assert!(!writer.is_read(writer.written()));
            assert_eq!(reader.next(&mut buffer), Next::Frame(7));
            assert!(writer.is_read(writer.written()));
            assert_eq!(buffer, bytes);
        }
        assert_eq!(reader.next(&mut buffer), Next::Empty);
    }

    #[test]
    fn a_full_ring_refuses_and_goes_on() {
        let memory = memory(SMALL);
        let (mut writer, mut reader) = (Writer::create(&memory).unwrap(), Reader::open(&memory).unwrap());
        let mut accepted = 0;
        while writer.append(1, &[1; 1_000]) {
            accepted += 1;
        }
        assert!(writer.fill_ratio() > 0.98);
        assert!(!writer.append(1, &[1; 1_000]));
        let mut buffer = Vec::new();
        for _ in 0..accepted {
            assert_eq!(reader.next(&mut buffer), Next::Frame(1));
        }
        assert_eq!(reader.next(&mut buffer), Next::Empty);
        assert!(writer.append(1, &[1; 1_000]));
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused() {
        let memory = memory(SMALL * 2);
        let mut writer = Writer::create(&memory).unwrap();
        assert!(writer.append(1, &vec![0; MOST_BYTES]));
        assert!(!writer.append(1, &vec![0; MOST_BYTES + 1]));
        assert!(Writer::create(&self::memory(100)).is_none());
    }

    #[test]
    fn another_reader_goes_on_where_the_last_one_read() {
        let memory = memory(SMALL);
        let mut writer = Writer::create(&memory).unwrap();
        let mut buffer = Vec::new();
        writer.append(1, b"first");
        writer.append(1, b"second");
        assert_eq!(Reader::open(&memory).unwrap().next(&mut buffer), Next::Frame(1));
        assert_eq!(Reader::open(&memory).unwrap().next(&mut buffer), Next::Frame(1));
        assert_eq!(buffer, b"second");
    }

    #[test]
    fn what_a_reader_took_and_did_not_confirm_is_known_to_the_next() {
        let memory = memory(SMALL);
        Writer::create(&memory).unwrap();
        let mut first = Reader::open(&memory).unwrap();
        assert_eq!(first.take_unconfirmed(), 0);
        first.took(10);
        first.confirm(7);
        first.took(1);
        let mut second = Reader::open(&memory).unwrap();
        assert_eq!(second.take_unconfirmed(), 4);
        assert_eq!(second.take_unconfirmed(), 0);
        second.took(5);
        second.confirm(5);
        assert_eq!(Reader::open(&memory).unwrap().take_unconfirmed(), 0);
    }

    #[test]
    fn headers_are_checked() {
        let words = memory(SMALL);
        assert_eq!(Reader::open(&words).unwrap_err(), RingError::Foreign);
        assert_eq!(Reader::open(&[]).unwrap_err(), RingError::Foreign);
        Writer::create(&words).unwrap();
        assert_eq!(
            Reader::open(&words[..SMALL / 2]).unwrap_err(),
            RingError::Size {
                said: (MOST_BYTES / 4) as u64,
                found: (SMALL / 2 - HEADER_WORDS) as u64
            }
        );
        words[1].store(2, Ordering::Relaxed);
        assert_eq!(Reader::open(&words).unwrap_err(), RingError::Newer(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever a hostile process writes into the memory, reading ends and returns no more than a frame may hold.
        #[test]
        fn garbage_is_read_without_harm(
            head in any::<u64>(), written in any::<u64>(), read in any::<u64>(), fill in any::<u64>(),
        ) {
            let words = memory(SMALL);
            Writer::create(&words).unwrap();
            words[HEADER_WORDS..].iter().for_each(|word| word.store(fill, Ordering::Relaxed));
            let mut reader = Reader::open(&words).unwrap();
            words[READ].store(read, Ordering::Relaxed);
            words[index(read, reader.data)].store(head, Ordering::Relaxed);
            words[WRITTEN].store(written, Ordering::Relaxed);
            let mut buffer = Vec::new();
            let mut frames = 0;
            while reader.next(&mut buffer) != Next::Empty {
                prop_assert!(buffer.len() <= MOST_BYTES);
                frames += 1;
                prop_assert!(frames <= SMALL);
            }
        }
    }
}
