//! What CUPTI calls on the program's threads. Each does the least: it moves a buffer or a row of words, with no lock, no
//! allocation and no system call but the thread's clock and, when buffers pile up, one that wakes the agent's thread.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Thread;

use cupti_sys::constant::{driver_call, site};
use cupti_sys::{CallbackData, Functions};
use plimsoll_trace::wire::LossReason;

use crate::buffers::{Buffers, Owner};
use crate::clock;
use crate::losses::Losses;
use crate::queue::Queue;
use crate::virtual_memory::Call;

/// So many full buffers wake the agent's thread before its time.
const WAKING: usize = 4;
/// A kernel's record: what a buffer that is thrown away holds is counted in these.
const RECORD_BYTES: usize = 208;

/// What the hooks and the agent's thread share.
#[derive(Debug)]
pub(crate) struct Hooked {
    pub(crate) functions: Functions,
    pub(crate) buffers: Buffers,
    /// Calls of virtual memory: when, which, and its numbers.
    pub(crate) calls: Queue<5>,
    pub(crate) losses: Losses,
    /// Processor time spent in the hooks.
    pub(crate) hooks_ns: AtomicU64,
    /// Launches, while they are watched.
    pub(crate) launches: AtomicU64,
    /// Buffers that somebody else handed out.
    pub(crate) foreign: AtomicU64,
    pub(crate) thread: OnceLock<Thread>,
}

static HOOKED: OnceLock<Hooked> = OnceLock::new();

impl Hooked {
    pub(crate) fn new(functions: Functions, buffers: Buffers) -> Self {
        Self {
            functions,
            buffers,
            calls: Queue::new(1 << 12),
            losses: Losses::new(),
            hooks_ns: AtomicU64::new(0),
            launches: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            thread: OnceLock::new(),
        }
    }

    /// Makes it what the hooks find; there is one in a process.
    pub(crate) fn publish(self) -> &'static Self {
        HOOKED.get_or_init(|| self)
    }

    /// The next call of virtual memory and when it was, CLOCK_MONOTONIC.
    pub(crate) fn next_call(&self) -> Option<(u64, Call)> {
        let [at_ns, call, a, b, c] = self.calls.pop()?;
        let call = match u32::try_from(call).ok()? {
            driver_call::MEM_ADDRESS_RESERVE => Call::Reserve { address: a, bytes: b },
            driver_call::MEM_ADDRESS_FREE => Call::Free { address: a },
            driver_call::MEM_CREATE => Call::Create {
                handle: a,
                bytes: b,
                device: u32::try_from(c).unwrap_or(0),
            },
            driver_call::MEM_RELEASE => Call::Release { handle: a },
            driver_call::MEM_MAP => Call::Map {
                address: a,
                bytes: b,
                handle: c,
            },
            _ => Call::Unmap { address: a, bytes: b },
        };
        Some((at_ns, call))
    }
}

/// Runs a hook: it finds what it shares, its processor time is counted, and no panic leaves it. (Time that passes would count
/// what other programs do on a busy machine.)
fn hook(work: impl FnOnce(&'static Hooked)) {
    let Some(hooked) = HOOKED.get() else { return };
    let began = clock::thread();
    // A hook that panicked did nothing; that is seen as a loss later.
    let _caught = catch_unwind(AssertUnwindSafe(|| work(hooked)));
    let spent = clock::thread().saturating_sub(began);
    hooked.hooks_ns.fetch_add(spent, Relaxed);
}

/// CUPTI needs a buffer.
pub(crate) extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    hook(|hooked| {
        let (start, bytes) = hooked.buffers.take();
        // SAFETY: CUPTI passes three places to write to.
        unsafe {
            *buffer = start;
            *size = bytes;
            *max_records = 0;
        }
    });
}

/// CUPTI brings a buffer back.
pub(crate) extern "C" fn complete(
    context: *mut c_void,
    stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    hook(|hooked| {
        match hooked.buffers.complete(buffer, valid) {
            Owner::Ours if hooked.buffers.waiting() >= WAKING => {
                hooked.thread.get().inspect(|thread| thread.unpark());
            }
            Owner::Ours => {}
            Owner::Discarded => {
                let records = (valid / RECORD_BYTES).max(1);
                hooked.losses.add(LossReason::NoBuffer, records as u64);
            }
            Owner::Foreign => {
                hooked.foreign.fetch_add(1, Relaxed);
            }
        }
        // SAFETY: the context is the one that CUPTI is calling about, so it is live.
        if let Ok(dropped) = unsafe { hooked.functions.dropped_records(context, stream) } {
            hooked.losses.add(LossReason::DroppedByCupti, dropped);
        }
    });
}

/// The program made a call that is observed.
pub(crate) extern "C" fn on_call(_user: *mut c_void, _domain: u32, call: u32, data: *const CallbackData) {
    // SAFETY: CUPTI passes its data, which live for the length of this call.
    let Some(data) = (unsafe { data.as_ref() }) else {
        return;
    };
    if LAUNCH_CALLS.contains(&call) {
        // Too many to look at the clock for each.
        if let Some(hooked) = HOOKED.get().filter(|_| data.site == site::ENTER) {
            hooked.launches.fetch_add(1, Relaxed);
        }
        return;
    }
    hook(|hooked| {
        // SAFETY: the data are those of a call of this number.
        if let Some([a, b, c]) = unsafe { numbers(call, data) }
            && !hooked.calls.push([clock::monotonic(), call.into(), a, b, c])
        {
            hooked.losses.add(LossReason::QueueFull, 1);
        }
    });
}

