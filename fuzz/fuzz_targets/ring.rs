//! A ring whose every word somebody hostile chose: reading it ends, and hands out no more than a frame may hold.
//!
//! The header is made of a few numbers, because a whole page of it is more than a fuzzer finds by itself. Its first words
//! are such that the memory is taken for a ring: what is refused before is tested in `trace/src/wire/ring.rs`.
#![no_main]

use std::sync::atomic::AtomicU64;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use plimsoll_trace::wire::Frame;
use plimsoll_trace::wire::ring::{HEADER_WORDS, MOST_BYTES, Next, Reader};

#[derive(Arbitrary, Debug)]
struct Memory {
    /// The size of the data; up to 128 KiB, so that the largest frame fits.
    log2: u8,
    read: u64,
    /// How far the writer says that it is ahead.
    ahead: u64,
    /// How many records it says were taken, and confirmed, by readers before.
    taken: u64,
    confirmed: u64,
    /// What lies where the reader begins.
    words: Vec<Word>,
}

/// One word of the data. Few arbitrary ones would be the head of a frame that is whole.
#[derive(Arbitrary, Debug)]
enum Word {
    Head { kind: u8, bytes: u16 },
    Any(u64),
}

impl Memory {
    fn words(&self) -> Vec<AtomicU64> {
        let data = 1_usize << (self.log2 % 15);
        let mut words = vec![0_u64; HEADER_WORDS + data];
        words[0] = u64::from_le_bytes(*b"PLIMRING");
        words[1] = 1;
        words[2] = data as u64;
        words[8] = self.read.wrapping_add(self.ahead);
        words[16] = self.read;
        words[17] = self.taken;
        words[18] = self.confirmed;
        for (at, word) in (0_u64..).zip(&self.words) {
            let place = self.read.wrapping_add(at) & (data as u64 - 1);
            words[HEADER_WORDS + place as usize] = match *word {
                Word::Head { kind, bytes } => (u64::from(kind % 16) << 32) | u64::from(bytes),
                Word::Any(word) => word,
            };
        }
        words.into_iter().map(AtomicU64::new).collect()
    }
}

fuzz_target!(|memory: Memory| {
    let words = memory.words();
    let mut reader = Reader::open(&words).expect("the header is one of a ring");
    assert!(reader.take_unconfirmed() <= memory.taken);
    assert_eq!(reader.take_unconfirmed(), 0, "told twice");
    let mut buffer = Vec::new();
    let mut frames = 0;
    loop {
        match reader.next(&mut buffer) {
            Next::Empty => break,
            Next::Garbage => assert!(buffer.is_empty()),
            Next::Frame(kind) => {
                assert!(buffer.len() <= MOST_BYTES);
                // What it says is the other target's matter; that it comes through here is this one's.
                drop(Frame::decode(kind, &buffer));
                reader.took(1);
            }
        }
        frames += 1;
        assert!(frames <= words.len(), "it never ends");
    }
    reader.confirm(1);
    reader.take_unconfirmed();
});
