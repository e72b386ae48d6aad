//! The recent values of all signals, and what of them an engine's rules can see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{
    AllocatorSample, Batch, DeviceId, DeviceSample, HostSample, Level, Record, RunId, Stamp, Work, signal,
};
use serde::{Deserialize, Serialize};

use crate::budget::Host;
use crate::condition::Stat;
use crate::forecast::{Forecast, Trend};
use crate::leak::Troughs;
use crate::rule::{Ladder, Rule};
use crate::series::Series;

/// The longest window that a rule may ask for.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(600);

/// What a clause reads: a signal, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    // In this order numbers are compared before names, which is what most lookups of a tick need.
    /// The window's length; zero for the newest value.
    pub window: Duration,
    /// The newest value, or a figure over a window.
    pub stat: Stat,
    /// The signal's name.
    pub signal: Arc<str>,
}

/// A known value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// In the signal's unit; finite.
    pub value: f64,
    /// When the newest sample in it was taken.
    pub at: Stamp,
}

/// Everything an evaluation sees of the world. What is not in it is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    values: BTreeMap<Probe, Reading>,
    usable_bytes: Option<u64>,
    load: Option<(f64, f64)>,
    forecast: Option<Forecast>,
    view: EngineView,
    host: Host,
    max_age: Duration,
}

impl Readings {
    /// No reading at all. `max_age` is how long a value stands for the present; time between two evaluations that lie
    /// further apart is unknown time.
    #[must_use]
    pub fn unknown(max_age: Duration) -> Self {
        Self {
            values: BTreeMap::new(),
            usable_bytes: None,
            load: None,
            forecast: None,
            view: EngineView {
                devices: Vec::new(),
                run: None,
            },
            host: Host::default(),
            max_age,
        }
    }

    /// Says what belonged to the engine when they were read.
    pub fn set_view(&mut self, view: EngineView) {
        self.view = view;
    }

    /// What belonged to the engine when they were read.
    #[must_use]
    pub const fn view(&self) -> &EngineView {
        &self.view
    }

    /// Says how many requests the engine serves, and how many wait.
    pub fn set_load(&mut self, running: f64, waiting: f64) {
        self.load = Some((running, waiting));
    }

    /// Says when the first of the engine's devices will be full; what `vram.full_in_secs` is made of.
    pub const fn set_forecast(&mut self, forecast: Option<Forecast>) {
        self.forecast = forecast;
    }

    /// When the first of the engine's devices will be full.
    #[must_use]
    pub const fn forecast(&self) -> Option<Forecast> {
        self.forecast
    }

    /// Says what the other engines of the host have cost, and what all may cost together.
    pub fn set_host(&mut self, host: Host) {
        self.host = host;
    }

    /// What the rules are to know of the host.
    pub(crate) const fn host(&self) -> &Host {
        &self.host
    }

    /// What all requests need, by what those that run need: 1 when none waits.
    #[must_use]
    pub fn backlog(&self) -> Option<f64> {
        match self.load? {
            (_, waiting) if waiting <= 0.0 => Some(1.0),
            (running, waiting) => (running > 0.0).then(|| (running + waiting) / running),
        }
    }

    /// Adds a reading; one that is not finite stays unknown.
    pub fn insert(&mut self, probe: Probe, reading: Reading) {
        if reading.value.is_finite() {
            self.values.insert(probe, reading);
        }
    }

    /// Says how much memory the engine's smallest device can give to processes: total less reserved.
    pub fn set_usable_bytes(&mut self, bytes: Option<u64>) {
        self.usable_bytes = bytes;
    }

    /// The reading of a probe; `None` is unknown.
    #[must_use]
    pub fn get(&self, probe: &Probe) -> Option<Reading> {
        self.values.get(probe).copied()
    }

    /// How much memory the engine's smallest device can give to processes, bytes.
    #[must_use]
    pub const fn usable_bytes(&self) -> Option<u64> {
        self.usable_bytes
    }

