//! MIG instances: parts of a GPU with memory and processes of their own. They come and go while the driver lives.

use std::time::Duration;

use nvml_wrapper::Device;
use plimsoll_trace::{DeviceInfo, Stamp};

use super::gpu::Gpu;
use super::refusal::Refusal;

/// How often a GPU is asked for its mode and its instances.
const REFRESH: Duration = Duration::from_secs(1);
/// How often one that has no MIG.
const REST: Duration = Duration::from_secs(10);
/// No GPU has more instances; a driver that claims more is not believed.
const MOST: u32 = 64;

/// What a GPU said about MIG the last time.
#[derive(Debug, Default)]
pub(super) struct Mig<'n> {
    on: bool,
    instances: Vec<Gpu<'n>>,
    next: Option<Stamp>,
}

impl<'n> Mig<'n> {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn instances(&mut self) -> impl Iterator<Item = &mut Gpu<'n>> {
        self.instances.iter_mut()
    }

    /// Asks again if it is time to; whether the mode changed.
    pub(super) fn refresh(&mut self, gpu: &Device<'n>, index: u32, info: &DeviceInfo, at: Stamp) -> bool {
        if self.next.is_some_and(|next| at < next) {
            return false;
        }
        let former = self.on;
        let mut pause = REFRESH;
        match gpu.mig_mode() {
            Ok(mode) => self.on = mode.current == 1,
            Err(error) => match Refusal::of(&error) {
                Refusal::Absent | Refusal::Unsupported => (self.on, pause) = (false, REST),
                // Not known now: the former answer stands.
                Refusal::Dead | Refusal::Passing => {}
            },
        }
        self.next = Some(at.plus(pause));
        if self.on {
            self.list(gpu, index, info);
        } else {
            self.instances.clear();
        }
        former != self.on
    }

    fn list(&mut self, gpu: &Device<'n>, index: u32, info: &DeviceInfo) {
        let Ok(most) = gpu.mig_device_count() else { return };
        let mut former = std::mem::take(&mut self.instances);
        for slot in 0..most.min(MOST) {
            // Slots need not be filled in order, and most are empty.
            let Ok(device) = gpu.mig_device_by_index(slot) else {
                continue;
            };
            let known = device
                .uuid()
                .ok()
                .and_then(|uuid| former.iter().position(|instance| **instance.id() == *uuid));
            if let Some(place) = known {
                let mut instance = former.swap_remove(place);
                instance.renew(device);
                self.instances.push(instance);
            } else if let Ok(instance) =
                Gpu::open(device, index, info.driver.as_deref(), Some(info.device.clone()))
            {
                self.instances.push(instance);
            }
        }
    }
}
