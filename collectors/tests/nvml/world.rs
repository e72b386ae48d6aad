//! A driver library of its own for each test, with its state file beside it, and a collector on top.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use plimsoll_collectors::{Collector, Nvml, NvmlOptions};
use plimsoll_sim_gpu::{DeviceSpec, Gpu};
use plimsoll_trace::{Batch, DeviceInfo, DeviceSample, Event, EventKind, ProcessSample, Record, Stamp};
use tempfile::TempDir;

/// How long anything is awaited that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a tick's batch is awaited before the next tick.
const ROUND: Duration = Duration::from_millis(20);

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) gpu: Gpu,
    pub(crate) options: NvmlOptions,
    nvml: Option<Nvml>,
    batches: Option<Receiver<Batch>>,
    left: Option<Receiver<Batch>>,
    at: Stamp,
    /// Everything that was delivered.
    pub(crate) seen: Vec<Batch>,
}

/// A card as most tests need it.
pub(crate) fn card(number: usize) -> DeviceSpec {
    let mut spec = DeviceSpec::new(&format!("GPU-{number}"), "Simulated 24 GiB", 24 * GIB);
    spec.reserved_bytes = GIB / 2;
    spec
}

impl World {
    /// A machine with these devices and a driver, and nobody who samples it yet.
    pub(crate) fn new(devices: &[DeviceSpec]) -> Self {
        Self::without(&[], devices)
    }

    /// The same with an older library that lacks these functions.
    pub(crate) fn without(symbols: &[&str], devices: &[DeviceSpec]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let library = folder.path().join("libnvidia-ml.so.1");
        let built =
            plimsoll_sim_driver::library_path().expect("the simulated driver is built with the tests");
        plimsoll_sim_driver::strip_symbols(&built, symbols, &library).expect("copy of the library");
        let gpu = Gpu::create(&folder.path().join("libnvidia-ml.so.1.gpu"), devices).expect("state file");
        let options = NvmlOptions {
            library,
            watchdog: PATIENCE,
            slow_lane: Duration::ZERO,
            retry: Duration::from_millis(5),
            retry_max: Duration::from_millis(50),
        };
        Self {
            folder,
            gpu,
            options,
            nvml: None,
            batches: None,
            left: None,
            at: Stamp::at_secs(1_000_000),
            seen: Vec::new(),
        }
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.options.library.clone()
    }

    pub(crate) fn start(&mut self) {
        let (deliver, batches) = channel();
        self.batches = Some(batches);
        let deliver = Arc::new(move |batch| deliver.send(batch).expect("the test listens"));
        self.nvml = Some(Nvml::spawn(self.options.clone(), deliver));
    }

    /// Ends the collector.
    pub(crate) fn stop(&mut self) {
        self.nvml = None;
        let rest: Vec<Batch> = self
            .batches
            .take()
            .map(|batches| batches.iter().collect())
            .unwrap_or_default();
        self.seen.extend(rest);
    }

    /// Ends the collector while a call hangs: what that thread still delivers is not awaited.
    pub(crate) fn stop_without_waiting(&mut self) {
        self.nvml = None;
        self.left = self.batches.take();
    }

    /// Waits until the threads that were left behind have left the driver.
    pub(crate) fn until_left(&mut self) {
        // Their ends of the channel are dropped last.
        let left = self.left.take().expect("threads left behind");
        while left.recv_timeout(PATIENCE).is_ok() {}
    }

    /// Ticks once and takes what is delivered within a moment, which may be nothing.
    pub(crate) fn tick(&mut self) -> Option<Batch> {
        self.at = self.at.plus(Duration::from_secs(1));
        self.nvml.as_mut().expect("started").tick(self.at);
        let batch = self.batches.as_ref().expect("started").recv_timeout(ROUND).ok()?;
        self.seen.push(batch.clone());
        Some(batch)
    }

    /// Ticks once and awaits the answer, however long it takes.
    pub(crate) fn answer(&mut self) -> Batch {
        self.at = self.at.plus(Duration::from_secs(1));
        self.nvml.as_mut().expect("started").tick(self.at);
        let batches = self.batches.as_ref().expect("started");
        loop {
            let batch = batches.recv_timeout(PATIENCE).expect("an answer to every tick");
            self.seen.push(batch.clone());
            if batch.at == self.at {
                return batch;
            }
        }
    }

