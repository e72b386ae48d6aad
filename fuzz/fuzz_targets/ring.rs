//! A ring whose every word somebody hostile chose: reading it ends, and hands out no more than a frame may hold.
#![no_main]

use std::sync::atomic::AtomicU64;

use libfuzzer_sys::fuzz_target;
use plimsoll_trace::wire::ring::{HEADER_WORDS, MOST_BYTES, Next, Reader};

fuzz_target!(|bytes: &[u8]| {
    let mut words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")))
        .collect();
    words.resize(words.len().max(HEADER_WORDS), 0);
    // Most inputs would end at the magic word.
    words[0] = u64::from_le_bytes(*b"PLIMRING");
    words[1] = 1;
    let words: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
    let Ok(mut reader) = Reader::open(&words) else { return };
    let mut buffer = Vec::new();
    let mut frames = 0;
    while reader.next(&mut buffer) != Next::Empty {
        assert!(buffer.len() <= MOST_BYTES);
        frames += 1;
        assert!(frames <= words.len() + 1);
    }
});
