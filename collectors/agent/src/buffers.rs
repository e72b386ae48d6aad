//! The memory that CUPTI writes records into.
//!
//! Address space for all buffers is reserved once. The lowest free one is always handed out, so that only as many are ever
//! touched as are in use at once, and those that will be are touched beforehand: CUPTI asks on the program's threads, and
//! nothing there waits for a page, takes a lock or makes a system call. Zeroing is done here too, on the agent's thread.

use std::ffi::c_void;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::queue::Queue;

/// One buffer: about 5,000 kernels.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// The most kernels in one: their records are never shorter.
pub(crate) const MOST_RECORDS: usize = BUFFER_BYTES / 200;

/// So many buffers at most; more are handed out only to be thrown away.
pub(crate) const MOST: usize = 256;

/// Handed out when there is no other: CUPTI before 12.9 can crash when it gets none. Never read.
const DISCARDED_BYTES: usize = 64 << 10;

/// A buffer that came back, with records in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) start: *mut u8,
    pub(crate) valid: usize,
}

/// Whose a buffer that came back is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Ours; it waits to be read.
    Ours,
    /// The one that is thrown away.
    Discarded,
    /// Somebody else's: two profilers get each other's buffers.
    Foreign,
}

/// All buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: *mut u8,
    /// A bit for each that is free.
    free: [AtomicU64; MOST / 64],
    /// A bit for each that has been handed out since its pages were last given back.
    touched: [AtomicU64; MOST / 64],
    /// So many keep their pages.
    kept: usize,
    completed: Queue<2>,
    /// How many were handed out since this was last asked.
    requests: AtomicUsize,
}

// SAFETY: the memory is reached through what `take` and `next_completed` hand out, each buffer to one owner at a time.
unsafe impl Send for Buffers {}
// SAFETY: as above; everything else is atomic.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Reserves the address space and touches the first `kept` buffers.
    pub(crate) fn reserve(kept: usize) -> io::Result<Self> {
        let length = MOST * BUFFER_BYTES + DISCARDED_BYTES;
        // SAFETY: a new mapping, placed by the system, disturbs nobody.
        let memory = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?
        .cast::<u8>();
        for page in (0..kept * BUFFER_BYTES).step_by(4096) {
            // SAFETY: inside the mapping, which nobody else knows yet.
            unsafe { memory.add(page).write_volatile(0) };
        }
        Ok(Self {
            memory,
            free: [const { AtomicU64::new(u64::MAX) }; MOST / 64],
            touched: [const { AtomicU64::new(0) }; MOST / 64],
            kept,
            completed: Queue::new(2 * MOST),
            requests: AtomicUsize::new(0),
        })
    }

    /// Hands out a zeroed buffer and its size. Any thread; never waits, never refuses.
    pub(crate) fn take(&self) -> (*mut u8, usize) {
        self.requests.fetch_add(1, Relaxed);
        for (group, bits) in self.free.iter().enumerate() {
            let mut free = bits.load(Acquire);
            while free != 0 {
                let bit = free & free.wrapping_neg();
                match bits.compare_exchange_weak(free, free & !bit, AcqRel, Acquire) {
                    Ok(_) => {
                        self.touched[group].fetch_or(bit, Relaxed);
                        let index = group * 64 + bit.trailing_zeros() as usize;
                        return (self.start_of(index), BUFFER_BYTES);
                    }
                    Err(now) => free = now,
                }
            }
        }
        (self.start_of(MOST), DISCARDED_BYTES)
    }

    /// Takes a buffer back with so many valid bytes in it. Any thread; never waits.
    pub(crate) fn complete(&self, start: *mut u8, valid: usize) -> Owner {
        let offset = start.addr().wrapping_sub(self.memory.addr());
        if offset == MOST * BUFFER_BYTES {
            return Owner::Discarded;
        }
        let index = offset / BUFFER_BYTES;
        if index >= MOST || !offset.is_multiple_of(BUFFER_BYTES) || self.is_free(index) {
            return Owner::Foreign;
        }
        let valid = valid.min(BUFFER_BYTES);
        if valid == 0 || !self.completed.push([index as u64, valid as u64]) {
            // Nothing was written, or more came back than exist, which only a broken library does.
            self.release(index, valid);
        }
        Owner::Ours
    }

    /// How many wait to be read.
    pub(crate) fn waiting(&self) -> usize {
        self.completed.waiting()
    }

    /// Whether there is one that has not come back, or waits to be read.
    pub(crate) fn are_out(&self) -> bool {
        self.free.iter().any(|bits| bits.load(Acquire) != u64::MAX)
    }

    /// How many were asked for since this was last asked.
    pub(crate) fn take_requests(&self) -> usize {
        self.requests.swap(0, Relaxed)
    }

    /// The next buffer to read. It is the caller's until [`Buffers::give_back`].
    pub(crate) fn next_completed(&self) -> Option<Completed> {
        let [index, valid] = self.completed.pop()?;
        Some(Completed {
            start: self.start_of(usize::try_from(index).unwrap_or(MOST)),
            valid: usize::try_from(valid).unwrap_or(0),
        })
    }

    /// Zeroes a buffer that was read and makes it free.
    pub(crate) fn give_back(&self, completed: Completed) {
        let index = completed.start.addr().wrapping_sub(self.memory.addr()) / BUFFER_BYTES;
        self.release(index, completed.valid);
    }

    /// Gives the pages of buffers back that a burst needed and nobody uses now.
    pub(crate) fn trim(&self) {
        for index in self.kept..MOST {
            let (group, bit) = (index / 64, 1_u64 << (index % 64));
            let idle = self.free[group].load(Relaxed) & self.touched[group].load(Relaxed) & bit != 0;
            if !idle || self.free[group].fetch_and(!bit, AcqRel) & bit == 0 {
                continue;
            }
            let start = self.start_of(index).cast::<c_void>();
            // SAFETY: the buffer is inside the mapping, and taken by the line above. Its pages come back zeroed.
            if unsafe { madvise(start, BUFFER_BYTES, Advice::LinuxDontNeed) }.is_ok() {
                self.touched[group].fetch_and(!bit, Relaxed);
            }
            self.free[group].fetch_or(bit, Release);
        }
    }

    fn release(&self, index: usize, valid: usize) {
        // What CUPTI began to write beyond what it calls valid goes too, as far as a record may reach.
        let dirty = (valid + 4096).min(BUFFER_BYTES);
        // SAFETY: the buffer is inside the mapping and not free, so nobody else has it.
        unsafe { ptr::write_bytes(self.start_of(index), 0, dirty) };
        self.free[index / 64].fetch_or(1 << (index % 64), Release);
    }

    fn is_free(&self, index: usize) -> bool {
        self.free[index / 64].load(Acquire) & (1 << (index % 64)) != 0
    }

    fn start_of(&self, index: usize) -> *mut u8 {
        self.memory.wrapping_add(index.min(MOST) * BUFFER_BYTES)
    }
}

