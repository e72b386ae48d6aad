//! Another client of CUPTI in the same process, for the fault `displaced`.
#![expect(unsafe_code, reason = "a client's callbacks, with a client's buffers")]

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use crate::cupti::delivery;

const BUFFER_WORDS: usize = 8 << 10;

/// Buffers that are with CUPTI. Others that come back are somebody else's, whom this client does not know.
static HANDED_OUT: Mutex<Vec<Box<[u64]>>> = Mutex::new(Vec::new());

pub(crate) fn register() {
    delivery::register(requested, completed);
}

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, most_records: *mut usize) {
    let mut memory = vec![0_u64; BUFFER_WORDS].into_boxed_slice();
    // SAFETY: called by this library, with places that are writable.
    unsafe {
        buffer.write(memory.as_mut_ptr().cast());
        size.write(BUFFER_WORDS * 8);
        most_records.write(0);
    }
    HANDED_OUT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(memory);
}

unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, _: usize) {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    handed_out.retain(|memory| memory.as_ptr().addr() != buffer.addr());
}
