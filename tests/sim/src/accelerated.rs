//! The engine without processes: hours of load in seconds, with a hook through which a policy can change the
//! configuration while it runs.

use crate::config::Config;
use crate::memory::Memory;
use crate::model::{Engine, Hardware, Phase, Request, STEP_SECS};
use crate::workload::Workload;

/// The world around the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Memory of the card, in bytes.
    pub total_bytes: u64,
    /// What the driver keeps of it for itself.
    pub reserved_bytes: u64,
    /// From the death of an engine to the start of the next, in seconds of the simulated world.
    pub restart_delay_secs: f64,
    /// How long to simulate, in seconds of the simulated world.
    pub duration_secs: f64,
}

/// What a policy sees after each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Seconds of the simulated world since the load began.
    pub at_secs: f64,
    /// Memory in use on the card: the engine's and its neighbor's.
    pub used_bytes: u64,
    /// `used / (total - reserved)`.
    pub used_ratio: f64,
    /// The engine's part by kind; all zero while there is no engine.
    pub memory: Memory,
    /// Whether the model answers.
    pub ready: bool,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// A time in which the model did not answer because its process had died.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// When the process died.
    pub from_secs: f64,
    /// When the next one's model answered, or the end of the simulation.
    pub until_secs: f64,
}

/// What became of the load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How often the engine died because memory was out.
    pub out_of_memory: u32,
    /// The time that each death cost.
    pub outages: Vec<Outage>,
    /// Configurations applied by the policy.
    pub reloads: u32,
    /// The highest memory of the engine, in bytes.
    pub peak_bytes: u64,
    /// Requests answered in full.
    pub served: u64,
    /// Requests turned away or in flight at a death.
    pub lost: u64,
    /// Requests in flight at the end.
    pub unfinished: u64,
}

impl Summary {
    /// Time without an answering model because of deaths, in seconds of the simulated world.
    #[must_use]
    pub fn down_secs(&self) -> f64 {
        let each = self
            .outages
            .iter()
            .map(|outage| outage.until_secs - outage.from_secs);
        each.fold(0.0, |sum, secs| sum + secs)
    }
}

/// Runs a load. `policy` is asked after each step and may answer with a configuration to reload.
pub fn simulate(
    config: &Config,
    workload: &Workload,
    options: &Options,
    mut policy: impl FnMut(&Reading) -> Option<Config>,
) -> Summary {
    let mut summary = Summary::default();
    let mut config = config.clone();
    let hardware = Hardware {
        usable_bytes: options.total_bytes.saturating_sub(options.reserved_bytes),
        speed: 1.0,
    };
    let start = |config: &Config| Engine::new(config.clone(), hardware, workload.leak_bytes_per_request);
    let mut engine = Some(start(&config));
    let mut start_at_secs = 0.0;
    let mut taken = 0;
    let mut used_bytes = 0;
    for number in 1_u32.. {
        let now = f64::from(number) * STEP_SECS;
        if now > options.duration_secs {
            break;
        }
        if engine.is_none() && now >= start_at_secs {
            engine = Some(start(&config));
        }
        // A neighbor gets no more than the engine left of the card.
        let capacity = hardware.usable_bytes;
        let neighbor_bytes = workload
            .neighbor_bytes(now)
            .min(capacity.saturating_sub(used_bytes));
        let mut reading = Reading {
            at_secs: now,
            used_bytes: neighbor_bytes,
            used_ratio: 0.0,
            memory: Memory::default(),
            ready: false,
            running: 0,
            waiting: 0,
        };
        if let Some(alive) = &mut engine {
            let due = workload
                .arrivals
                .partition_point(|arrival| arrival.at_secs <= now);
            let arrivals = workload
                .arrivals
                .get(taken..due)
                .unwrap_or_default()
                .iter()
                .map(Request::from);
            taken = due.max(taken);
            let in_flight = alive.running() + alive.waiting() + arrivals.len();
            match alive.step(now, capacity - neighbor_bytes, arrivals) {
                Ok(step) => {
                    summary.served += step.finished.len() as u64;
                    summary.lost += step.lost.len() as u64;
                    reading.memory = step.memory;
                    reading.ready = alive.phase() == Phase::Serving;
                    (reading.running, reading.waiting) = (alive.running(), alive.waiting());
                }
                Err(_) => {
                    summary.out_of_memory += 1;
                    summary.lost += in_flight as u64;
                    close_outage(&mut summary, now);
                    summary.outages.push(Outage {
                        from_secs: now,
                        until_secs: f64::INFINITY,
                    });
                    start_at_secs = now + options.restart_delay_secs;
                    engine = None;
                }
            }
        }
        used_bytes = reading.memory.total_bytes();
        summary.peak_bytes = summary.peak_bytes.max(used_bytes);
        reading.used_bytes += used_bytes;
        reading.used_ratio = reading.used_bytes as f64 / capacity as f64;
        if reading.ready {
            close_outage(&mut summary, now);
        }
        if let Some(changed) = policy(&reading) {
            config = changed;
            if let Some(alive) = &mut engine {
                alive.reload(config.clone());
                summary.reloads += 1;
            }
        }
    }
    close_outage(&mut summary, options.duration_secs);
    summary.unfinished = engine.map_or(0, |alive| (alive.running() + alive.waiting()) as u64)
        + workload
            .arrivals
            .iter()
            .skip(taken)
            .filter(|arrival| arrival.at_secs <= options.duration_secs)
            .count() as u64;
    summary
}

