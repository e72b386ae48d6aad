//! What the engine process is at any moment, apart from sockets, signals and the card: the engine, its books, its
//! configuration and what may go wrong with it. The process's one thread steps it and answers requests from it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::args::ReloadFault;
use crate::config::{Config, Quantization};
use crate::journal::Books;
use crate::memory::{Memory, OutOfMemory};
use crate::metrics::{self, Counts, Now};
use crate::model::{Engine, Finished, Hardware, Phase, Request, STEP_SECS, Step};
use crate::workload::Workload;

/// The most steps made in one go; an engine that was suspended catches up over several.
const STEPS_AT_ONCE: u32 = 2000;

/// How a reload began.
#[derive(Debug)]
pub(crate) enum Reload {
    /// The model comes back; the receiver gets word when it is there.
    Loading(oneshot::Receiver<()>),
    /// The configuration was refused, with the reason; everything goes on as before.
    Refused(String),
    /// Said to be done.
    Done,
    /// There will be no answer.
    Silent,
}

#[derive(Debug)]
pub(crate) struct Server {
    engine: Engine,
    config_path: PathBuf,
    /// What is said to be in force; the engine's own configuration is another one under [`ReloadFault::NoEffect`].
    applied: Config,
    config_sha256: String,
    workload: Workload,
    books: Books,
    steps_done: u32,
    counts: Counts,
    memory: Memory,
    reloads: u64,
    reloads_failed: u64,
    last_reload_error: Option<String>,
    reload_waiters: Vec<oneshot::Sender<()>>,
    fault: Option<(ReloadFault, u32)>,
    unhealthy: bool,
    crashed: bool,
    probes: HashMap<u64, oneshot::Sender<Finished>>,
    next_probe: u64,
    arrived_probes: Vec<Request>,
}

/// What a server is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config_path: PathBuf,
    pub(crate) config: Config,
    pub(crate) config_sha256: String,
    pub(crate) hardware: Hardware,
    /// Where the HTTP server listens.
    pub(crate) listen: SocketAddr,
    pub(crate) workload: Workload,
    pub(crate) books: Books,
    /// Moment of its start, in seconds of the simulated world.
    pub(crate) start_secs: f64,
    pub(crate) fault: Option<(ReloadFault, u32)>,
}

impl Server {
    pub(crate) fn new(parts: Parts) -> Self {
        let applied = Config {
            listen: parts.listen,
            ..parts.config
        };
        Self {
            engine: Engine::new(
                applied.clone(),
                parts.hardware,
                parts.workload.leak_bytes_per_request,
            ),
            config_path: parts.config_path,
            applied,
            config_sha256: parts.config_sha256,
            workload: parts.workload,
            books: parts.books,
            steps_done: steps_until(parts.start_secs),
            counts: Counts::default(),
            memory: Memory::default(),
            reloads: 0,
            reloads_failed: 0,
            last_reload_error: None,
            reload_waiters: Vec::new(),
            fault: parts.fault,
            unhealthy: false,
            crashed: false,
            probes: HashMap::new(),
            next_probe: 0,
            arrived_probes: Vec::new(),
        }
    }

    /// Goes on to a moment of the simulated world. Returns the share of the time in which the card worked, or `None`
    /// if it is not yet time for a step.
    ///
    /// # Errors
    /// Memory is out, and with it the engine's life.
    pub(crate) fn go_on(&mut self, now_secs: f64, limit_bytes: u64) -> Result<Option<f64>, OutOfMemory> {
        let steps = steps_until(now_secs)
            .saturating_sub(self.steps_done)
            .min(STEPS_AT_ONCE);
        let mut busy = 0.0;
        for _ in 0..steps {
            self.steps_done += 1;
            let now = f64::from(self.steps_done) * STEP_SECS;
            let arrivals = self.arrivals(now);
            self.books.taken += arrivals.len() as u64;
            let step = self.engine.step(now, limit_bytes, arrivals)?;
            self.memory = step.memory;
            busy += step.busy_ratio;
            self.note(&step);
        }
        if self.engine.phase() == Phase::Serving {
            for waiter in self.reload_waiters.drain(..) {
                // Whoever asked may have gone.
                waiter.send(()).ok();
            }
        }
        Ok((steps > 0).then(|| busy / f64::from(steps)))
    }

    /// Writes down that this life ends because memory is out.
    pub(crate) fn close_books(&mut self) {
        self.books.out_of_memory += 1;
        self.books.lost = self.books.taken.saturating_sub(self.books.served);
    }

