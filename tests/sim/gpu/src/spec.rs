//! Which devices a new state file has, and what they show before a scene is set.

use std::sync::atomic::Ordering::SeqCst;

use crate::error::GpuError;
use crate::layout::{self, Device, Layout, MAGIC, VERSION};

/// The most devices (MIG instances counted) that a state file holds.
pub const MAX_DEVICES: usize = layout::DEVICES;

/// A device to create: a card, or a MIG instance of a card that stands earlier in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// As NVML prints it: `GPU-…` or `MIG-…`, at most 95 bytes.
    pub uuid: String,
    /// Product name, at most 95 bytes.
    pub name: String,
    /// All memory of the device, what the driver reserves included.
    pub total_bytes: u64,
    /// Memory that the driver keeps for itself.
    pub reserved_bytes: u64,
    /// Index of the card that this is a MIG instance of.
    pub mig_parent: Option<usize>,
}

impl DeviceSpec {
    /// A card of which the driver reserves nothing.
    pub fn new(uuid: &str, name: &str, total_bytes: u64) -> Self {
        DeviceSpec {
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            total_bytes,
            reserved_bytes: 0,
            mig_parent: None,
        }
    }
}

/// Whether such devices can be.
pub(crate) fn check(devices: &[DeviceSpec]) -> Result<(), GpuError> {
    for (index, spec) in devices.iter().enumerate() {
        let is_card =
            |parent: usize| parent < index && devices.get(parent).is_some_and(|d| d.mig_parent.is_none());
        let reason = if index >= MAX_DEVICES {
            format!("there is room for {MAX_DEVICES} devices only")
        } else if spec.uuid.len() >= layout::TEXT || spec.name.len() >= layout::TEXT {
            format!("UUID and name have at most {} bytes each", layout::TEXT - 1)
        } else if devices[..index].iter().any(|earlier| earlier.uuid == spec.uuid) {
            format!("its UUID {} is taken", spec.uuid)
        } else if spec.reserved_bytes > spec.total_bytes {
            format!(
                "{} bytes are reserved of a total of {}",
                spec.reserved_bytes, spec.total_bytes
            )
        } else if spec.mig_parent.is_some_and(|parent| !is_card(parent)) {
            "its parent is not a card that stands before it".to_owned()
        } else {
            continue;
        };
        return Err(GpuError::BadDevice { index, reason });
    }
    Ok(())
}

/// Writes the devices into a layout of zeros, and what makes it a state file last.
pub(crate) fn describe(devices: &[DeviceSpec], layout: &Layout) {
    let mut instances = [0_u32; MAX_DEVICES];
    for (spec, device) in devices.iter().zip(&layout.devices) {
        device.uuid.set(&spec.uuid);
        device.name.set(&spec.name);
        device.total_bytes.store(spec.total_bytes, SeqCst);
        device.reserved_bytes.store(spec.reserved_bytes, SeqCst);
        at_rest(device, spec);
        if let Some(parent) = spec.mig_parent {
            device
                .parent
                .store(u32::try_from(parent + 1).unwrap_or_default(), SeqCst);
            device.gpu_instance.store(instances[parent], SeqCst);
            layout.devices[parent].mig_mode.store(1, SeqCst);
            instances[parent] += 1;
        }
    }
    layout
        .device_count
        .store(u32::try_from(devices.len()).unwrap_or_default(), SeqCst);
    layout.driver_generation.store(1, SeqCst);
    layout.driver_version.set("580.95.05");
    layout
        .size_bytes
        .store(u32::try_from(size_of::<Layout>()).unwrap_or_default(), SeqCst);
    layout.version.store(VERSION, SeqCst);
    layout.magic.store(MAGIC, SeqCst);
}

/// The figures of an idle card of the Hopper generation, so that every reading is believable before a scene is set.
fn at_rest(device: &Device, spec: &DeviceSpec) {
    device.bar1_total_bytes.store(
        spec.total_bytes
            .checked_next_power_of_two()
            .unwrap_or(spec.total_bytes),
        SeqCst,
    );
    for (figure, value) in [
        (&device.temperature_celsius, 34),
        (&device.power_milliwatts, 72_000),
        (&device.power_limit_milliwatts, 700_000),
        (&device.sm_clock_mhz, 345),
        (&device.memory_clock_mhz, 2_619),
        (&device.max_sm_clock_mhz, 1_980),
        (&device.max_memory_clock_mhz, 2_619),
        (&device.brand, 14),
        (&device.architecture, 9),
    ] {
        figure.store(value, SeqCst);
    }
}
