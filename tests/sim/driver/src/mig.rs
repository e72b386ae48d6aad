//! Cards that are split into MIG instances.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::DeviceState;

use crate::abi::{Answer, Out};
use crate::call::Call;
use crate::device::card_only;

const INVALID: nvml::nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;

/// A100 and its successors are split into seven parts at most.
const MOST_INSTANCES: c_uint = 7;

/// The mode now and the one after the next reset, which are the same here.
pub(crate) fn mode(device: &DeviceState, now: Out<c_uint>, pending: Out<c_uint>) -> Answer {
    card_only(device)?;
    now.put(device.mig_mode().into())?;
    pending.put(device.mig_mode().into())
}

pub(crate) fn most_instances(device: &DeviceState, out: Out<c_uint>) -> Answer {
    card_only(device)?;
    out.put(MOST_INSTANCES)
}

pub(crate) fn instance(
    call: &Call,
    card: &DeviceState,
    index: c_uint,
    out: Out<nvml::nvmlDevice_t>,
) -> Answer {
    card_only(card)?;
    if index >= MOST_INSTANCES {
        return Err(INVALID);
    }
    let found = card
        .instances()
        .filter(|instance| card.mig_mode() && instance.present())
        .nth(index as usize);
    let found = found.ok_or(nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
    out.put(call.handle(found.index()))
}

pub(crate) fn card_of(call: &Call, instance: &DeviceState, out: Out<nvml::nvmlDevice_t>) -> Answer {
    out.put(call.handle(instance.mig_parent().ok_or(INVALID)?))
}

pub(crate) fn is_instance(device: &DeviceState, out: Out<c_uint>) -> Answer {
    out.put(device.mig_parent().is_some().into())
}

/// An id of an instance; a card has none.
pub(crate) fn instance_id(device: &DeviceState, id: u32, out: Out<c_uint>) -> Answer {
    device
        .mig_parent()
        .ok_or(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)?;
    out.put(id)
}