#[cfg(test)]
impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is the test's own, and nothing of it is in use any more.
        let _unmapped =
            unsafe { rustix::mm::munmap(self.memory.cast(), MOST * BUFFER_BYTES + DISCARDED_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_buffer_is_handed_out_and_comes_back_zeroed() {
        let buffers = Buffers::reserve(1).unwrap();
        let (first, size) = buffers.take();
        let (second, _) = buffers.take();
        assert_eq!((size, second.addr() - first.addr()), (BUFFER_BYTES, BUFFER_BYTES));
        assert!(first.addr().is_multiple_of(8));
        // SAFETY: the buffer was handed out, and this test is alone.
        unsafe { ptr::write_bytes(first, 7, 5_000) };
        assert_eq!(buffers.complete(first, 5_000), Owner::Ours);
        assert_eq!(buffers.waiting(), 1);
        let completed = buffers.next_completed().unwrap();
        assert_eq!((completed.start, completed.valid), (first, 5_000));
        buffers.give_back(completed);
        let (again, _) = buffers.take();
        assert_eq!(again, first);
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(again, BUFFER_BYTES) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(buffers.take_requests(), 3);
    }

    #[test]
    fn when_all_are_out_there_is_one_to_throw_away() {
        let buffers = Buffers::reserve(0).unwrap();
        let all: Vec<_> = (0..MOST).map(|_| buffers.take().0).collect();
        let (discarded, size) = buffers.take();
        assert_eq!(size, DISCARDED_BYTES);
        assert!(!all.contains(&discarded));
        assert_eq!(buffers.complete(discarded, 100), Owner::Discarded);
        for start in all {
            assert_eq!(buffers.complete(start, 8), Owner::Ours);
        }
        assert_eq!(buffers.waiting(), MOST);
        while let Some(completed) = buffers.next_completed() {
            buffers.give_back(completed);
        }
        buffers.trim();
        assert_eq!(buffers.take().1, BUFFER_BYTES);
    }

    #[test]
    fn what_is_not_ours_is_noticed() {
        let buffers = Buffers::reserve(0).unwrap();
        let (ours, _) = buffers.take();
        let mut elsewhere = 0_u64;
        assert_eq!(buffers.complete((&raw mut elsewhere).cast(), 8), Owner::Foreign);
        assert_eq!(buffers.complete(ours.wrapping_add(8), 8), Owner::Foreign);
        assert_eq!(
            buffers.complete(ours.wrapping_add(BUFFER_BYTES), 8),
            Owner::Foreign
        );
        assert_eq!(buffers.complete(ours, 0), Owner::Ours);
        // It is free again: whoever brings it a second time did not get it from us.
        assert_eq!(buffers.complete(ours, 0), Owner::Foreign);
        assert_eq!(buffers.waiting(), 0);
    }
}
