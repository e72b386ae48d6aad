//! The engine's place on the simulated card: its memory, and the work that shows.

use std::path::Path;

use plimsoll_sim_gpu::{DeviceState, Gpu, GpuError, Process};

use crate::memory::OutOfMemory;
use crate::model::Hardware;
use crate::process::TICK;

/// Why there is no place on a card.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    #[error("no simulated GPU")]
    Gpu(#[from] GpuError),
    #[error("no device {index} on the simulated GPU, which has {count}")]
    NoDevice { index: usize, count: usize },
}

/// The engine's place on the simulated card. Dropping it leaves the card idle.
pub(crate) struct Card {
    device: DeviceState,
    process: Process,
    busy: f64,
    temperature_celsius: f64,
}

const IDLE_CELSIUS: f64 = 36.0;
const FULL_CELSIUS: f64 = 78.0;
/// Time constant of the temperature.
const WARMING_SECS: f64 = 8.0;
const IDLE_WATTS: f64 = 32.0;
const FULL_WATTS: f64 = 340.0;
const IDLE_CLOCK_MHZ: u32 = 210;
const FULL_CLOCK_MHZ: u32 = 2520;

impl Card {
    /// Takes a place on a device for this process.
    pub(crate) fn take(state: &Path, index: usize) -> Result<Self, CardError> {
        let gpu = Gpu::open(state)?;
        let device = gpu.find(index).ok_or(CardError::NoDevice {
            index,
            count: gpu.device_count(),
        })?;
        let process = gpu.attach(index, std::process::id())?;
        Ok(Self {
            device,
            process,
            busy: 0.0,
            temperature_celsius: IDLE_CELSIUS,
        })
    }

    /// The device's UUID.
    pub(crate) fn uuid(&self) -> String {
        self.device.uuid()
    }

    /// What the engine can count on.
    pub(crate) fn hardware(&self) -> Hardware {
        Hardware {
            usable_bytes: self
                .device
                .total_bytes()
                .saturating_sub(self.device.reserved_bytes()),
            speed: 1.0,
        }
    }

    /// The most that this process can have now.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.device.free_bytes() + self.process.used_bytes()
    }

    /// Makes this process's memory on the card as large as the engine's is.
    pub(crate) fn hold(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let in_use_bytes = self.process.used_bytes();
        self.process.resize(bytes).map_err(|refused| OutOfMemory {
            asked_bytes: refused.asked,
            in_use_bytes,
            limit_bytes: in_use_bytes.saturating_add(refused.free),
        })
    }

    /// Another process wants so much; it gets no more than is free.
    pub(crate) fn set_neighbor(&self, bytes: u64) {
        let most = self.device.free_bytes() + self.device.other_used_bytes();
        self.device.set_other_used_bytes(bytes.min(most));
    }

    /// Load, temperature, power and clocks, as a card shows them: smoothed, the temperature slowest.
    pub(crate) fn show_work(&mut self, busy: f64) {
        self.busy += (busy - self.busy) * 0.3;
        let aim = IDLE_CELSIUS + (FULL_CELSIUS - IDLE_CELSIUS) * self.busy;
        self.temperature_celsius += (aim - self.temperature_celsius) * TICK.as_secs_f64() / WARMING_SECS;
        let percent = whole(self.busy * 100.0);
        let device = &self.device;
        device.set_gpu_busy_percent(percent);
        device.set_memory_busy_percent(whole(self.busy * 70.0));
        device.set_temperature_celsius(whole(self.temperature_celsius));
        device.set_power_milliwatts(whole(
            (IDLE_WATTS + (FULL_WATTS - IDLE_WATTS) * self.busy) * 1000.0,
        ));
        device.set_sm_clock_mhz(if percent > 0 {
            FULL_CLOCK_MHZ
        } else {
            IDLE_CLOCK_MHZ
        });
        self.process.set_sm_busy_percent(percent);
        self.process.set_memory_busy_percent(whole(self.busy * 70.0));
    }

    /// What a real engine prints when the card has no more.
    pub(crate) fn last_words(&self, out: &OutOfMemory) -> String {
        format!(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {}. GPU {} has a total capacity of {} \
             of which {} is free. Process {} has {} memory in use.",
            size(out.asked_bytes),
            self.device.index(),
            size(self.device.total_bytes()),
            size(out.limit_bytes.saturating_sub(out.in_use_bytes)),
            std::process::id(),
            size(out.in_use_bytes),
        )
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.busy = 0.0;
        self.show_work(0.0);
    }
}

/// A size as PyTorch prints it.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 {
        format!("{mib:.2} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small and never negative"
)]
fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_pytorch_does() {
        assert_eq!([size(2 << 20), size(3 << 29)], ["2.00 MiB", "1.50 GiB"]);
    }
}