    /// Ticks until a batch has what is looked for.
    pub(crate) fn until<T>(&mut self, what: &str, look: impl Fn(&Batch) -> Option<T>) -> T {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(found) = self.tick().and_then(|batch| look(&batch)) {
                return found;
            }
        }
        panic!(
            "in vain awaited: {what}; delivered were {:#?}",
            self.seen.iter().rev().take(5).collect::<Vec<_>>()
        );
    }

    /// Ticks until something outside of what is delivered is so.
    pub(crate) fn until_so(&mut self, what: &str, so: impl Fn(&Gpu) -> bool) {
        let began = Instant::now();
        while !so(&self.gpu) {
            assert!(began.elapsed() < PATIENCE, "in vain awaited: {what}");
            self.tick();
        }
    }

    /// The next sample of a device.
    pub(crate) fn sample(&mut self, device: &str) -> DeviceSample {
        self.until(&format!("a sample of {device}"), |batch| {
            batch.device(device).cloned()
        })
    }

    /// The next batch with a sample of a device.
    pub(crate) fn batch_with(&mut self, device: &str) -> Batch {
        self.until(&format!("a sample of {device}"), |batch| {
            batch.device(device).map(|_| batch.clone())
        })
    }

    /// The next event of a kind.
    pub(crate) fn event(&mut self, kind: EventKind) -> Event {
        self.until(&format!("a {kind} event"), |batch| {
            batch.events(kind).next().cloned()
        })
    }

    /// All events that were delivered so far, as their words and devices.
    pub(crate) fn told(&self) -> Vec<String> {
        let events = self
            .seen
            .iter()
            .flat_map(|batch| batch.records.iter())
            .filter_map(|record| match record {
                Record::Event(event) => Some(event),
                _ => None,
            });
        events
            .map(|event| {
                let reason = event.detail.get("reason").and_then(|reason| reason.as_str());
                [Some(event.kind.as_str()), event.device.as_deref(), reason]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    /// How often a loss was counted so far.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        self.seen.iter().map(|batch| batch.lost(reason)).sum()
    }
}

impl Drop for World {
    /// Whatever happened in a test: no start of the driver without its end, and no call outside of them.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.gpu.clear_faults();
        self.stop();
        assert_eq!(self.gpu.open_inits(), 0, "starts of the driver without an end");
        assert_eq!(self.gpu.open_event_sets(), 0, "event sets left");
        assert_eq!(
            self.gpu.calls("call while uninitialized"),
            0,
            "calls outside of a driver life"
        );
        assert_eq!(
            self.gpu.calls("call with a stale handle"),
            0,
            "handles of a former driver life"
        );
    }
}

/// Looking into batches.
pub(crate) trait Look {
    fn device(&self, device: &str) -> Option<&DeviceSample>;
    fn info(&self, device: &str) -> Option<&DeviceInfo>;
    fn processes(&self, device: &str) -> Vec<&ProcessSample>;
    fn events(&self, kind: EventKind) -> impl Iterator<Item = &Event>;
    fn lost(&self, reason: &str) -> u64;
}

impl Look for Batch {
    fn device(&self, device: &str) -> Option<&DeviceSample> {
        self.records.iter().find_map(|record| match record {
            Record::Device(sample) if &*sample.device == device => Some(sample),
            _ => None,
        })
    }

    fn info(&self, device: &str) -> Option<&DeviceInfo> {
        self.records.iter().find_map(|record| match record {
            Record::DeviceInfo(info) if &*info.device == device => Some(info),
            _ => None,
        })
    }

    fn processes(&self, device: &str) -> Vec<&ProcessSample> {
        let mut processes = Vec::new();
        for record in &self.records {
            match record {
                Record::Process(sample) if &*sample.device == device => processes.push(sample),
                _ => {}
            }
        }
        processes
    }

    fn events(&self, kind: EventKind) -> impl Iterator<Item = &Event> {
        self.records.iter().filter_map(move |record| match record {
            Record::Event(event) if event.kind == kind => Some(event),
            _ => None,
        })
    }

    fn lost(&self, reason: &str) -> u64 {
        let count = |record: &Record| match record {
            Record::Loss(loss) if loss.source == "nvml" && loss.reason == reason => loss.count,
            _ => 0,
        };
        self.records.iter().map(count).sum()
    }
}