    fn arrivals(&mut self, now_secs: f64) -> Vec<Request> {
        let all = &self.workload.arrivals;
        let due = all
            .partition_point(|arrival| arrival.at_secs <= now_secs)
            .max(self.books.next_arrival);
        let mut requests: Vec<Request> = all
            .get(self.books.next_arrival..due)
            .unwrap_or_default()
            .iter()
            .map(Request::from)
            .collect();
        self.books.next_arrival = due;
        requests.append(&mut self.arrived_probes);
        requests
    }

    fn note(&mut self, step: &Step) {
        self.counts.add(step);
        self.books.served += step.finished.len() as u64;
        for finished in &step.finished {
            if let Some(sender) = finished
                .request
                .probe
                .and_then(|probe| self.probes.remove(&probe))
            {
                // Whoever asked may have gone.
                sender.send(*finished).ok();
            }
        }
        self.lose(&step.lost);
    }

    /// Dropping a probe's sender tells whoever waits for it.
    fn lose(&mut self, lost: &[Request]) {
        self.books.lost += lost.len() as u64;
        for request in lost {
            request.probe.and_then(|probe| self.probes.remove(&probe));
        }
    }

    /// Sends a request of a client; the receiver gets the answer, or is closed if the request is lost.
    pub(crate) fn probe(&mut self, input_tokens: u32, output_tokens: u32) -> oneshot::Receiver<Finished> {
        let (sender, receiver) = oneshot::channel();
        self.next_probe += 1;
        self.probes.insert(self.next_probe, sender);
        self.arrived_probes.push(Request {
            probe: Some(self.next_probe),
            arrived_secs: f64::from(self.steps_done) * STEP_SECS,
            input_tokens,
            output_tokens,
        });
        receiver
    }

    /// Reads the configuration again and applies it. The address that it listens on stays.
    pub(crate) fn reload(&mut self) -> Reload {
        let (config, sha256) = match Config::read(&self.config_path) {
            Ok((config, sha256)) => (
                Config {
                    listen: self.applied.listen,
                    ..config
                },
                sha256,
            ),
            Err(error) => {
                let reason = crate::process::chain(&error);
                self.reloads_failed += 1;
                self.last_reload_error = Some(reason.clone());
                return Reload::Refused(reason);
            }
        };
        let fault = self.next_fault();
        self.last_reload_error = None;
        self.unhealthy = fault == Some(ReloadFault::Unhealthy);
        let before = self.engine.config().clone();
        self.reloads += 1;
        self.config_sha256 = sha256;
        self.applied = config.clone();
        match fault {
            None | Some(ReloadFault::Unhealthy) => self.engine.reload(config),
            Some(ReloadFault::NoEffect) => self.engine.reload(before),
            Some(ReloadFault::Unload) => {
                let lost = self.engine.unload();
                self.counts.add_lost(lost.len());
                self.lose(&lost);
                return Reload::Done;
            }
            Some(ReloadFault::Crash) => {
                self.crashed = true;
                return Reload::Silent;
            }
            Some(ReloadFault::Hang) => {
                self.engine.reload(Config {
                    load_secs: f64::MAX,
                    ..before
                });
                return Reload::Silent;
            }
        }
        let (sender, receiver) = oneshot::channel();
        self.reload_waiters.push(sender);
        Reload::Loading(receiver)
    }

    fn next_fault(&mut self) -> Option<ReloadFault> {
        let (fault, left) = self.fault.as_mut().filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(*fault)
    }

    /// Whether a reload has killed it.
    pub(crate) fn crashed(&self) -> bool {
        self.crashed
    }

    /// Whether requests are answered.
    pub(crate) fn ready(&self) -> bool {
        self.engine.phase() == Phase::Serving
    }

    /// What `/health` says; like real ones it says nothing of a model that is gone.
    pub(crate) fn healthy(&self) -> bool {
        !self.unhealthy && !matches!(self.engine.phase(), Phase::Loading { .. })
    }

    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How the weights are said to be stored.
    pub(crate) fn quantization(&self) -> Quantization {
        self.applied.model.quantization
    }

    pub(crate) fn model_name(&self) -> &str {
        &self.applied.model.name
    }

    /// Memory that the load's other process wants at a moment; `None` if this load has no other process.
    pub(crate) fn neighbor_bytes(&self, now_secs: f64) -> Option<u64> {
        (!self.workload.neighbor.is_empty()).then(|| self.workload.neighbor_bytes(now_secs))
    }

