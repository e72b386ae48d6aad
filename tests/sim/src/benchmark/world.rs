//! One engine under a load and a policy, second by second; what became of each request, and what the policy did.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{Engine, Finished, Hardware, Phase, Request, STEP_SECS};
use crate::workload::Workload;

use super::rungs::Rungs;
use super::score::{Score, is_good};

/// How long an engine that is to be restarted may finish what it serves, in seconds.
pub const DRAIN_SECS: f64 = 10.0;
/// From the death of an engine to the start of the next, in seconds, beside the restart itself.
const SUPERVISOR_SECS: f64 = 10.0;
/// Latencies of the last so many seconds make the percentiles.
const LATENCY_SECS: f64 = 30.0;

/// What stays the same while an engine is simulated.
#[derive(Debug)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// What clients ask.
    pub workload: Workload,
    /// How long, in seconds.
    pub duration_secs: f64,
    /// The card.
    pub hardware: Hardware,
    /// The configurations, from the person's own to the most reduced.
    pub rungs: Rungs,
    /// How long a restart takes until the model answers, in seconds.
    pub restart_secs: f64,
}

/// What a policy sees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Seconds since the load began.
    pub at_secs: f64,
    /// Whether the model answers.
    pub ready: bool,
    /// Memory in use on the card, bytes.
    pub used_bytes: u64,
    /// `used / usable`.
    pub used_ratio: f64,
    /// Share of the KV cache in use; `None` without a pool.
    pub kv_used_ratio: Option<f64>,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Share of the requests that were turned away.
    pub refused_ratio: Option<f64>,
    /// Requests put off, per second.
    pub preemptions_per_sec: f64,
    /// 95th percentile of the time to the first token, of what ended lately.
    pub ttft_p95_secs: Option<f64>,
    /// 95th percentile of the time per token, of what ended lately.
    pub tpot_p95_secs: Option<f64>,
    /// Deaths by memory so far.
    pub oom: u32,
}

/// The engine's life.
#[derive(Clone, Debug)]
enum Life {
    Up(Engine),
    /// Takes nothing new, and ends when it has nothing left or at this moment.
    Drains(Engine, f64),
    /// No process until this moment.
    Down(f64),
}

/// An engine under way. A copy is another course of the same world.
#[derive(Clone, Debug)]
pub struct World {
    scenario: Arc<Scenario>,
    life: Life,
    rung: usize,
    taken: usize,
    step: u32,
    used_bytes: u64,
    latencies: VecDeque<(f64, f64, Option<f64>)>,
    preempted: u32,
    score: Score,
}

impl World {
    /// The load begins; the engine is up.
    #[must_use]
    pub fn new(scenario: Arc<Scenario>, rung: usize) -> Self {
        let mut world = Self {
            life: Life::Down(0.0),
            rung,
            taken: 0,
            step: 0,
            used_bytes: 0,
            latencies: VecDeque::new(),
            preempted: 0,
            score: Score::new(&scenario),
            scenario,
        };
        world.life = Life::Up(world.start());
        world
    }

    fn start(&self) -> Engine {
        let config = self.scenario.rungs.config(self.rung).clone();
        Engine::new(config, self.scenario.hardware, self.scenario.workload.leak_bytes_per_request)
    }

    /// The rung in force, or on its way.
    #[must_use]
    pub const fn rung(&self) -> usize {
        self.rung
    }

    /// The score so far.
    #[must_use]
    pub const fn score(&self) -> &Score {
        &self.score
    }

    /// Seconds since the load began.
    #[must_use]
    pub fn now_secs(&self) -> f64 {
        f64::from(self.step) * STEP_SECS
    }

    pub fn kv_tokens(&self) -> f64 {
        match &self.life {
            Life::Up(engine) | Life::Drains(engine, _) => engine.kv_tokens(),
            Life::Down(_) => 0.0,
        }
    }

