//! The clock of CUPTI on Linux: CLOCK_REALTIME, which steps when somebody sets it.
#![expect(unsafe_code, reason = "clock_gettime")]

/// Now, ns since the Unix epoch.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
