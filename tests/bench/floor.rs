//! The floor under the cost: the least that reads the same figures as often, in a process of its own.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

/// This program as the floor: what is read, and thrown away. Arguments: the library, the interval in ms.
pub(crate) const FLOOR: &str = "as-floor";
/// This program as the floor's floor: it wakes as often, and does nothing. Arguments: the same.
pub(crate) const TIMER: &str = "as-timer";

/// The driver's functions that are counted, the daemon's and the floor's.
pub(crate) const CALLS: [&str; 16] = [
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetPcieThroughput",
    "nvmlEventSetWait_v2",
];

/// Reads every figure of every device at the interval, for ever.
pub(crate) fn sample(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let library = words.next().context("no library is named")?;
    let nvml = Nvml::builder().lib_path(Path::new(&library).as_os_str()).init()?;
    let devices = (0..nvml.device_count()?)
        .map(|index| nvml.device_by_index(index))
        .collect::<Result<Vec<_>, _>>()?;
    let mut last_seen = vec![0_u64; devices.len()];
    at_interval(words.next(), || {
        for (device, last_seen) in devices.iter().zip(&mut last_seen) {
            black_box(device.memory_info()?);
            black_box(device.bar1_memory_info()?);
            black_box(device.utilization_rates()?);
            black_box(device.temperature(TemperatureSensor::Gpu)?);
            black_box(device.power_usage()?);
            black_box(device.clock_info(Clock::SM)?);
            black_box(device.clock_info(Clock::Memory)?);
            black_box(device.current_throttle_reasons()?);
            black_box(device.running_compute_processes()?);
            black_box(device.running_graphics_processes()?);
            black_box(device.mps_running_compute_processes()?);
            match device.process_utilization_stats(*last_seen) {
                Ok(samples) => {
                    *last_seen = samples
                        .iter()
                        .map(|sample| sample.timestamp)
                        .max()
                        .unwrap_or(*last_seen)
                }
                // Nothing ran since then.
                Err(NvmlError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

/// Wakes at the interval, for ever.
pub(crate) fn wake(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    at_interval(words.nth(1), || Ok(()))
}

fn at_interval(millis: Option<String>, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let interval = Duration::from_millis(millis.context("no interval is named")?.parse()?);
    let mut next = Instant::now();
    loop {
        work()?;
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
