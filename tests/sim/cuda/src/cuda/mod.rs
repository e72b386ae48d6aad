//! The driver's functions.
#![expect(unsafe_code, reason = "writes to the memory of C callers")]

pub(crate) mod code;
mod context_calls;
mod copy;
pub(crate) mod correlation;
pub(crate) mod device;
mod memory;
mod memory_calls;
mod pool;
pub(crate) mod start;
mod stream;
mod table;
mod vmm;
mod vmm_calls;
mod work;
mod work_calls;

use crate::cupti::subscriber::{Function, around};

/// Where the caller wants a value: null, or writable as the driver's documentation demands.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn put(&self, value: T) -> Result<(), u32> {
        if self.0.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: not null, so the caller means a place for a `T`.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

/// Does a call that a subscriber can hear of.
fn call<P>(function: &Function, params: &P, work: impl FnOnce(u32) -> Result<(), u32>) -> u32 {
    if !start::is_ready() {
        return code::NOT_INITIALIZED;
    }
    around(function, params, |correlation| code::of(work(correlation)))
}

/// Does a call that no client of this library asks about.
fn plain(work: impl FnOnce(u32) -> Result<(), u32>) -> u32 {
    if start::is_ready() {
        code::of(work(correlation::next()))
    } else {
        code::NOT_INITIALIZED
    }
}

/// Parameters as callbacks find them: the C structs that CUPTI generates for each function.
macro_rules! params {
    ($($name:ident { $($field:ident: $type:ty),* })+) => {
        $(
            #[repr(C)]
            struct $name { $($field: $type),* }
        )+
    };
}
use params;
