//! Calls of the driver that are observed: which, and what their parameters say.

use cupti_sys::CallbackData;
use cupti_sys::constant::{driver_call, site};

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

/// The calls that take memory and leave a record of it.
pub(crate) const ALLOCATION_CALLS: [u32; 5] = [
    driver_call::MEM_ALLOC_V2,
    driver_call::MEM_ALLOC_ASYNC,
    driver_call::MEM_ALLOC_ASYNC_PTSZ,
    driver_call::MEM_ALLOC_FROM_POOL_ASYNC,
    driver_call::MEM_ALLOC_FROM_POOL_ASYNC_PTSZ,
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

/// Whether this is the end of a call that succeeded.
///
/// # Safety
/// The data must be those that CUPTI passes for a call of the driver's.
pub(crate) unsafe fn has_succeeded(data: &CallbackData) -> bool {
    // SAFETY: on exit it is null or points at the call's CUresult.
    data.site == site::EXIT && unsafe { data.returned.cast::<u32>().as_ref() } == Some(&0)
}

/// What matters of a call of virtual memory that has succeeded.
///
/// # Safety
/// The data must be those that CUPTI passes for a call of this number.
pub(crate) unsafe fn numbers(call: u32, data: &CallbackData) -> Option<[u64; 3]> {
    use parameters::{Create, Map, Range, Release, Reserve};
    // SAFETY: as the caller promises.
    if !unsafe { has_succeeded(data) } || data.parameters.is_null() {
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
    use std::ffi::c_void;

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
