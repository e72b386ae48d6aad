//! The NVML collector.

use std::path::PathBuf;
use std::time::Duration;

/// How the driver is sampled.
#[derive(Clone, Debug)]
pub struct NvmlOptions {
    /// The driver's library: a path, or a name that the dynamic linker finds.
    pub library: PathBuf,
    /// How long the driver may take over one device, or over its own start, before it counts as hung.
    pub watchdog: Duration,
    /// How often PCIe throughput is read, which takes the driver 40 ms per device; zero for never.
    pub slow_lane: Duration,
    /// The first pause after the driver could not be used; doubled up to `retry_max`.
    pub retry: Duration,
    /// The longest pause before the driver is tried again.
    pub retry_max: Duration,
}

impl Default for NvmlOptions {
    fn default() -> Self {
        Self {
            library: PathBuf::from("libnvidia-ml.so.1"),
            watchdog: Duration::from_secs(2),
            slow_lane: Duration::from_secs(30),
            retry: Duration::from_millis(500),
            retry_max: Duration::from_secs(10),
        }
    }
}
