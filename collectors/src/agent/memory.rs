//! The ring's memory, mapped. It is another process's, which may write into it at any moment; what it can no longer do
//! is make it smaller.
#![expect(
    unsafe_code,
    reason = "memory that is shared with another process is made of atomic words by hand"
)]

use std::os::fd::OwnedFd;
use std::slice;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;
use plimsoll_trace::wire::{Hello, ring};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};

use super::refused::Refused;

/// The size of a word.
const WORD: usize = size_of::<AtomicU64>();

/// Shared memory that cannot shrink.
#[derive(Debug)]
pub(super) struct Memory(MmapRaw);

impl Memory {
    /// Maps what came with a hello, if it is what the hello says.
    pub(super) fn map(descriptor: &OwnedFd, hello: Hello) -> Result<Self, Refused> {
        let seals = fcntl_get_seals(descriptor).map_err(|error| Refused::NoMemory(error.into()))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Refused::Unsealed);
        }
        let found = fstat(descriptor)
            .map_err(|error| Refused::NoMemory(error.into()))?
            .st_size;
        let said = u64::from(hello.bytes);
        if i64::try_from(said) != Ok(found) {
            return Err(Refused::Size { said, found });
        }
        if said > (ring::MOST_WORDS * WORD) as u64 {
            return Err(Refused::TooLarge { said });
        }
        let mapped = MmapRaw::map_raw(descriptor).map_err(Refused::NoMemory)?;
        Ok(Self(mapped))
    }

    /// The words; those that do not fill one are left out.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, at least this long, readable and writable, and lives as long as the result.
        // Its file is sealed against shrinking, so each page stays there. Nobody in this process makes anything but
        // atomic words of it, and what the other process does to them is at worst another value.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast::<AtomicU64>(), self.0.len() / WORD) }
    }
}