/// The calls of virtual memory.
pub(crate) const VIRTUAL_MEMORY_CALLS: [u32; 6] = [
    driver_call::MEM_ADDRESS_RESERVE,
    driver_call::MEM_ADDRESS_FREE,
    driver_call::MEM_CREATE,
    driver_call::MEM_RELEASE,
    driver_call::MEM_MAP,
    driver_call::MEM_UNMAP,
];

/// The calls that give the GPU work.
pub(crate) const LAUNCH_CALLS: [u32; 6] = [
    driver_call::LAUNCH_KERNEL,
    driver_call::LAUNCH_KERNEL_PTSZ,
    driver_call::LAUNCH_KERNEL_EX,
    driver_call::LAUNCH_KERNEL_EX_PTSZ,
    driver_call::GRAPH_LAUNCH,
    driver_call::GRAPH_LAUNCH_PTSZ,
];

/// The parameters of the calls, as `generated_cuda_meta.h` declares them.
mod parameters {
    #[repr(C)]
    pub(super) struct Reserve {
        pub(super) address: *const u64,
        pub(super) bytes: usize,
    }

    #[repr(C)]
    pub(super) struct Range {
        pub(super) address: u64,
        pub(super) bytes: usize,
    }

    #[repr(C)]
    pub(super) struct Create {
        pub(super) handle: *const u64,
        pub(super) bytes: usize,
        pub(super) properties: *const Properties,
    }

    /// `CUmemAllocationProp`.
    #[repr(C)]
    pub(super) struct Properties {
        pub(super) allocation_type: u32,
        pub(super) handle_types: u32,
        pub(super) location_type: u32,
        pub(super) location: i32,
    }

    #[repr(C)]
    pub(super) struct Release {
        pub(super) handle: u64,
    }

    #[repr(C)]
    pub(super) struct Map {
        pub(super) address: u64,
        pub(super) bytes: usize,
        pub(super) offset: usize,
        pub(super) handle: u64,
    }
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: u32 = 1;

/// What matters of a call of virtual memory that has succeeded.
///
/// # Safety
/// The data must be those that CUPTI passes for a call of this number.
unsafe fn numbers(call: u32, data: &CallbackData) -> Option<[u64; 3]> {
    use parameters::{Create, Map, Range, Release, Reserve};
    // SAFETY: on exit it is null or points at the call's CUresult.
    let returned = unsafe { data.returned.cast::<u32>().as_ref() };
    if data.site != site::EXIT || returned != Some(&0) || data.parameters.is_null() {
        return None;
    }
    let parameters = data.parameters;
    // SAFETY: the parameters are the struct of this call's number, and where a call that succeeded wrote a result, it
    // was told a place to write to, which is still there at its exit.
    unsafe {
        Some(match call {
            driver_call::MEM_ADDRESS_RESERVE => {
                let reserve = &*parameters.cast::<Reserve>();
                [*reserve.address.as_ref()?, reserve.bytes as u64, 0]
            }
            driver_call::MEM_CREATE => {
                let create = &*parameters.cast::<Create>();
                let properties = create.properties.as_ref()?;
                // Memory of the host that is made this way is none of the device's.
                let device = u64::try_from(properties.location)
                    .ok()
                    .filter(|_| properties.location_type == ON_DEVICE)?;
                [*create.handle.as_ref()?, create.bytes as u64, device]
            }
            driver_call::MEM_RELEASE => [(*parameters.cast::<Release>()).handle, 0, 0],
            driver_call::MEM_MAP => {
                let map = &*parameters.cast::<Map>();
                [map.address, map.bytes as u64, map.handle]
            }
            driver_call::MEM_ADDRESS_FREE | driver_call::MEM_UNMAP => {
                let range = &*parameters.cast::<Range>();
                [range.address, range.bytes as u64, 0]
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(site: u32, parameters: *const c_void, returned: &u32) -> CallbackData {
        CallbackData {
            site,
            function_name: std::ptr::null(),
            parameters,
            returned: std::ptr::from_ref(returned).cast(),
            symbol_name: std::ptr::null(),
            context: std::ptr::null_mut(),
            context_uid: 0,
            correlation_data: std::ptr::null_mut(),
            correlation_id: 0,
        }
    }

    #[test]
    fn calls_that_succeeded_are_read_and_no_others() {
        let handle = 77_u64;
        let properties = parameters::Properties {
            allocation_type: 1,
            handle_types: 0,
            location_type: ON_DEVICE,
            location: 3,
        };
        let create = parameters::Create {
            handle: &raw const handle,
            bytes: 4096,
            properties: &raw const properties,
        };
        let read = |site, returned: u32| {
            let data = data(site, (&raw const create).cast(), &returned);
            // SAFETY: the parameters are those of this call.
            unsafe { numbers(driver_call::MEM_CREATE, &data) }
        };
        assert_eq!(read(site::EXIT, 0), Some([77, 4096, 3]));
        assert_eq!(read(site::EXIT, 2), None);
        assert_eq!(read(site::ENTER, 0), None);
    }

    #[test]
    fn an_unknown_call_is_nothing() {
        let words = [0_u64; 8];
        let data = data(site::EXIT, words.as_ptr().cast(), &0);
        // SAFETY: no parameters of such a call are read.
        assert_eq!(unsafe { numbers(9_999, &data) }, None);
    }
}
