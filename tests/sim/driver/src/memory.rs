//! Memory of a device. Version 1 counts what the driver reserves as used, version 2 does not; in both the parts add up
//! to the total unless a test sets more in use than there is.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
};
use plimsoll_sim_gpu::DeviceState;

use crate::abi::{Answer, Out};
use crate::call::Call;

/// nvml.h's `NVML_STRUCT_VERSION(Memory, 2)`: the size of the struct, and the version in the highest byte.
const MEMORY_V2: c_uint = {
    assert!(size_of::<nvmlMemory_v2_t>() == 40, "another struct than nvml.h's");
    40 | 2 << 24
};

pub(crate) fn v1(call: &Call, device: &DeviceState, out: Out<nvmlMemory_t>) -> Answer {
    let total = device.total_bytes();
    let used = device.used_bytes().saturating_add(device.reserved_bytes());
    call.put(
        out,
        nvmlMemory_t {
            total,
            free: total.saturating_sub(used),
            used,
        },
    )
}

pub(crate) fn v2(call: &Call, device: &DeviceState, out: Out<nvmlMemory_v2_t>) -> Answer {
    let version = out.version()?;
    if version != MEMORY_V2 {
        return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    }
    let (total, reserved, used) = (device.total_bytes(), device.reserved_bytes(), device.used_bytes());
    let free = total.saturating_sub(reserved).saturating_sub(used);
    call.put(
        out,
        nvmlMemory_v2_t {
            version,
            total,
            reserved,
            free,
            used,
        },
    )
}

pub(crate) fn bar1(call: &Call, device: &DeviceState, out: Out<nvmlBAR1Memory_t>) -> Answer {
    if device.mig_parent().is_some() {
        return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    let (total, used) = (device.bar1_total_bytes(), device.bar1_used_bytes());
    call.put(
        out,
        nvmlBAR1Memory_t {
            bar1Total: total,
            bar1Free: total.saturating_sub(used),
            bar1Used: used,
        },
    )
}
