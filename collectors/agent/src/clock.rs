//! The clocks, ns. They are read here only.

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic() -> u64 {
    read(ClockId::Monotonic)
}

/// CLOCK_REALTIME, which steps when somebody sets it.
pub(crate) fn realtime() -> u64 {
    read(ClockId::Realtime)
}

/// The processor time of the calling thread.
pub(crate) fn thread() -> u64 {
    read(ClockId::ThreadCPUTime)
}
