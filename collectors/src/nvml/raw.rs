//! The few driver calls that the safe wrapper does not offer, or offers in a form that loses data: the older memory
//! and process calls, buffers that are kept, and throttle bits that the wrapper does not know.
#![expect(
    unsafe_code,
    reason = "the safe wrapper has no older memory and process calls, and no kept buffers"
)]

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, EventSet};
use nvml_wrapper_sys::bindings::{
    nvmlEventTypeXidCriticalError, nvmlMemory_t, nvmlProcessUtilizationSample_t, nvmlReturn_t,
};

/// Which of a device's process lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Compute,
    Graphics,
    Mps,
}

/// Which generation of the list calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    V1,
    V2,
    V3,
}

/// How a call that fills a buffer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many entries were written.
    Entries(usize),
    /// The buffer is too small; the driver wants room for so many entries (it may know no better than 0).
    TooSmall(usize),
}

/// `nvmlDeviceGetMemoryInfo`, whose `used` includes what the driver reserves.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<nvmlMemory_t, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the symbol comes from the library that `device` borrows, so both are alive; `memory` has the layout that
    // this call writes.
    nvml_try(unsafe { call(device.handle(), &raw mut memory) })?;
    Ok(memory)
}

/// The reasons for lowered clocks, with every bit that the driver set. Newer drivers have the call under a second name.
pub(super) fn throttle_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())
        .or_else(|_| nvml_sym(lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref()))?;
    let mut reasons = 0;
    // SAFETY: the symbol and the handle belong to the library that `device` borrows; `reasons` is a live u64.
    nvml_try(unsafe { call(device.handle(), &raw mut reasons) })?;
    Ok(reasons)
}

/// Asks for critical Xids of `device` in `set`. The wrapper's own call gives the whole set up when one device refuses.
pub(super) fn register_xid(device: &Device<'_>, set: &EventSet<'_>) -> Result<(), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceRegisterEvents.as_ref())?;
    // SAFETY: device and set are alive and of the same library; their handles are not kept beyond the call.
    nvml_try(unsafe {
        call(
            device.handle(),
            u64::from(nvmlEventTypeXidCriticalError),
            set.handle(),
        )
    })
}

/// Whether both are the same handle of one driver life. Works for a device that answers no call any more.
pub(super) fn same_device(a: &Device<'_>, b: &Device<'_>) -> bool {
    // SAFETY: the handles are only compared.
    unsafe { a.handle() == b.handle() }
}

/// Words per entry to leave room for: some 535 drivers write 32-byte records through a 24-byte interface.
pub(super) const ROOMY_WORDS: usize = 4;

/// Fills `words` with the processes of one list. `words` is a number of whole entries of [`ROOMY_WORDS`] each; how they
/// are to be read depends on the generation, see [`super::processes`].
pub(super) fn processes(
    device: &Device<'_>,
    list: List,
    generation: Generation,
    words: &mut [u64],
) -> Result<Filled, NvmlError> {
    let lib = device.nvml().lib();
    // Evaluates to the return code; every arm differs in the symbol only, and in the record type behind the pointer.
    macro_rules! fill {
        ($symbol:ident, $count:expr) => {{
            let call = nvml_sym(lib.$symbol.as_ref())?;
            // SAFETY: the symbol and the handle belong to the library that `device` borrows. The buffer holds `count`
            // entries of 32 bytes, which is the largest record any driver writes here, and u64 is aligned as its
            // fields are; every bit pattern is a valid u64.
            unsafe { call(device.handle(), $count, words.as_mut_ptr().cast()) }
        }};
    }
    into_entries(words.len() / ROOMY_WORDS, |count| {
        Ok(match (list, generation) {
            (List::Compute, Generation::V3) => fill!(nvmlDeviceGetComputeRunningProcesses_v3, count),
            (List::Compute, Generation::V2) => fill!(nvmlDeviceGetComputeRunningProcesses_v2, count),
            (List::Compute, Generation::V1) => fill!(nvmlDeviceGetComputeRunningProcesses, count),
            (List::Graphics, Generation::V3) => fill!(nvmlDeviceGetGraphicsRunningProcesses_v3, count),
            (List::Graphics, Generation::V2) => fill!(nvmlDeviceGetGraphicsRunningProcesses_v2, count),
            (List::Graphics, Generation::V1) => fill!(nvmlDeviceGetGraphicsRunningProcesses, count),
            (List::Mps, Generation::V3) => fill!(nvmlDeviceGetMPSComputeRunningProcesses_v3, count),
            (List::Mps, Generation::V2) => fill!(nvmlDeviceGetMPSComputeRunningProcesses_v2, count),
            (List::Mps, Generation::V1) => fill!(nvmlDeviceGetMPSComputeRunningProcesses, count),
        })
    })
}

/// Fills `samples` with the utilization of processes that is newer than `since_us`, a stamp of the driver's own.
pub(super) fn utilization(
    device: &Device<'_>,
    since_us: u64,
    samples: &mut [nvmlProcessUtilizationSample_t],
) -> Result<Filled, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetProcessUtilization.as_ref())?;
    into_entries(samples.len(), |count| {
        // SAFETY: the symbol and the handle belong to the library that `device` borrows; `samples` holds `count` entries.
        Ok(unsafe { call(device.handle(), samples.as_mut_ptr(), count, since_us) })
    })
}

fn into_entries(
    room: usize,
    call: impl FnOnce(*mut u32) -> Result<nvmlReturn_t, NvmlError>,
) -> Result<Filled, NvmlError> {
    let mut count = u32::try_from(room).unwrap_or(u32::MAX);
    let answer = nvml_try(call(&raw mut count)?);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    match answer {
        // A driver that claims more than there is room for has not written it.
        Ok(()) => Ok(Filled::Entries(count.min(room))),
        Err(NvmlError::InsufficientSize(_)) => Ok(Filled::TooSmall(count)),
        Err(error) => Err(error),
    }
}
