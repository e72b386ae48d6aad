//! Devices, the process's context on each, and its memory there.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use plimsoll_sim_gpu::{DeviceState, Gpu, Process};

use crate::cuda::code;
use crate::cupti::activity;
use crate::settings;

/// What the driver takes for a context: modules, stacks, tables.
pub(crate) const CONTEXT_BYTES: u64 = 256 << 20;
/// Memory is taken from the device in pieces of this size.
pub(crate) const GRAIN_BYTES: u64 = 2 << 20;
/// Of a device without a state file.
const TOTAL_BYTES: u64 = 80 << 30;

/// One device that the program sees.
#[derive(Debug)]
pub(crate) struct Device {
    state: Option<DeviceState>,
    gpu: Option<Gpu>,
    uuid: [u8; 16],
    place: Mutex<Place>,
}

/// This process on the device.
#[derive(Debug, Default)]
struct Place {
    process: Option<Process>,
    held_bytes: u64,
    has_context: bool,
    tracing_bytes: u64,
}

static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
}

/// Finds the devices. No state file where one is named is no driver; without a name there is one endless device.
pub(crate) fn find_all() -> Result<(), u32> {
    let settings = settings::get();
    let devices = match &settings.state {
        None => vec![Device {
            state: None,
            gpu: None,
            uuid: uuid_bytes("GPU-0b5e55ed-0000-4000-8000-000000000000"),
            place: Mutex::default(),
        }],
        Some(path) => {
            let gpu = Gpu::open(path).map_err(|_| code::NO_DEVICE)?;
            let all: Vec<DeviceState> = gpu.devices().filter(DeviceState::present).collect();
            let seen = visible(all, settings.visible_devices.as_deref());
            let device = |state: DeviceState| Device {
                uuid: uuid_bytes(&state.uuid()),
                gpu: settings.takes_memory.then(|| gpu.clone()),
                state: Some(state),
                place: Mutex::default(),
            };
            seen.into_iter().map(device).collect()
        }
    };
    if devices.is_empty() {
        return Err(code::NO_DEVICE);
    }
    // A second attempt after a failure finds nothing there yet; a success is not repeated.
    let _kept = DEVICES.set(devices);
    Ok(())
}

/// The devices that `CUDA_VISIBLE_DEVICES` names, by number or UUID, up to the first that does not exist.
fn visible(all: Vec<DeviceState>, names: Option<&str>) -> Vec<DeviceState> {
    let Some(names) = names else { return all };
    let find = |name: &str| match name.parse::<usize>() {
        Ok(number) => all.get(number).cloned(),
        Err(_) => all
            .iter()
            .find(|device| name.len() > 4 && device.uuid().starts_with(name))
            .cloned(),
    };
    names.split(',').map_while(|name| find(name.trim())).collect()
}

/// The 16 bytes that NVML prints as `GPU-xxxxxxxx-…`; a shorter text is filled up with zeros.
fn uuid_bytes(text: &str) -> [u8; 16] {
    let digits = text
        .split_once('-')
        .map_or(text, |(_, digits)| digits)
        .chars()
        .filter_map(|digit| digit.to_digit(16));
    let mut bytes = [0; 16];
    for (place, digit) in digits.take(32).enumerate() {
        bytes[place / 2] |= u8::try_from(digit).unwrap_or(0) << (4 * (1 - place % 2));
    }
    bytes
}

fn all() -> &'static [Device] {
    DEVICES.get().map_or(&[], Vec::as_slice)
}

pub(crate) fn count() -> usize {
    all().len()
}

pub(crate) fn get(number: u32) -> Result<&'static Device, u32> {
    all().get(number as usize).ok_or(code::INVALID_DEVICE)
}

/// The device of this thread's context.
#[inline]
pub(crate) fn current() -> u32 {
    CURRENT.try_with(Cell::get).unwrap_or(0)
}

pub(crate) fn set_current(number: u32) -> Result<(), u32> {
    get(number).map_err(|_| code::INVALID_CONTEXT)?;
    CURRENT.set(number);
    Ok(())
}

impl Device {
    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    pub(crate) fn name(&self) -> String {
        self.state
            .as_ref()
            .map_or_else(|| "Simulated GPU".to_owned(), DeviceState::name)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.state.as_ref().map_or(TOTAL_BYTES, DeviceState::total_bytes)
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let held = self.place().held_bytes;
        self.state
            .as_ref()
            .map_or(TOTAL_BYTES.saturating_sub(held), DeviceState::free_bytes)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process's context, made at the first call that needs one.
    pub(crate) fn ensure_context(&self) -> Result<(), u32> {
        let mut place = self.place();
        if !place.has_context {
            self.grow(&mut place, CONTEXT_BYTES)?;
            place.has_context = true;
        }
        self.trace(&mut place);
        Ok(())
    }

    /// Takes what CUPTI keeps in each context; where there is no room, CUPTI does without.
    fn trace(&self, place: &mut Place) {
        let bytes = activity::device_bytes();
        if place.has_context && place.tracing_bytes == 0 && bytes > 0 && self.grow(place, bytes).is_ok() {
            place.tracing_bytes = bytes;
        }
    }

    /// Takes memory, in whole grains.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), u32> {
        self.ensure_context()?;
        self.grow(&mut self.place(), grains(bytes))
    }

    /// Gives memory back that was taken.
    pub(crate) fn give_back(&self, bytes: u64) {
        let mut place = self.place();
        let held = place.held_bytes.saturating_sub(grains(bytes));
        place.held_bytes = held;
        if let Some(process) = &place.process {
            // Less is always granted.
            let _granted = process.resize(held);
        }
    }

    fn grow(&self, place: &mut Place, bytes: u64) -> Result<(), u32> {
        let held = place.held_bytes.saturating_add(bytes);
        match (&self.gpu, &self.state) {
            (Some(gpu), Some(state)) => {
                if place.process.is_none() {
                    let attached = gpu.attach(state.index(), std::process::id());
                    place.process = Some(attached.map_err(|_| code::OUT_OF_MEMORY)?);
                }
                let granted = place.process.as_ref().map(|process| process.resize(held));
                if granted.is_none_or(|granted| granted.is_err()) {
                    return Err(code::OUT_OF_MEMORY);
                }
            }
            _ if held > self.total_bytes() => return Err(code::OUT_OF_MEMORY),
            _ => {}
        }
        place.held_bytes = held;
        Ok(())
    }
}

/// Bytes in whole grains.
pub(crate) const fn grains(bytes: u64) -> u64 {
    bytes.div_ceil(GRAIN_BYTES).saturating_mul(GRAIN_BYTES)
}

/// CUPTI wants memory in the contexts that exist.
pub(crate) fn take_tracing_memory() {
    for device in all() {
        device.trace(&mut device.place());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_the_bytes_that_nvml_prints() {
        let bytes = uuid_bytes("GPU-00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(
            bytes,
            [
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
                0xff
            ]
        );
        assert_eq!(uuid_bytes("GPU-f")[0], 0xf0);
    }
}
