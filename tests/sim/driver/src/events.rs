//! Event sets: Xid errors, delivered once to each set that listens for the device.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::DeviceState;

use crate::abi::{Answer, Out};
use crate::call::{Call, reachable};
use crate::device::card_only;

/// The kinds a set may listen for, as on a card with ECC memory; only Xids ever happen here.
const SUPPORTED: c_ulonglong = (nvml::nvmlEventTypeXidCriticalError
    | nvml::nvmlEventTypeSingleBitEccError
    | nvml::nvmlEventTypeDoubleBitEccError
    | nvml::nvmlEventTypePState
    | nvml::nvmlEventTypeClock) as c_ulonglong;
const XID: c_ulonglong = nvml::nvmlEventTypeXidCriticalError as c_ulonglong;

/// All event sets of a session. A set's handle is its number, never an address.
#[derive(Default)]
pub(crate) struct EventSets {
    sets: Mutex<BTreeMap<usize, Arc<Mutex<EventSet>>>>,
}

struct EventSet {
    /// Where the set looks for its next Xid.
    cursor: u64,
    listening: Vec<Listening>,
}

struct Listening {
    device: usize,
    types: c_ulonglong,
    /// What happened before concerns it not.
    from: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(call: &Call, set: nvml::nvmlEventSet_t) -> Result<Arc<Mutex<EventSet>>, nvml::nvmlReturn_t> {
    let sets = lock(&call.session.event_sets.sets);
    sets.get(&set.addr())
        .cloned()
        .ok_or(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
}

pub(crate) fn create(call: &Call, out: Out<nvml::nvmlEventSet_t>) -> Answer {
    let mut sets = lock(&call.session.event_sets.sets);
    let number = sets.last_key_value().map_or(1, |(last, _)| last + 1);
    out.put(std::ptr::without_provenance_mut(number))?;
    let set = EventSet {
        cursor: call.gpu().xid_cursor(),
        listening: Vec::new(),
    };
    sets.insert(number, Arc::new(Mutex::new(set)));
    call.gpu().count_event_set(1);
    Ok(())
}

pub(crate) fn free(call: &Call, set: nvml::nvmlEventSet_t) -> Answer {
    let known = lock(&call.session.event_sets.sets).remove(&set.addr());
    known.ok_or(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
    call.gpu().count_event_set(-1);
    Ok(())
}

pub(crate) fn supported(device: &DeviceState, out: Out<c_ulonglong>) -> Answer {
    card_only(device)?;
    out.put(SUPPORTED)
}

pub(crate) fn register(
    call: &Call,
    device: &DeviceState,
    types: c_ulonglong,
    set: nvml::nvmlEventSet_t,
) -> Answer {
    card_only(device)?;
    if types & !SUPPORTED != 0 {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    let set = find(call, set)?;
    let from = call.gpu().xid_cursor();
    lock(&set).listening.push(Listening {
        device: device.index(),
        types,
        from,
    });
    Ok(())
}

/// Waits for the next event of the set. What has happened is delivered even when the device is lost since; with nothing
/// left to deliver, a lost device among those listened to, or a driver that was reloaded, ends the wait.
pub(crate) fn wait(
    call: &Call,
    set: nvml::nvmlEventSet_t,
    out: Out<nvml::nvmlEventData_t>,
    timeout_ms: c_uint,
) -> Answer {
    let set = find(call, set)?;
    let begin = Instant::now();
    let timeout = Duration::from_millis(timeout_ms.into());
    loop {
        let heard = call.gpu().bell();
        call.current_life()?;
        if let Some(event) = next(call, &mut lock(&set)) {
            return out.put(event);
        }
        let devices: Vec<usize> = lock(&set)
            .listening
            .iter()
            .map(|listening| listening.device)
            .collect();
        for device in devices.into_iter().filter_map(|index| call.gpu().find(index)) {
            reachable(call.gpu(), &device)?;
        }
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
        }
        call.gpu().wait(heard, left);
    }
}

fn next(call: &Call, set: &mut EventSet) -> Option<nvml::nvmlEventData_t> {
    loop {
        let xid = call.gpu().next_xid(&mut set.cursor)?;
        let at = set.cursor - 1;
        let device = call.gpu().find(xid.device)?;
        // A MIG instance's Xid comes from its card and names the instance.
        let card = device.mig_parent().unwrap_or(xid.device);
        let heard = |listening: &Listening| {
            listening.device == card && listening.types & XID != 0 && listening.from <= at
        };
        if set.listening.iter().any(heard) {
            let is_instance = device.mig_parent().is_some();
            return Some(nvml::nvmlEventData_t {
                device: call.handle(card),
                eventType: XID,
                eventData: xid.xid.into(),
                gpuInstanceId: if is_instance {
                    device.gpu_instance()
                } else {
                    u32::MAX
                },
                computeInstanceId: if is_instance {
                    device.compute_instance()
                } else {
                    u32::MAX
                },
            });
        }
    }
}
