//! What `plimsoll status` shows: the latest of everything, kept beside the stream.

use std::collections::BTreeMap;

use plimsoll_trace::{Batch, DeviceId, DeviceInfo, DeviceSample, HostSample, ProcessSample, Record, Stamp};
use plimsoll_tuner::Signals;
use serde_json::{Value, json};

use super::runs::Runs;

/// The latest of everything.
pub(crate) struct Status {
    started: Stamp,
    devices: BTreeMap<DeviceId, Device>,
    host: Option<HostSample>,
    driver: Option<String>,
}

#[derive(Default)]
struct Device {
    info: Option<DeviceInfo>,
    sample: Option<(Stamp, DeviceSample)>,
    processes: Vec<ProcessSample>,
}

impl Status {
    pub(crate) const fn new(started: Stamp) -> Self {
        Self {
            started,
            devices: BTreeMap::new(),
            host: None,
            driver: None,
        }
    }

    pub(crate) fn update(&mut self, batch: &Batch) {
        for record in &batch.records {
            match record {
                Record::DeviceInfo(info) => {
                    self.driver.clone_from(&info.driver);
                    self.devices.entry(info.device.clone()).or_default().info = Some(info.clone());
                }
                Record::Device(sample) => {
                    let device = self.devices.entry(sample.device.clone()).or_default();
                    device.sample = Some((batch.at, sample.clone()));
                    device.processes.clear();
                }
                Record::Host(sample) => self.host = Some(sample.clone()),
                _ => {}
            }
        }
        for record in &batch.records {
            if let Record::Process(sample) = record
                && let Some(device) = self.devices.get_mut(&sample.device)
            {
                device.processes.push(sample.clone());
            }
        }
    }

    /// The name under which the driver knows a device. CUDA gives the UUID of an instance of a partitioned GPU (MIG)
    /// without saying that it is one.
    pub(crate) fn device_named(&self, device: &DeviceId) -> Option<DeviceId> {
        if self.devices.contains_key(device) {
            return None;
        }
        let instance: DeviceId = format!("MIG-{}", device.strip_prefix("GPU-")?).into();
        self.devices.contains_key(&instance).then_some(instance)
    }

    /// The whole, as the versioned JSON of `plimsoll status --json`.
    pub(crate) fn show(&self, runs: &Runs, rules: &[Value], signals: &Signals) -> Value {
        let now = Stamp::now();
        let fresh = |at: Stamp| now.since(at) <= signals.max_age();
        let devices: Vec<Value> = self
            .devices
            .iter()
            .map(|(id, device)| {
                let sample = device
                    .sample
                    .as_ref()
                    .filter(|(at, _)| fresh(*at))
                    .map(|(_, sample)| sample);
                let forecast = signals.forecast(id, now).filter(|_| sample.is_some());
                let processes: &[ProcessSample] = if sample.is_some() { &device.processes } else { &[] };
                json!({
                    "device": &**id,
                    "name": device.info.as_ref().and_then(|info| info.name.as_deref()),
                    "at_ns": device.sample.as_ref().map(|(at, _)| at.unix_ns),
                    "used_bytes": sample.and_then(|sample| sample.used_bytes),
                    "free_bytes": sample.and_then(|sample| sample.free_bytes),
                    "reserved_bytes": sample.and_then(|sample| sample.reserved_bytes),
                    "total_bytes": sample.and_then(|sample| sample.total_bytes),
                    "used_ratio": sample.and_then(DeviceSample::used_ratio),
                    "full_in_secs": forecast.map(|forecast| forecast.full_in_secs()),
                    "full_in_range_secs": forecast.and_then(|forecast| forecast.range_secs()),
                    "gpu_busy_ratio": sample.and_then(|sample| sample.gpu_busy_ratio),
                    "processes": processes.iter().map(|process| json!({
                        "pid": process.pid,
                        "process": process.process.as_deref(),
                        "run": process.run.map(|run| run.0),
                        "used_bytes": process.used_bytes,
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "version": 1,
            "started_ns": self.started.unix_ns,
            "driver": self.driver,
            "devices": devices,
            "host": self.host.as_ref().map(|host| json!({
                "cpu_busy_ratio": host.cpu_busy_ratio,
                "memory_available_bytes": host.memory_available_bytes,
                "memory_total_bytes": host.memory_total_bytes,
                "swap_used_bytes": host.swap_used_bytes,
            })),
            "engines": runs.running(),
            "rules": rules,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_known_by_the_driver_s_name() {
        let mut status = Status::new(Stamp::default());
        let mut batch = Batch::new(Stamp::default());
        let sample = |device: &str| Record::Device(DeviceSample::unknown(device.into()));
        batch.records = vec![sample("GPU-a"), sample("MIG-b")];
        status.update(&batch);
        let named = |device: &str| status.device_named(&device.into());
        assert_eq!(named("GPU-b").as_deref(), Some("MIG-b"));
        assert_eq!(
            (named("GPU-a"), named("GPU-c"), named("MIG-b")),
            (None, None, None)
        );
    }
}
