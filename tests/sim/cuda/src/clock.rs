//! The clock of CUPTI on Linux: CLOCK_REALTIME, which steps when somebody sets it. The device itself does not notice a step.
#![expect(unsafe_code, reason = "clock_gettime")]

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// How far CUPTI's clock is ahead of what it was at the start, ns.
static STEPPED: AtomicI64 = AtomicI64::new(0);

/// Somebody sets the clock.
pub(crate) fn step(by_ns: i64) {
    STEPPED.fetch_add(by_ns, Relaxed);
}

/// An instant as CUPTI shows it.
#[inline]
pub(crate) fn shown(at: u64) -> u64 {
    at.saturating_add_signed(STEPPED.load(Relaxed))
}

/// Now, ns since the Unix epoch before any step.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