    /// How long a value stands for the present.
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }
}

/// Which part of the world belongs to an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineView {
    /// The devices it runs on. With none, device signals are unknown.
    pub devices: Vec<DeviceId>,
    /// Its present run. With none, run and engine signals are unknown.
    pub run: Option<RunId>,
}

/// The recent values of all signals, fed with every batch.
///
/// A batch that has a sample of a device is taken to list all processes on that device: one that is no longer listed
/// holds nothing any more. Unless the batch says that a list failed: then nothing is known of devices without any.
#[derive(Debug)]
pub struct Signals {
    max_age: Duration,
    windows: BTreeMap<Arc<str>, Duration>,
    devices: BTreeMap<DeviceId, Device>,
    runs: BTreeMap<RunId, BTreeMap<Arc<str>, Series>>,
    host: BTreeMap<&'static str, Series>,
    /// The newest word of each process's allocator, by run.
    allocators: BTreeMap<RunId, Allocators>,
    /// What each run held at the least, over its life.
    troughs: BTreeMap<RunId, Troughs>,
}

/// By process and device.
type Allocators = BTreeMap<(u32, Option<DeviceId>), (Stamp, AllocatorSample)>;

#[derive(Debug, Default)]
struct Device {
    usable_bytes: Option<u64>,
    series: BTreeMap<&'static str, Series>,
    trend: Trend,
    /// By the last sample.
    forecast: Option<Forecast>,
    /// What the runs hold, by the last list of the device's processes; and when that was read.
    held: Vec<(RunId, Option<u64>)>,
    listed: Stamp,
    /// When it was last sampled. Later than `listed`, its processes are unknown.
    sampled: Stamp,
}

/// The loss by which a batch says that the processes of one of its devices could not be listed.
const LIST_FAILED: &str = "processes_failed";

/// Signals for which the lowest of several devices speaks; for the others it is the highest.
const LOWEST_SPEAKS: [&str; 2] = ["vram.free_bytes", "vram.full_in_secs"];

/// NVML's reasons for lowered clocks that mean heat or power: software power cap, hardware slowdown, software and
/// hardware thermal slowdown, power brake. Idle, application clocks and sync boost are not among them.
const HEAT_OR_POWER: u64 = 0x04 | 0x08 | 0x20 | 0x40 | 0x80;

impl Device {
    fn begin_list(&mut self, at: Stamp) {
        self.held.clear();
        self.listed = at;
    }
}

fn max_age(interval: Duration) -> Duration {
    signal::MAX_AGE.max(interval.saturating_mul(3))
}