    /// The body of `/status`.
    pub(crate) fn status(&self) -> Value {
        let state = match self.engine.phase() {
            Phase::Loading { .. } => "loading",
            Phase::Serving => "serving",
            Phase::Unloaded => "unloaded",
        };
        let mut memory = json!(self.memory);
        memory["total_bytes"] = json!(self.memory.total_bytes());
        json!({
            "pid": std::process::id(),
            "at_secs": f64::from(self.steps_done) * STEP_SECS,
            "model": { "name": self.model_name(), "ready": self.ready(), "state": state },
            "healthy": self.healthy(),
            "applied": self.applied,
            "config_path": self.config_path,
            "config_sha256": self.config_sha256,
            "restarts": self.books.starts.saturating_sub(1),
            "out_of_memory": self.books.out_of_memory,
            "reloads": self.reloads,
            "reloads_failed": self.reloads_failed,
            "last_reload_error": self.last_reload_error,
            "requests": {
                "running": self.engine.running(),
                "waiting": self.engine.waiting(),
                "served": self.books.served,
                "lost": self.books.lost,
            },
            "memory": memory,
        })
    }

    /// The body of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        metrics::page(
            &self.counts,
            &Now {
                model: self.model_name(),
                ready: self.ready(),
                running: self.engine.running(),
                waiting: self.engine.waiting(),
                kv_tokens: self.engine.kv_tokens(),
                memory: &self.memory,
                reloads: self.reloads,
                reloads_failed: self.reloads_failed,
                restarts: self.books.starts.saturating_sub(1),
            },
        )
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, which is six years of load"
)]
fn steps_until(secs: f64) -> u32 {
    (secs / STEP_SECS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerated::{Options, simulate};
    use crate::config::Format;
    use crate::scenario::Scenario;

    fn server(config: &Config, workload: Workload) -> Server {
        Server::new(Parts {
            config_path: "unused.yaml".into(),
            config: config.clone(),
            config_sha256: String::new(),
            hardware: Hardware {
                usable_bytes: (24 << 30) - (450 << 20),
                speed: 1.0,
            },
            listen: config.listen,
            workload,
            books: Books::default(),
            start_secs: 0.0,
            fault: None,
        })
    }

    /// The process's engine, called at uneven moments, does to the byte what the accelerated one does.
    #[test]
    fn the_process_and_the_accelerated_world_are_one_engine() {
        let config = |text| Config::parse(text, Format::Yaml).expect("valid");
        let small = config("model: {name: a, quantization: int4}\ngradient_checkpointing: true");
        let large = config("model: {name: a}");
        let options = Options {
            total_bytes: 24 << 30,
            reserved_bytes: 0,
            restart_delay_secs: 1e9,
            duration_secs: 240.0,
        };
        for (config, scenario, dies) in [(small, Scenario::Leak, false), (large, Scenario::Steady, true)] {
            let workload = scenario.workload(9, options.duration_secs);
            let expected = simulate(&config, &workload, &options, |_| None);
            let mut server = server(&config, workload);
            let (mut now, mut peak, mut out_of_memory) = (0.0, 0, 0);
            while now < options.duration_secs && out_of_memory == 0 {
                now = f64::min(now + 0.07, options.duration_secs);
                match server.go_on(now, options.total_bytes) {
                    Ok(_) => peak = peak.max(server.memory().total_bytes()),
                    Err(_) => {
                        server.close_books();
                        out_of_memory += 1;
                    }
                }
            }
            assert_eq!(out_of_memory, u32::from(dies), "{scenario:?}");
            assert_eq!(out_of_memory, expected.out_of_memory, "{scenario:?}");
            assert_eq!(server.books().served, expected.served, "{scenario:?}");
            assert_eq!(server.books().lost, expected.lost, "{scenario:?}");
            assert!(
                peak <= expected.peak_bytes && peak > expected.peak_bytes * 9 / 10,
                "{scenario:?} {peak}"
            );
        }
    }

    #[test]
    fn an_engine_that_slept_catches_up_in_several_goes() {
        let config = Config::parse("model: {name: a}", Format::Yaml).expect("valid");
        let mut server = server(&config, Workload::default());
        server.go_on(1e6, 24 << 30).expect("fits");
        assert_eq!(server.status()["at_secs"], f64::from(STEPS_AT_ONCE) * STEP_SECS);
    }
}