    /// Whether the load is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.now_secs() >= self.scenario.duration_secs
    }

    /// Whether a change can be made now: the engine is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.life, Life::Up(_))
    }

    /// Takes another rung. Limits change at once; for anything else the engine is drained and restarted. A dead engine
    /// comes back on it.
    pub fn change(&mut self, rung: usize) {
        if rung == self.rung {
            return;
        }
        let now = self.now_secs();
        let is_hot = self.scenario.rungs.is_hot(self.rung, rung);
        self.score.changed(now, self.rung, rung, !is_hot);
        self.rung = rung;
        let config = self.scenario.rungs.config(rung);
        self.life = match std::mem::replace(&mut self.life, Life::Down(now)) {
            Life::Up(mut engine) if is_hot => {
                engine.limit(config);
                Life::Up(engine)
            }
            Life::Up(mut engine) => {
                let waiting = engine.drop_waiting();
                self.score.lost(waiting.len());
                Life::Drains(engine, now + DRAIN_SECS)
            }
            other => other,
        };
    }

    /// Goes on by `secs` and returns what is seen then.
    pub fn advance(&mut self, secs: f64) -> Reading {
        let steps = (secs / STEP_SECS).round() as u32;
        let preempted_before = self.preempted;
        let (lost_before, taken_before) = (self.score.lost, self.taken);
        for _ in 0..steps {
            if self.is_over() {
                break;
            }
            self.advance_step();
        }
        let now = self.now_secs();
        while self.latencies.front().is_some_and(|(at, ..)| *at < now - LATENCY_SECS) {
            self.latencies.pop_front();
        }
        let mut reading = Reading {
            at_secs: now,
            used_bytes: self.used_bytes,
            used_ratio: self.used_bytes as f64 / self.scenario.hardware.usable_bytes as f64,
            preemptions_per_sec: f64::from(self.preempted - preempted_before) / secs,
            oom: self.score.oom,
            ..Reading::default()
        };
        if let Life::Up(engine) = &self.life {
            reading.ready = engine.phase() == Phase::Serving;
            reading.running = engine.running();
            reading.waiting = engine.waiting();
            reading.kv_used_ratio = engine.kv_used_ratio();
            reading.refused_ratio = Some((self.score.lost - lost_before) as f64 / ((self.taken - taken_before).max(1)) as f64);
            reading.ttft_p95_secs = p95(self.latencies.iter().map(|(_, first, _)| *first));
            reading.tpot_p95_secs = p95(self.latencies.iter().filter_map(|(_, _, per)| *per));
        }
        reading
    }

    fn advance_step(&mut self) {
        self.step += 1;
        let now = self.now_secs();
        let scenario = Arc::clone(&self.scenario);
        let arrivals = &scenario.workload.arrivals;
        let due = self.taken
            + arrivals
                .get(self.taken..)
                .unwrap_or_default()
                .iter()
                .take_while(|arrival| arrival.at_secs <= now)
                .count();
        let new = arrivals.get(self.taken..due).unwrap_or_default();
        self.taken = due;
        let capacity = scenario.hardware.usable_bytes;
        let own_bytes = self.used_bytes.saturating_sub(self.score.neighbor_bytes);
        let neighbor = scenario
            .workload
            .neighbor_bytes(now)
            .min(capacity.saturating_sub(own_bytes));
        self.score.neighbor_bytes = neighbor;
        let mut own_bytes = 0;
        let life = std::mem::replace(&mut self.life, Life::Down(now));
        self.life = match life {
            Life::Up(mut engine) => {
                let in_flight = engine.running() + engine.waiting() + new.len();
                match engine.step(now, capacity - neighbor, new.iter().map(Request::from)) {
                    Ok(step) => {
                        own_bytes = step.memory.total_bytes();
                        self.preempted += step.preempted;
                        self.score.lost(step.lost.len());
                        self.finished(&step.finished);
                        if engine.phase() != Phase::Serving {
                            self.score.down(STEP_SECS);
                        }
                        Life::Up(engine)
                    }
                    Err(_) => {
                        self.score.oom += 1;
                        self.score.lost(in_flight);
                        Life::Down(now + SUPERVISOR_SECS + scenario.restart_secs)
                    }
                }
            }
            Life::Drains(mut engine, until) => {
                self.score.down(STEP_SECS);
                self.score.lost(new.len());
                let in_flight = engine.running();
                match engine.step(now, capacity - neighbor, []) {
                    Ok(step) => {
                        own_bytes = step.memory.total_bytes();
                        self.finished(&step.finished);
                        if engine.running() == 0 || now >= until {
                            self.score.lost(engine.running());
                            Life::Down(now + scenario.restart_secs)
                        } else {
                            Life::Drains(engine, until)
                        }
                    }
                    Err(_) => {
                        self.score.oom += 1;
                        self.score.lost(in_flight);
                        Life::Down(now + scenario.restart_secs)
                    }
                }
            }
            Life::Down(until) => {
                self.score.down(STEP_SECS);
                self.score.lost(new.len());
                if now >= until {
                    Life::Up(self.start())
                } else {
                    Life::Down(until)
                }
            }
        };
        self.used_bytes = neighbor + own_bytes;
        self.score.on_rung(self.rung, STEP_SECS);
    }

    fn finished(&mut self, finished: &[Finished]) {
        let now = self.now_secs();
        for one in finished {
            self.score
                .finished(is_good(one), self.scenario.rungs.is_full_quality(self.rung_served()));
            self.latencies
                .push_back((now, one.first_token_secs, one.per_token_secs));
        }
    }

    /// While an engine drains, it still serves by the rung that it had.
    const fn rung_served(&self) -> usize {
        match self.life {
            Life::Drains(..) => self.score.last_rung,
            _ => self.rung,
        }
    }
}

fn p95(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * 95 / 100).copied()
}