impl Signals {
    /// Nothing known yet. A value is unknown after [`signal::MAX_AGE`], or after three sampling intervals if that is
    /// longer.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            max_age: max_age(interval),
            windows: BTreeMap::new(),
            devices: BTreeMap::new(),
            runs: BTreeMap::new(),
            host: BTreeMap::new(),
            allocators: BTreeMap::new(),
            troughs: BTreeMap::new(),
        }
    }

    /// Values are read at another interval from now on, and stand for the present accordingly.
    pub fn set_interval(&mut self, interval: Duration) {
        self.max_age = max_age(interval);
    }

    /// How long a value stands for the present.
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Says which rules will be asked about, so that as much is kept as their windows need and no more.
    pub fn watch<'a>(&mut self, ladders: impl IntoIterator<Item = &'a Ladder>) {
        self.windows.clear();
        let rules = ladders.into_iter().flat_map(|ladder| &ladder.rules);
        for probe in rules.flat_map(Rule::probes) {
            let longest = self.windows.entry(Arc::clone(&probe.signal)).or_default();
            *longest = (*longest).max(probe.window);
        }
    }

    /// Takes in what was observed at one instant.
    pub fn update(&mut self, batch: &Batch) {
        let mut held_changed = false;
        let list_failed =
            |record: &Record| matches!(record, Record::Loss(loss) if loss.reason == LIST_FAILED);
        let list_failed = batch.records.iter().any(list_failed);
        for record in &batch.records {
            match record {
                Record::Device(sample) => {
                    self.device(sample, batch.at);
                    held_changed = true;
                }
                Record::Host(sample) => self.host(sample, batch.at),
                Record::Engine(sample) => self.push(sample.run, &sample.signal, Some(sample.value), batch.at),
                Record::Traced(traced) => {
                    let Some(run) = traced.run else { continue };
                    match &traced.work {
                        Work::Signal { signal, value } => self.push(run, signal, Some(*value), batch.at),
                        Work::Allocator(sample) if sample.level == Level::PyTorch => {
                            let of = (traced.pid, traced.device.clone());
                            let allocators = self.allocators.entry(run).or_default();
                            allocators.insert(of, (batch.at, sample.clone()));
                            self.allocators(run, batch.at);
                        }
                        _ => {}
                    }
                }
                Record::RunEnd(end) => {
                    self.runs.remove(&end.id);
                    self.allocators.remove(&end.id);
                    self.troughs.remove(&end.id);
                    self.devices
                        .values_mut()
                        .for_each(|device| device.held.retain(|(run, _)| *run != end.id));
                }
                _ => {}
            }
        }
        for record in &batch.records {
            if let Record::Process(sample) = record
                && let Some(device) = self.devices.get_mut(&sample.device)
            {
                if device.listed != batch.at {
                    device.begin_list(batch.at);
                }
                if let Some(run) = sample.run {
                    device.held.push((run, sample.used_bytes));
                }
            }
        }
        if !list_failed {
            // Lists without a row.
            let mut empty = self.devices.values_mut().collect::<Vec<_>>();
            empty.retain(|device| device.sampled == batch.at && device.listed != batch.at);
            empty.into_iter().for_each(|device| device.begin_list(batch.at));
        }
        if held_changed {
            self.sum_runs(batch.at);
        }
    }

    fn device(&mut self, sample: &DeviceSample, at: Stamp) {
        let device = self.devices.entry(Arc::clone(&sample.device)).or_default();
        device.sampled = at;
        device.usable_bytes = sample
            .total_bytes
            .and_then(|total| total.checked_sub(sample.reserved_bytes.unwrap_or(0)));
        device.forecast = None;
        if let Some((used, usable)) = sample.used_bytes.zip(device.usable_bytes) {
            let room = sample.free_bytes.unwrap_or(usable.saturating_sub(used));
            device.trend.push(at, used as f64, usable as f64, self.max_age);
            device.forecast = device.trend.forecast(room as f64);
        }
        let throttled = sample
            .throttle_reasons
            .map(|reasons| f64::from(u8::from(reasons & HEAT_OR_POWER != 0)));
        for (name, value) in [
            ("vram.used_bytes", sample.used_bytes.map(|bytes| bytes as f64)),
            ("vram.free_bytes", sample.free_bytes.map(|bytes| bytes as f64)),
            ("vram.used_ratio", sample.used_ratio()),
            (
                "vram.full_in_secs",
                device.forecast.as_ref().map(Forecast::full_in_secs),
            ),
            ("gpu.busy_ratio", sample.gpu_busy_ratio),
            ("gpu.power_watts", sample.power_watts),
            ("gpu.temperature_celsius", sample.temperature_celsius),
            ("gpu.throttled", throttled),
        ] {
            let keep = self.windows.get(name).copied().unwrap_or_default();
            device.series.entry(name).or_default().push(at, value, keep);
        }
    }

    fn push(&mut self, run: RunId, signal: &Arc<str>, value: Option<f64>, at: Stamp) {
        let keep = self.windows.get(signal).copied().unwrap_or_default();
        let series = self.runs.entry(run).or_default();
        series
            .entry(Arc::clone(signal))
            .or_default()
            .push(at, value, keep);
    }

    /// What the allocators of a run's processes hold: bytes together, of ratios the one under most pressure speaks.
    fn allocators(&mut self, run: RunId, at: Stamp) {
        let max_age = self.max_age;
        let Some(allocators) = self.allocators.get_mut(&run) else {
            return;
        };
        allocators.retain(|_, (then, _)| at.since(*then) <= max_age);
        let samples = || allocators.values().map(|(_, sample)| sample);
        // Unknown while one of them is.
        let sum = |bytes: fn(&AllocatorSample) -> Option<u64>| {
            let all: Option<Vec<u64>> = samples().map(bytes).collect();
            all.map(|all| all.into_iter().map(|bytes| bytes as f64).sum::<f64>())
        };
        let most = |ratio: fn(&AllocatorSample) -> Option<f64>| {
            let all: Option<Vec<f64>> = samples().map(ratio).collect();
            all.and_then(|all| all.into_iter().max_by(f64::total_cmp))
        };
        let values = [
            ("allocator.slack_ratio", most(AllocatorSample::slack_ratio)),
            ("allocator.stuck_ratio", most(AllocatorSample::stuck_ratio)),
            ("allocator.reserved_bytes", sum(|sample| sample.reserved_bytes)),
            ("allocator.allocated_bytes", sum(|sample| sample.allocated_bytes)),
        ];
        for (name, value) in values {
            self.push(run, &Arc::from(name), value, at);
        }
    }

    fn host(&mut self, sample: &HostSample, at: Stamp) {
        for (name, value) in [
            ("host.memory_available_bytes", sample.memory_available_bytes),
            ("host.swap_used_bytes", sample.swap_used_bytes),
        ] {
            let keep = self.windows.get(name).copied().unwrap_or_default();
            self.host
                .entry(name)
                .or_default()
                .push(at, value.map(|bytes| bytes as f64), keep);
        }
    }

    /// Sums what each run holds on all devices. Unknown while one of its processes is, while one of its devices does not
    /// list them, or while it has none. A sum is as old as the oldest list in it, so it ages with a device that is lost.
    fn sum_runs(&mut self, at: Stamp) {
        let mut sums: BTreeMap<RunId, (Option<u64>, Stamp)> = BTreeMap::new();
        // What is in use on the devices of a run.
        let mut used_there: BTreeMap<RunId, Option<f64>> = BTreeMap::new();
        for device in self.devices.values() {
            let is_listed = device.listed >= device.sampled;
            let newest = device.series.get("vram.used_bytes");
            let in_use = newest.and_then(|series| series.read(Stat::Last, Duration::ZERO, self.max_age, at));
            let runs: BTreeSet<RunId> = device.held.iter().map(|(run, _)| *run).collect();
            for run in runs {
                let sum = used_there.entry(run).or_insert(Some(0.0));
                *sum = sum.zip(in_use).map(|(sum, reading)| sum + reading.value);
            }
            for (run, used) in &device.held {
                let used = used.filter(|_| is_listed);
                let (sum, oldest) = sums.entry(*run).or_insert((Some(0), device.listed));
                *sum = sum.zip(used).and_then(|(sum, used)| sum.checked_add(used));
                *oldest = (*oldest).min(device.listed);
            }
        }
        for run in sums.keys() {
            self.runs.entry(*run).or_default();
        }
        for (run, signals) in &mut self.runs {
            let (sum, at) = sums.get(run).copied().unwrap_or((None, at));
            let own = sum.map(|bytes| bytes as f64);
            let there = used_there.get(run).copied().flatten();
            let others = there.zip(own).map(|(there, own)| (there - own).max(0.0));
            let load = signals
                .get("engine.requests_running")
                .and_then(|series| series.read(Stat::Last, Duration::ZERO, self.max_age, at));
            let leaked = own.and_then(|bytes| {
                let troughs = self.troughs.entry(*run).or_default();
                troughs.push(at, bytes, load.map(|load| load.value));
                troughs.leaked_bytes(at)
            });
            for (name, value) in [
                ("run.vram_bytes", own),
                ("vram.others_bytes", others),
                ("run.leaked_bytes", leaked),
            ] {
                if value.is_some() || signals.contains_key(name) {
                    let keep = self.windows.get(name).copied().unwrap_or_default();
                    signals.entry(Arc::from(name)).or_default().push(at, value, keep);
                }
            }
        }
    }

    /// The device memory that a run holds.
    #[must_use]
    pub fn run_bytes(&self, run: RunId, now: Stamp) -> Option<Reading> {
        let series = self.runs.get(&run)?.get("run.vram_bytes")?;
        series.read(Stat::Last, Duration::ZERO, self.max_age, now)
    }

    /// When a device will be full. `None` while that cannot be said.
    #[must_use]
    pub fn forecast(&self, device: &DeviceId, now: Stamp) -> Option<Forecast> {
        let device = self.devices.get(device)?;
        device
            .forecast
            .filter(|_| now.since(device.sampled) <= self.max_age)
    }

    /// What the rules of one engine see now.
    #[must_use]
    pub fn readings(&self, ladder: &Ladder, view: &EngineView, now: Stamp) -> Readings {
        let mut readings = Readings::unknown(self.max_age);
        readings.set_view(view.clone());
        for probe in ladder.rules.iter().flat_map(Rule::probes) {
            if readings.get(probe).is_none()
                && let Some(reading) = self.read(probe, view, now)
            {
                readings.insert(probe.clone(), reading);
            }
        }
        let usable: Option<Vec<u64>> = view
            .devices
            .iter()
            .map(|device| self.devices.get(device).and_then(|device| device.usable_bytes))
            .collect();
        readings.set_usable_bytes(usable.and_then(|bytes| bytes.into_iter().min()));
        let forecasts: Option<Vec<Forecast>> = view
            .devices
            .iter()
            .map(|device| self.forecast(device, now))
            .collect();
        readings.set_forecast(forecasts.and_then(|forecasts| {
            forecasts
                .into_iter()
                .min_by(|a, b| a.full_in_secs().total_cmp(&b.full_in_secs()))
        }));
        let newest = |name: &str| {
            let series = self.runs.get(&view.run?)?.get(name)?;
            let reading = series.read(Stat::Last, Duration::ZERO, self.max_age, now)?;
            Some(reading.value)
        };
        if let Some((running, waiting)) =
            newest("engine.requests_running").zip(newest("engine.requests_waiting"))
        {
            readings.set_load(running, waiting);
        }
        readings
    }

    fn read(&self, probe: &Probe, view: &EngineView, now: Stamp) -> Option<Reading> {
        let read = |series: &Series| series.read(probe.stat, probe.window, self.max_age, now);
        let name: &str = &probe.signal;
        match signal::find(name)?.source {
            signal::Source::Device => {
                // A device that does not answer may be the one under most pressure, so all must be known.
                let known: Option<Vec<Reading>> = view
                    .devices
                    .iter()
                    .map(|device| read(self.devices.get(device)?.series.get(name)?))
                    .collect();
                let pressure = |reading: &Reading| {
                    if LOWEST_SPEAKS.contains(&name) {
                        -reading.value
                    } else {
                        reading.value
                    }
                };
                known?
                    .into_iter()
                    .max_by(|a, b| pressure(a).total_cmp(&pressure(b)))
            }
            signal::Source::Host => read(self.host.get(name)?),
            signal::Source::Run | signal::Source::Engine | signal::Source::Agent => {
                read(self.runs.get(&view.run?)?.get(name)?)
            }
        }
    }
}

#[cfg(test)]
#[path = "signals_tests.rs"]
mod tests;
