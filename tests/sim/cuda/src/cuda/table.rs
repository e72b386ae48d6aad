//! Functions and graphs by their handles.
#![expect(unsafe_code, reason = "what is in a table is never given back")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32};

use crate::cuda::code;

/// Things that are made once and never given back, each with a handle that is its place plus one.
pub(crate) struct Table<T, const ROOM: usize> {
    places: [AtomicPtr<T>; ROOM],
    taken: AtomicU32,
}

impl<T: Sync, const ROOM: usize> Table<T, ROOM> {
    pub(crate) const fn new() -> Self {
        Self {
            places: [const { AtomicPtr::new(std::ptr::null_mut()) }; ROOM],
            taken: AtomicU32::new(0),
        }
    }

    pub(crate) fn add(&self, thing: T) -> Result<usize, u32> {
        let place = self.taken.fetch_add(1, Relaxed) as usize;
        let cell = self.places.get(place).ok_or(code::OUT_OF_MEMORY)?;
        cell.store(Box::into_raw(Box::new(thing)), Release);
        Ok(place + 1)
    }

    #[inline]
    pub(crate) fn get(&self, handle: usize) -> Result<&'static T, u32> {
        let cell = self
            .places
            .get(handle.wrapping_sub(1))
            .ok_or(code::INVALID_HANDLE)?;
        // SAFETY: null, or made by `add` of a box that nobody frees, and published with Release.
        unsafe { cell.load(Acquire).as_ref() }.ok_or(code::INVALID_HANDLE)
    }
}
