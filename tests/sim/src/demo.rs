//! The story that `plimsoll demo` tells: a load on one card that grows past what the engine can carry, and would kill
//! it again and again if nobody changed its configuration.
//!
//! The story takes [`SIMULATED_SECS`] of the simulated world, whatever time it is shown in: a shorter demo runs it
//! faster. `used / (total - reserved)` begins above 60 %, crosses 80 % after a quarter of the time, falls by about
//! 2 GiB when the activations are checkpointed, crosses 92 % somewhat before 60 % of the time, and stays below 90 %
//! when the weights are quantized to 8 bits. Left alone, the engine runs out of memory before half of the time is over,
//! and then again and again under its backlog.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plimsoll_sim_gpu::DeviceSpec;

use crate::accelerated::{Options, Summary, simulate};
use crate::config::{Config, ConfigError, Format};
use crate::scenario::Scenario;

/// Length of the story in seconds of the simulated world.
pub const SIMULATED_SECS: f64 = 300.0;
/// Memory of the card, in bytes.
pub const TOTAL_BYTES: u64 = 24 << 30;
/// What the driver keeps of it, in bytes.
pub const RESERVED_BYTES: u64 = 450 << 20;
/// From the engine's death to its next start, in seconds of the simulated world.
const RESTART_DELAY_SECS: f64 = 10.0;
const SCENARIO: Scenario = Scenario::Ramp;

/// The card of the demo.
#[must_use]
pub fn demo_device() -> DeviceSpec {
    let mut device = DeviceSpec::new(
        "GPU-51311a11-0000-4000-8000-000000000024",
        "Simulated GPU 24 GiB",
        TOTAL_BYTES,
    );
    device.reserved_bytes = RESERVED_BYTES;
    device
}

/// The engine's configuration file as its human wrote it, in YAML.
#[must_use]
pub fn demo_engine_config(listen: SocketAddr) -> String {
    format!(
        "\
# Inference server of the demo team. Ask #model-serving before you change the model.
model:
  name: harbor-7b-chat         # the name that clients ask for
  parameters_billions: 7
  quantization: none           # none | int8 | int4

# Keeps only checkpoints of the activations: less memory, about 5 % slower.
gradient_checkpointing: false

max_batch_size: 256            # requests that run at once
context_length: 8192           # prompt and answer together, in tokens
kv_bytes_per_token: 131072     # 32 layers x 2 x 8 heads x 128 x 2 bytes

listen: {listen}
load_secs: 2                   # the weights come from the page cache
"
    )
}

/// One showing of the story.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demo {
    /// Which load: the story is the same for every seed, its details are not.
    pub seed: u64,
    /// How long it is shown.
    pub duration: Duration,
}

/// Where the demo's engine finds and leaves its files.
#[derive(Clone, Copy, Debug)]
pub struct DemoFiles<'a> {
    /// The engine's configuration.
    pub config: &'a Path,
    /// The state of the simulated GPU.
    pub gpu: &'a Path,
    /// Where the engine writes the port that it listens on.
    pub port_file: &'a Path,
    /// Where the engine keeps its books from one life to the next.
    pub journal: &'a Path,
}

impl Demo {
    /// Seconds of the simulated world in one second of the demo.
    #[must_use]
    pub fn speed(&self) -> f64 {
        SIMULATED_SECS / self.duration.as_secs_f64().max(0.1)
    }

    /// How long a supervisor waits before it starts a dead engine again.
    #[must_use]
    pub fn restart_delay(&self) -> Duration {
        Duration::from_secs_f64(RESTART_DELAY_SECS / self.speed())
    }

    /// The arguments for [`run_engine`](crate::run_engine), without the program and its subcommand. The load begins
    /// at `epoch_ns` (Unix time in nanoseconds).
    #[must_use]
    pub fn engine_args(&self, files: &DemoFiles<'_>, epoch_ns: i64) -> Vec<OsString> {
        let path = |path: &Path| path.as_os_str().to_owned();
        let text = |value: &dyn ToString| OsString::from(value.to_string());
        vec![
            "--config".into(),
            path(files.config),
            "--gpu".into(),
            path(files.gpu),
            "--port-file".into(),
            path(files.port_file),
            "--journal".into(),
            path(files.journal),
            "--scenario".into(),
            "ramp".into(),
            "--seed".into(),
            text(&self.seed),
            "--epoch-ns".into(),
            text(&epoch_ns),
            "--duration".into(),
            text(&SIMULATED_SECS),
            "--speed".into(),
            text(&self.speed()),
            "--die-with-parent".into(),
        ]
    }

    /// What becomes of the same load when nobody changes the configuration.
    ///
    /// # Errors
    /// `config` is not a valid configuration of the engine in YAML.
    pub fn without_tuner(&self, config: &str) -> Result<Summary, ConfigError> {
        let config = Config::parse(config, Format::Yaml)?;
        let workload = SCENARIO.workload(self.seed, SIMULATED_SECS);
        Ok(simulate(&config, &workload, &options(), |_| None))
    }
}

