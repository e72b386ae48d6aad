//! The number of each call, by which records that belong to it are found.

use std::cell::Cell;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

thread_local! {
    /// Numbers of calls that this thread may still give.
    static CORRELATIONS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Numbers that a thread takes at once.
const CORRELATIONS_AT_ONCE: u32 = 1024;

/// The next call's number.
#[inline]
pub(crate) fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let more = || NEXT.fetch_add(CORRELATIONS_AT_ONCE, Relaxed);
    CORRELATIONS
        .try_with(|cell| {
            let (mut number, mut end) = cell.get();
            if number == end {
                number = more();
                end = number.wrapping_add(CORRELATIONS_AT_ONCE);
            }
            cell.set((number.wrapping_add(1), end));
            number
        })
        .unwrap_or_else(|_| more())
}
