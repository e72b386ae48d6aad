//! Signals: the named numbers that rules can use, each with a unit, a source and a maximum age.

use std::time::Duration;

use crate::units::{self, Quantity, UnitError};

/// The unit of a signal, which decides how its thresholds are written and its values printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes; thresholds may be written "800MiB".
    Bytes,
    /// 0..1; thresholds may be written "80%".
    Ratio,
    /// Seconds; thresholds may be written "10m".
    Seconds,
    /// Events per second.
    PerSecond,
    /// A number of things.
    Count,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
    /// 0 or 1.
    Flag,
    /// Whatever the engine says (`metric:…`).
    Plain,
}

/// Where a signal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The driver, per device. With several devices the one under most pressure speaks.
    Device,
    /// The run's processes: the driver's word summed over them, and the kernel's.
    Run,
    /// The agent in the engine, or the engine's allocator.
    Agent,
    /// The engine's own metrics.
    Engine,
    /// The host.
    Host,
}

/// One signal of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The name that rules use.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its source.
    pub source: Source,
    /// What it is, for people.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($name:literal $unit:ident $source:ident $help:literal)+) => {
        /// Every signal but `metric:…`.
        pub const CATALOGUE: &[Signal] = &[
            $(Signal { name: $name, unit: Unit::$unit, source: Source::$source, help: $help },)+
        ];
    };
}

catalogue! {
    "vram.used_bytes" Bytes Device "device memory in use"
    "vram.free_bytes" Bytes Device "device memory free"
    "vram.used_ratio" Ratio Device "used / (total - reserved)"
    "vram.full_in_secs" Seconds Device "time until the device is full if the present trend goes on"
    "vram.others_bytes" Bytes Run "device memory in use on the run's devices that the run does not hold"
    "run.leaked_bytes" Bytes Run "by how much the least device memory that the run holds has grown while its load has not"
    "run.vram_bytes" Bytes Run "device memory held by the run's processes"
    "allocator.slack_ratio" Ratio Agent "1 - allocated / reserved"
    "allocator.stuck_ratio" Ratio Agent "inactive_split / reserved: free, but not releasable"
    "allocator.reserved_bytes" Bytes Agent "held by the engine's allocator"
    "allocator.allocated_bytes" Bytes Agent "in use inside the engine's allocator"
    "gpu.busy_ratio" Ratio Device "share of time in which a kernel ran"
    "gpu.power_watts" Watts Device "board power"
    "gpu.temperature_celsius" Celsius Device "core temperature"
    "gpu.throttled" Flag Device "1 while clocks are lowered for heat or power"
    "kernel.busy_ratio" Ratio Agent "share of time in which traced kernels ran on the run's busiest device; kernels side by side count each, at most 1"
    "kernel.launches_per_sec" PerSecond Agent "traced kernel launches"
    "engine.kv_used_ratio" Ratio Engine "share of the KV cache in use"
    "engine.requests_running" Count Engine "requests being served"
    "engine.requests_waiting" Count Engine "requests in the queue"
    "engine.refused_ratio" Ratio Engine "share of requests turned away because too many wait"
    "engine.preemptions_per_sec" PerSecond Engine "requests thrown out of the batch"
    "engine.ttft_p95_secs" Seconds Engine "95th percentile of the time to the first token"
    "engine.tpot_p95_secs" Seconds Engine "95th percentile of the time per output token"
    "engine.restarts" Count Run "how often another process took the engine's place within the last hour"
    "host.memory_available_bytes" Bytes Host "host memory that can be had without swapping"
    "host.swap_used_bytes" Bytes Host "swap in use"
}

/// The prefix of signals that an engine exposes under its own name: `metric:NAME{label="v"}`.
pub const METRIC_PREFIX: &str = "metric:";

/// A signal older than this is unknown, unless its own source reports more rarely.
pub const MAX_AGE: Duration = Duration::from_secs(10);

/// Finds a signal by the name a rule uses; `metric:…` names are found too.
#[must_use]
pub fn find(name: &str) -> Option<Signal> {
    let metric = Signal {
        name: "metric:",
        unit: Unit::Plain,
        source: Source::Engine,
        help: "as the engine exposes it",
    };
    let named = name
        .strip_prefix(METRIC_PREFIX)
        .is_some_and(|rest| !rest.is_empty());
    CATALOGUE
        .iter()
        .find(|signal| signal.name == name)
        .copied()
        .or(named.then_some(metric))
}

impl Unit {
    /// Reads a threshold: a bare number is in the base unit, text may carry a unit that fits.
    ///
    /// # Errors
    /// [`UnitError`] when the text is not a quantity of this unit.
    pub fn read(self, quantity: &Quantity) -> Result<f64, UnitError> {
        let text = match quantity {
            Quantity::Number(number) => return Ok(*number),
            Quantity::Text(text) => text,
        };
        match self {
            #[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
            Self::Bytes => units::parse_size(text).map(|bytes| bytes as f64),
            Self::Seconds => units::parse_duration(text).map(|duration| duration.as_secs_f64()),
            _ => units::parse_ratio(text),
        }
    }

    /// Prints a value for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates; printed only"
            )]
            Self::Bytes => units::show_bytes(value.max(0.0) as u64),
            Self::Ratio => units::show_ratio(value),
            Self::Seconds => {
                Duration::try_from_secs_f64(value).map_or_else(|_| value.to_string(), units::show_duration)
            }
            Self::PerSecond => format!("{}/s", plain(value)),
            Self::Celsius => format!("{} °C", plain(value)),
            Self::Watts => format!("{} W", plain(value)),
            Self::Count | Self::Flag | Self::Plain => plain(value),
        }
    }
}

fn plain(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_name_and_prefix() {
        assert_eq!(find("vram.used_ratio").map(|s| s.unit), Some(Unit::Ratio));
        assert_eq!(
            find("metric:vllm:num_requests{model=\"a\"}").map(|s| s.unit),
            Some(Unit::Plain)
        );
        assert_eq!(find("metric:"), None);
        assert_eq!(find("vram.use_ratio"), None);
    }

    #[test]
    fn thresholds_are_read_by_unit() {
        let text = |t: &str| Quantity::Text(t.into());
        assert_eq!(Unit::Ratio.read(&text("92%")), Ok(0.92));
        assert_eq!(Unit::Bytes.read(&text("1KiB")), Ok(1024.0));
        assert_eq!(Unit::Seconds.read(&text("10m")), Ok(600.0));
        assert_eq!(Unit::Count.read(&Quantity::Number(4.0)), Ok(4.0));
        assert!(Unit::Bytes.read(&text("92%")).is_err());
        assert!(Unit::Ratio.read(&text("4GiB")).is_err());
    }

    #[test]
    fn values_are_printed_by_unit() {
        assert_eq!(Unit::Ratio.show(0.8), "80 %");
        assert_eq!(Unit::Bytes.show(1024.0), "1.0 KiB");
        assert_eq!(Unit::PerSecond.show(0.2), "0.2/s");
        assert_eq!(Unit::Celsius.show(66.0), "66 °C");
    }
}