const fn options() -> Options {
    Options {
        total_bytes: TOTAL_BYTES,
        reserved_bytes: RESERVED_BYTES,
        restart_delay_secs: RESTART_DELAY_SECS,
        duration_secs: SIMULATED_SECS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerated::Reading;
    use crate::config::Quantization;

    const GIB: f64 = (1_u64 << 30) as f64;

    /// What a tuner does that reads its lines at 80 % and 92 % and needs `delay_secs` to act.
    struct Tuner {
        config: Config,
        delay_secs: f64,
        due_secs: Option<f64>,
        crossed: Vec<f64>,
        acted_secs: f64,
        used_before_bytes: u64,
        freed_gib: Vec<f64>,
        first_ratio: Option<f64>,
        last_ratios: f64,
    }

    impl Tuner {
        fn see(&mut self, reading: &Reading) -> Option<Config> {
            if reading.ready {
                self.first_ratio.get_or_insert(reading.used_ratio);
                if reading.at_secs > self.acted_secs + 1.0 && self.freed_gib.len() < self.rungs_done() {
                    let freed = self.used_before_bytes as f64 - reading.used_bytes as f64;
                    self.freed_gib.push(freed / GIB);
                }
                if self.rungs_done() == 2 {
                    self.last_ratios = self.last_ratios.max(reading.used_ratio);
                }
                let line = [0.80, 0.92]
                    .get(self.crossed.len())
                    .copied()
                    .unwrap_or(f64::INFINITY);
                if self.due_secs.is_none() && reading.used_ratio >= line {
                    self.crossed.push(reading.at_secs / SIMULATED_SECS);
                    self.due_secs = Some(reading.at_secs + self.delay_secs);
                }
            }
            self.due_secs.filter(|due| reading.at_secs >= *due)?;
            self.due_secs = None;
            self.acted_secs = reading.at_secs + self.config.load_secs;
            self.used_before_bytes = reading.used_bytes;
            if self.config.gradient_checkpointing {
                self.config.model.quantization = Quantization::Int8;
            }
            self.config.gradient_checkpointing = true;
            Some(self.config.clone())
        }

        fn rungs_done(&self) -> usize {
            self.crossed.len() - usize::from(self.due_secs.is_some())
        }
    }

    fn told(seed: u64, delay_secs: f64) -> (Tuner, Summary) {
        let config = Config::parse(
            &demo_engine_config(SocketAddr::from(([127, 0, 0, 1], 0))),
            Format::Yaml,
        );
        let config = config.expect("valid");
        let mut tuner = Tuner {
            config: config.clone(),
            delay_secs,
            due_secs: None,
            crossed: Vec::new(),
            acted_secs: f64::INFINITY,
            used_before_bytes: 0,
            freed_gib: Vec::new(),
            first_ratio: None,
            last_ratios: 0.0,
        };
        let workload = SCENARIO.workload(seed, SIMULATED_SECS);
        let summary = simulate(&config, &workload, &options(), |reading| tuner.see(reading));
        (tuner, summary)
    }

    /// The reaction of a tuner in the simulated world grows with the demo's speed: half a second of a demo of ten
    /// seconds is fifteen seconds here, and of one of two minutes about one.
    #[test]
    fn the_story_holds_for_every_seed_and_every_pace_of_the_tuner() {
        for seed in 0..=20 {
            for delay_secs in [0.0, 15.0] {
                let (tuner, summary) = told(seed, delay_secs);
                let case = format!("seed {seed}, delay {delay_secs}: {:?} {summary:?}", tuner.crossed);
                let first_ratio = tuner.first_ratio.expect("it was ready once");
                assert!(
                    (0.58..0.66).contains(&first_ratio),
                    "{case} starts at {first_ratio}"
                );
                let [checkpointing, quantize] = tuner.crossed[..] else {
                    panic!("{case}")
                };
                assert!((0.22..0.29).contains(&checkpointing), "{case}");
                assert!((0.54..0.62).contains(&quantize), "{case}");
                assert!(tuner.freed_gib[0] > 1.5, "{case} freed {:?}", tuner.freed_gib);
                assert!(tuner.freed_gib[1] > 3.0, "{case} freed {:?}", tuner.freed_gib);
                assert!(tuner.last_ratios < 0.90, "{case} ends at {}", tuner.last_ratios);
                assert_eq!((summary.out_of_memory, summary.reloads), (0, 2), "{case}");
            }
        }
    }

    #[test]
    fn left_alone_the_engine_runs_out_of_memory_at_least_twice_for_every_seed() {
        let config = demo_engine_config(SocketAddr::from(([127, 0, 0, 1], 8000)));
        for seed in 0..=20 {
            let demo = Demo {
                seed,
                duration: Duration::from_secs(30),
            };
            let summary = demo.without_tuner(&config).expect("valid");
            assert!(summary.out_of_memory >= 2, "seed {seed}: {summary:?}");
            assert!(
                summary.lost > 100 && summary.down_secs() > 20.0,
                "seed {seed}: {summary:?}"
            );
        }
    }

    #[test]
    fn a_shorter_demo_is_a_faster_one() {
        let demo = |secs| Demo {
            seed: 0,
            duration: Duration::from_secs(secs),
        };
        assert_eq!(demo(30).speed(), 10.0);
        assert_eq!(demo(120).speed(), 2.5);
        assert_eq!(demo(30).restart_delay(), Duration::from_secs(1));
    }
}
