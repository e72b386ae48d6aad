//! Copies and fills, in the time that a PCIe 4 link and a card's memory would take.

use crate::cuda::stream::{run, wait};
use crate::record::{self, Copy};
use crate::release::kind;

/// How long a copy takes, ns: by its size alone, so that a test can know it.
pub(crate) const fn duration_ns(direction: Copy, bytes: u64) -> u64 {
    match direction {
        Copy::HostToDevice | Copy::DeviceToHost => 1_200 + bytes / 25,
        Copy::DeviceToDevice => 900 + bytes / 700,
    }
}

/// Copies; a call that is not asynchronous returns when the copy is done.
pub(crate) fn copy(direction: Copy, bytes: u64, stream: Option<usize>, correlation: u32) -> Result<(), u32> {
    let duration_ns = duration_ns(direction, bytes);
    let handle = stream.unwrap_or(0);
    run(handle, correlation, duration_ns, kind::MEMCPY, |ran| {
        record::copy(ran, direction, bytes, stream.is_some())
    })?;
    if stream.is_none() { wait(handle) } else { Ok(()) }
}

/// From one device to another. CUPTI tells of it only while other copies are recorded too.
pub(crate) fn peer(to_device: u32, bytes: u64, correlation: u32) -> Result<(), u32> {
    let duration_ns = duration_ns(Copy::HostToDevice, bytes);
    run(0, correlation, duration_ns, kind::MEMCPY2, |ran| {
        record::peer_copy(ran, to_device, bytes)
    })?;
    wait(0)
}

pub(crate) fn fill(value: u32, bytes: u64, stream: usize, correlation: u32) -> Result<(), u32> {
    let duration_ns = duration_ns(Copy::DeviceToDevice, bytes);
    run(stream, correlation, duration_ns, kind::MEMSET, |ran| {
        record::memset(ran, value, bytes)
    })
}
