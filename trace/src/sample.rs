//! Values at an instant. Every figure that a driver may refuse is an `Option`: unknown is not zero.

use std::sync::Arc;

use crate::RunId;

/// A device's identity: its UUID as the driver prints it (`GPU-…` or `MIG-…`). Never its index.
pub type DeviceId = Arc<str>;

/// What does not change while a driver lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The UUID.
    pub device: DeviceId,
    /// The product name.
    pub name: Option<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// Physical memory, bytes.
    pub total_bytes: Option<u64>,
    /// For a MIG instance, the GPU it is a part of.
    pub parent: Option<DeviceId>,
}

/// Which of NVML's two memory calls answered. Their `used` differ (v1 includes what the driver reserves), so a change of
/// it is a break in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryVersion {
    /// `nvmlDeviceGetMemoryInfo`: `used` includes reserved, and reserved is unknown.
    V1,
    /// `nvmlDeviceGetMemoryInfo_v2`: total = reserved + used + free.
    V2,
}

/// One reading of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSample {
    /// The UUID.
    pub device: DeviceId,
    /// Which memory call answered.
    pub memory_version: Option<MemoryVersion>,
    /// Memory in use, bytes, as the driver answered.
    pub used_bytes: Option<u64>,
    /// Memory free, bytes.
    pub free_bytes: Option<u64>,
    /// Memory the driver keeps for itself, bytes; unknown from a v1 answer.
    pub reserved_bytes: Option<u64>,
    /// Physical memory, bytes.
    pub total_bytes: Option<u64>,
    /// BAR1 window in use, bytes.
    pub bar1_used_bytes: Option<u64>,
    /// Share of time in which a kernel ran, 0..1 (NVML `utilization.gpu`).
    pub gpu_busy_ratio: Option<f64>,
    /// Share of time in which memory was read or written, 0..1; not how full it is (NVML `utilization.memory`).
    pub memory_busy_ratio: Option<f64>,
    /// Core temperature.
    pub temperature_celsius: Option<f64>,
    /// Board power.
    pub power_watts: Option<f64>,
    /// SM clock.
    pub sm_clock_mhz: Option<u32>,
    /// Memory clock.
    pub memory_clock_mhz: Option<u32>,
    /// NVML's bit mask of reasons for lowered clocks.
    pub throttle_reasons: Option<u64>,
    /// PCIe bytes per second towards the host, from the slow lane.
    pub pcie_tx_bytes_per_sec: Option<u64>,
    /// PCIe bytes per second from the host, from the slow lane.
    pub pcie_rx_bytes_per_sec: Option<u64>,
}

impl DeviceSample {
    /// A sample of which nothing is known yet.
    #[must_use]
    pub fn unknown(device: DeviceId) -> Self {
        Self {
            device,
            memory_version: None,
            used_bytes: None,
            free_bytes: None,
            reserved_bytes: None,
            total_bytes: None,
            bar1_used_bytes: None,
            gpu_busy_ratio: None,
            memory_busy_ratio: None,
            temperature_celsius: None,
            power_watts: None,
            sm_clock_mhz: None,
            memory_clock_mhz: None,
            throttle_reasons: None,
            pcie_tx_bytes_per_sec: None,
            pcie_rx_bytes_per_sec: None,
        }
    }

    /// `used / (total - reserved)`, with reserved taken as 0 when unknown; `None` when used or total is unknown.
    #[must_use]
    pub fn used_ratio(&self) -> Option<f64> {
        let usable = self.total_bytes?.checked_sub(self.reserved_bytes.unwrap_or(0))?;
        #[expect(clippy::cast_precision_loss, reason = "a ratio of byte counts far below 2^52")]
        (usable > 0)
            .then(|| self.used_bytes.map(|used| used as f64 / usable as f64))
            .flatten()
    }
}

/// What one process holds on one device. Its identity is (pid, start time): pids are used again.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSample {
    /// The device.
    pub device: DeviceId,
    /// The process id as the driver gave it.
    pub pid: u32,
    /// The run it belongs to; filled in by the pipeline, which knows the process trees.
    pub run: Option<RunId>,
    /// Device memory held, bytes; `None` when the driver does not say.
    pub used_bytes: Option<u64>,
    /// Share of SM time, 0..1.
    pub sm_busy_ratio: Option<f64>,
    /// The process's name.
    pub process: Option<Arc<str>>,
    /// The container's id, from its cgroup.
    pub container: Option<Arc<str>>,
}

/// One reading of the host.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HostSample {
    /// Share of all cores' time in use, 0..1.
    pub cpu_busy_ratio: Option<f64>,
    /// Memory that can be had without swapping, bytes.
    pub memory_available_bytes: Option<u64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Swap in use, bytes.
    pub swap_used_bytes: Option<u64>,
}

/// One value that an engine exposes, or that is derived from what it exposes.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSample {
    /// The engine's run.
    pub run: RunId,
    /// The signal's name, such as `engine.kv_used_ratio` or `metric:NAME{…}`.
    pub signal: Arc<str>,
    /// The value, in the signal's unit; never NaN.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_ratio_takes_unknown_reserved_as_zero() {
        let mut sample = DeviceSample::unknown("GPU-1".into());
        assert_eq!(sample.used_ratio(), None);
        (sample.used_bytes, sample.total_bytes) = (Some(50), Some(200));
        assert_eq!(sample.used_ratio(), Some(0.25));
        sample.reserved_bytes = Some(100);
        assert_eq!(sample.used_ratio(), Some(0.5));
        sample.reserved_bytes = Some(200);
        assert_eq!(sample.used_ratio(), None);
        sample.reserved_bytes = Some(300);
        assert_eq!(sample.used_ratio(), None);
    }
}