fn close_outage(summary: &mut Summary, now: f64) {
    if let Some(last) = summary.outages.last_mut()
        && last.until_secs.is_infinite()
    {
        last.until_secs = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, Quantization};
    use crate::scenario::Scenario;
    use crate::workload::NeighborStep;
    use clap::ValueEnum;

    const OPTIONS: Options = Options {
        total_bytes: 24 << 30,
        reserved_bytes: 450 << 20,
        restart_delay_secs: 10.0,
        duration_secs: 600.0,
    };

    fn config(more: &str) -> Config {
        Config::parse(
            &format!("model: {{name: a, {more}}}\ncontext_length: 65536"),
            Format::Yaml,
        )
        .expect("valid")
    }

    #[test]
    fn every_request_is_accounted_for_in_every_scenario() {
        for scenario in Scenario::value_variants() {
            let workload = scenario.workload(11, OPTIONS.duration_secs);
            let summary = simulate(&config(""), &workload, &OPTIONS, |_| None);
            let told = summary.served + summary.lost + summary.unfinished;
            assert_eq!(told, workload.arrivals.len() as u64, "{scenario:?}: {summary:?}");
            assert_eq!(
                summary.outages.len(),
                summary.out_of_memory as usize,
                "{scenario:?}"
            );
            assert!(
                summary.peak_bytes <= OPTIONS.total_bytes - OPTIONS.reserved_bytes,
                "{scenario:?}"
            );
        }
    }

    #[test]
    fn chat_of_production_kills_the_plain_engine_and_not_the_quantized_one() {
        let workload = Scenario::Steady.workload(11, OPTIONS.duration_secs);
        let plain = simulate(&config(""), &workload, &OPTIONS, |_| None);
        assert!(plain.out_of_memory > 0, "{plain:?}");
        let mut reduced = config("quantization: int4");
        reduced.gradient_checkpointing = true;
        reduced.max_batch_size = 64;
        let reduced = simulate(&reduced, &workload, &OPTIONS, |_| None);
        assert_eq!(reduced.out_of_memory, 0, "{reduced:?}");
        assert!(reduced.served > plain.served);
    }

    #[test]
    fn a_policy_changes_the_configuration_while_it_runs() {
        let workload = Scenario::Idle.workload(0, OPTIONS.duration_secs);
        let mut last = 0;
        let summary = simulate(&config(""), &workload, &OPTIONS, |reading| {
            last = reading.memory.weights_bytes;
            let due = (reading.at_secs - 300.0).abs() < STEP_SECS / 2.0;
            due.then(|| config("quantization: int8"))
        });
        assert_eq!(summary.reloads, 1);
        assert_eq!(last, crate::memory::weights_bytes(&config("quantization: int8")));
        assert_eq!(
            config("quantization: int8").model.quantization,
            Quantization::Int8
        );
    }

    #[test]
    fn a_neighbor_takes_only_what_is_left_and_is_counted_as_used() {
        let workload = Workload {
            neighbor: vec![NeighborStep {
                from_secs: 100.0,
                bytes: 20 << 30,
            }],
            ..Workload::default()
        };
        let (mut before, mut after) = (0.0, 0.0);
        let summary = simulate(&config(""), &workload, &OPTIONS, |reading| {
            if reading.at_secs < 100.0 {
                before = reading.used_ratio
            } else {
                after = reading.used_ratio
            }
            None
        });
        assert_eq!(summary.out_of_memory, 0);
        assert!(before < 0.7 && after > 0.99 && after <= 1.0, "{before} {after}");
    }
}
