//! A frame of any kind with any bytes: an error at worst, and what can be read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_trace::wire::Frame;

fuzz_target!(|input: (u16, &[u8])| {
    let (kind, bytes) = input;
    if let Ok(Some(frame)) = Frame::decode(kind % 16, bytes) {
        let mut again = Vec::new();
        let kind = frame.encode(&mut again);
        assert_eq!(Frame::decode(kind, &again), Ok(Some(frame)));
    }
});
