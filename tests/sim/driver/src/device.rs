//! Finding devices, what they are called, and their figures other than memory.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::time::Duration;

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::DeviceState;

use crate::abi::{Answer, Out, OutMany, Text};
use crate::call::{Call, reachable};

const INVALID: nvml::nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_FOUND: nvml::nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const NOT_SUPPORTED: nvml::nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;

/// The cards that the driver lists, in its order.
pub(crate) fn cards(call: &Call) -> impl Iterator<Item = DeviceState> + '_ {
    call.gpu()
        .devices()
        .filter(|device| device.present() && device.mig_parent().is_none())
}

pub(crate) fn count(call: &Call, out: Out<c_uint>) -> Answer {
    call.current_life()?;
    out.put(c_uint::try_from(cards(call).count()).unwrap_or_default())
}

fn give(
    call: &Call,
    device: Option<DeviceState>,
    otherwise: nvml::nvmlReturn_t,
    out: Out<nvml::nvmlDevice_t>,
) -> Answer {
    call.current_life()?;
    let device = device.ok_or(otherwise)?;
    reachable(call.gpu(), &device)?;
    out.put(call.handle(device.index()))
}

pub(crate) fn by_index(call: &Call, index: c_uint, out: Out<nvml::nvmlDevice_t>) -> Answer {
    give(call, cards(call).nth(index as usize), INVALID, out)
}

pub(crate) fn by_uuid(call: &Call, uuid: Text, out: Out<nvml::nvmlDevice_t>) -> Answer {
    let uuid = uuid.get()?;
    let found = call
        .gpu()
        .devices()
        .find(|device| device.present() && device.uuid() == uuid);
    give(call, found, NOT_FOUND, out)
}

/// Takes `domain:bus:device.function` in hexadecimal with any number of digits, and without domain too.
pub(crate) fn by_bus_id(call: &Call, bus_id: Text, out: Out<nvml::nvmlDevice_t>) -> Answer {
    let wanted = parse_bus_id(&bus_id.get()?).ok_or(INVALID)?;
    let found = cards(call).find(|device| wanted == [0, bus(device), 0, 0]);
    give(call, found, NOT_FOUND, out)
}

fn parse_bus_id(text: &str) -> Option<[u32; 4]> {
    let (rest, function) = text.rsplit_once('.').unwrap_or((text, "0"));
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    let number = |text| u32::from_str_radix(text, 16).ok();
    parts
        .next()
        .is_none()
        .then_some([number(domain)?, number(bus)?, number(device)?, number(function)?])
}

/// Cards sit on every fourth bus from 0x18 on.
fn bus(card: &DeviceState) -> u32 {
    0x18 + 4 * u32::try_from(card.index()).unwrap_or_default()
}

pub(crate) fn pci(call: &Call, device: &DeviceState, out: Out<nvml::nvmlPciInfo_t>) -> Answer {
    let card = device.mig_parent().and_then(|parent| call.gpu().find(parent));
    let bus = bus(card.as_ref().unwrap_or(device));
    let mut info = nvml::nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: 0,
        bus,
        device: 0,
        pciDeviceId: 0x2335_10DE,
        pciSubSystemId: 0x18BE_10DE,
        busId: [0; 32],
    };
    write_text(&mut info.busIdLegacy, &format!("0000:{bus:02X}:00.0"));
    write_text(&mut info.busId, &format!("00000000:{bus:02X}:00.0"));
    out.put(info)
}

/// Into a place of NULs that is longer than the text.
fn write_text(place: &mut [c_char], text: &str) {
    for (to, byte) in place.iter_mut().zip(text.bytes()) {
        *to = c_char::from_ne_bytes([byte]);
    }
}

/// Place in the driver's list: among the cards, or among the instances of its card.
pub(crate) fn index(call: &Call, device: &DeviceState, out: Out<c_uint>) -> Answer {
    let same = |other: DeviceState| other.index() == device.index();
    let place = match device.mig_parent().and_then(|parent| call.gpu().find(parent)) {
        Some(card) => card.instances().position(same),
        None => cards(call).position(same),
    };
    out.put(
        place
            .and_then(|place| c_uint::try_from(place).ok())
            .ok_or(INVALID)?,
    )
}

/// The number of `/dev/nvidiaN`, which does not move when another card goes away.
pub(crate) fn minor(device: &DeviceState, out: Out<c_uint>) -> Answer {
    card_only(device)?;
    out.put(c_uint::try_from(device.index()).unwrap_or_default())
}

/// What is measured on a card is not there for one of its MIG instances.
pub(crate) fn card_only(device: &DeviceState) -> Answer {
    device.mig_parent().map_or(Ok(()), |_| Err(NOT_SUPPORTED))
}

pub(crate) fn utilization(call: &Call, device: &DeviceState, out: Out<nvml::nvmlUtilization_t>) -> Answer {
    card_only(device)?;
    if device.mig_mode() {
        return Err(NOT_SUPPORTED);
    }
    let busy = nvml::nvmlUtilization_t {
        gpu: device.gpu_busy_percent(),
        memory: device.memory_busy_percent(),
    };
    call.put(out, busy)
}

/// A figure that is one number of a card.
pub(crate) fn figure(call: &Call, device: &DeviceState, out: Out<c_uint>, value: u32) -> Answer {
    card_only(device)?;
    call.put(out, value)
}

pub(crate) fn temperature(call: &Call, device: &DeviceState, sensor: c_uint, out: Out<c_uint>) -> Answer {
    if sensor != nvml::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
        return Err(INVALID);
    }
    figure(call, device, out, device.temperature_celsius())
}

/// Clocks of the multiprocessors also stand for graphics and video.
pub(crate) fn clock(
    call: &Call,
    device: &DeviceState,
    kind: c_uint,
    out: Out<c_uint>,
    sm: u32,
    memory: u32,
) -> Answer {
    let value = match kind {
        nvml::nvmlClockType_enum_NVML_CLOCK_MEM => memory,
        nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS
        | nvml::nvmlClockType_enum_NVML_CLOCK_SM
        | nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => sm,
        _ => return Err(INVALID),
    };
    figure(call, device, out, value)
}

pub(crate) fn throttle_reasons(call: &Call, device: &DeviceState, out: Out<c_ulonglong>) -> Answer {
    card_only(device)?;
    call.put(out, device.throttle_reasons())
}

/// The real driver counts bytes for so long before it answers.
const PCIE_WINDOW: Duration = Duration::from_millis(20);

pub(crate) fn pcie(call: &Call, device: &DeviceState, counter: c_uint, out: Out<c_uint>) -> Answer {
    let value = match counter {
        nvml::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_TX_BYTES => device.pcie_sent_kb_per_sec(),
        nvml::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_RX_BYTES => device.pcie_received_kb_per_sec(),
        _ => return Err(INVALID),
    };
    card_only(device)?;
    std::thread::sleep(PCIE_WINDOW);
    call.put(out, value)
}

pub(crate) fn driver_version(call: &Call, out: OutMany<c_char>, length: c_uint) -> Answer {
    out.put_text(&call.gpu().driver_version(), length)
}

/// NVML's own version is the driver's with CUDA's major version before it.
pub(crate) fn nvml_version(call: &Call, out: OutMany<c_char>, length: c_uint) -> Answer {
    out.put_text(
        &format!("{}.{}", CUDA_VERSION / 1000, call.gpu().driver_version()),
        length,
    )
}

/// 1000 * major + 10 * minor.
const CUDA_VERSION: c_int = 13_000;

pub(crate) fn cuda_version(out: Out<c_int>) -> Answer {
    out.put(CUDA_VERSION)
}
