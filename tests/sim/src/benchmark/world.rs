//! One engine under a load, second by second, and what became of each request.
//!
//! A restart takes a running engine [`DRAIN_SECS`] at most to finish what it serves, during which it takes nothing new,
//! and then the scenario's time until its model answers. A death by memory loses everything in flight and takes
//! [`SUPERVISOR_SECS`] longer. Requests that come meanwhile are lost.

use std::sync::Arc;

use super::rungs::{Rungs, Taken};
use super::score::{Direction, Score, is_good};
use crate::model::{Engine, Finished, Hardware, Phase, Request, STEP_SECS};
use crate::workload::Workload;

/// How long an engine that is to be restarted may finish what it serves, in seconds.
const DRAIN_SECS: f64 = 10.0;
/// From the death of an engine to the start of the next, in seconds.
const SUPERVISOR_SECS: f64 = 10.0;

/// What stays the same while an engine is simulated.
#[derive(Debug)]
pub(super) struct Scenario {
    /// What clients ask.
    pub(super) workload: Arc<Workload>,
    /// How long, in seconds.
    pub(super) duration_secs: f64,
    /// The card.
    pub(super) hardware: Hardware,
    /// The configurations, from the person's own to the most reduced.
    pub(super) rungs: Rungs,
    /// How long a restart takes until the model answers, in seconds.
    pub(super) restart_secs: f64,
}

/// What a policy sees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Seconds since the load began.
    pub(super) at_secs: f64,
    /// Whether the model answers.
    pub(super) ready: bool,
    /// Memory in use on the card, bytes.
    pub(super) used_bytes: u64,
    /// The engine's part of it, bytes.
    pub(super) own_bytes: u64,
    /// `used / usable`.
    pub(super) used_ratio: f64,
    /// Share of the KV cache, or of what the limits allow, in use; `None` without either.
    pub(super) kv_used_ratio: Option<f64>,
    /// Requests that run.
    pub(super) running: usize,
    /// Requests that wait.
    pub(super) waiting: usize,
    /// Share of the requests since the last reading that were turned away.
    pub(super) refused_ratio: f64,
    /// Requests put off, per second.
    pub(super) preemptions_per_sec: f64,
    /// Deaths by memory so far.
    pub(super) oom: u32,
    /// Which process it is, counted from 1.
    pub(super) life: i64,
}

/// The engine's life.
#[derive(Clone, Debug)]
enum Life {
    Up(Engine),
    /// Takes nothing new, and ends when it has nothing left or at this moment; still on these rungs.
    Drains(Engine, f64, Taken),
    /// No process until this moment.
    Down(f64),
}

/// An engine under way. A copy is another course of the same world.
#[derive(Clone, Debug)]
pub(super) struct World {
    scenario: Arc<Scenario>,
    life: Life,
    /// Processes so far.
    lives: i64,
    taken: Taken,
    step: u32,
    /// Arrivals so far.
    arrived: usize,
    own_bytes: u64,
    neighbor_bytes: u64,
    /// The neighbor did not get what it asked for. It comes again the next time.
    neighbor_died: bool,
    preempted: u32,
    score: Score,
}

impl World {
    /// The load begins; the engine is up.
    pub(super) fn new(scenario: Arc<Scenario>, rung: usize) -> Self {
        let taken = scenario.rungs.taken(rung);
        Self {
            life: Life::Up(start(&scenario, taken)),
            lives: 1,
            taken,
            step: 0,
            arrived: 0,
            own_bytes: 0,
            neighbor_bytes: 0,
            neighbor_died: false,
            preempted: 0,
            score: Score::new(scenario.rungs.len()),
            scenario,
        }
    }

    /// The highest rung in force, or on its way.
    pub(super) fn rung(&self) -> usize {
        self.scenario.rungs.rung(self.taken)
    }

    /// All rungs in force, or on their way.
    pub(super) const fn taken(&self) -> Taken {
        self.taken
    }

    pub(super) const fn score(&self) -> &Score {
        &self.score
    }

    pub(super) const fn score_mut(&mut self) -> &mut Score {
        &mut self.score
    }

    pub(super) fn into_score(self) -> Score {
        self.score
    }

    /// Whether the load is over.
    pub(super) fn is_over(&self) -> bool {
        self.now_secs() >= self.scenario.duration_secs
    }

    /// Whether a change can be made now: the engine is up.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.life, Life::Up(_))
    }

    /// Whether a restart as it is can free anything: the engine leaks.
    pub(super) fn is_leaky(&self) -> bool {
        self.scenario.workload.leak_bytes_per_request > 0
    }

    /// What tells courses of the same length apart: those that are the same in all of it go on the same way.
    pub(super) fn seen(&self) -> (Taken, bool, i64, u64, u64, u64, u64, u64) {
        let Score { good, full, lost, .. } = self.score;
        let tokens = self.kv_tokens().to_bits();
        (
            self.taken,
            self.is_up(),
            self.lives,
            self.own_bytes,
            tokens,
            good,
            full,
            lost,
        )
    }

    /// Requests that came so far.
    pub(super) const fn arrived(&self) -> usize {
        self.arrived
    }

    /// Tokens in the KV cache.
    pub(super) fn kv_tokens(&self) -> f64 {
        match &self.life {
            Life::Up(engine) | Life::Drains(engine, ..) => engine.kv_tokens(),
            Life::Down(_) => 0.0,
        }
    }

    fn now_secs(&self) -> f64 {
        f64::from(self.step) * STEP_SECS
    }

    /// Takes another rung. Limits change at once; for anything else the engine is drained and restarted. One that is down
    /// comes back on it.
    pub(super) fn change(&mut self, taken: Taken) {
        if taken == self.taken {
            return;
        }
        let (from, now) = (std::mem::replace(&mut self.taken, taken), self.now_secs());
        let to = if taken.is_below(from) {
            Direction::Down
        } else {
            Direction::Up
        };
        if self.scenario.rungs.rung(from) == self.scenario.rungs.rung(taken) {
            self.score.limited(now, to);
        } else {
            self.score.moved(now, to);
        }
        if !from.is_hot(taken) {
            self.drain(from);
        } else if let Life::Up(engine) = &mut self.life {
            engine.limit(&self.scenario.rungs.config(taken));
        }
    }

    /// Restarts the engine as it is.
    pub(super) fn restart(&mut self) {
        self.drain(self.taken);
    }

    fn drain(&mut self, from: Taken) {
        let now = self.now_secs();
        self.life = match std::mem::replace(&mut self.life, Life::Down(now)) {
            Life::Up(mut engine) => {
                self.score.restarted(now);
                self.score.lose(engine.drop_waiting().len());
                Life::Drains(engine, now + DRAIN_SECS, from)
            }
            other => other,
        };
    }

    /// Goes on by `secs`, or to the end, and returns what is seen then.
    pub(super) fn advance(&mut self, secs: f64) -> Reading {
        let (preempted, lost, arrived) = (self.preempted, self.score.lost, self.arrived);
        let until = self.now_secs() + secs - STEP_SECS / 2.0;
        while self.now_secs() < until && !self.is_over() {
            self.advance_step();
        }
        let now = self.now_secs();
        let usable = self.scenario.hardware.usable_bytes as f64;
        let used_bytes = self.own_bytes + self.neighbor_bytes;
        let mut reading = Reading {
            at_secs: now,
            used_bytes,
            own_bytes: self.own_bytes,
            used_ratio: used_bytes as f64 / usable,
            preemptions_per_sec: f64::from(self.preempted - preempted) / secs,
            oom: self.score.oom,
            life: self.lives,
            ..Reading::default()
        };
        if let Life::Up(engine) = &self.life {
            reading.ready = engine.phase() == Phase::Serving;
            reading.running = engine.running();
            reading.waiting = engine.waiting();
            reading.kv_used_ratio = engine.kv_used_ratio();
            let refused = (self.score.lost - lost) as f64;
            reading.refused_ratio = refused / (self.arrived - arrived).max(1) as f64;
        }
        reading
    }

    fn advance_step(&mut self) {
        self.step += 1;
        let now = self.now_secs();
        let scenario = Arc::clone(&self.scenario);
        let waiting = scenario.workload.arrivals.get(self.arrived..).unwrap_or_default();
        let due = waiting
            .iter()
            .take_while(|arrival| arrival.at_secs <= now)
            .count();
        let new = waiting.get(..due).unwrap_or_default();
        self.arrived += due;
        let limit_bytes = self.share_card(now);
        self.own_bytes = 0;
        let down = |secs: f64| Life::Down(now + secs + scenario.restart_secs);
        self.life = match std::mem::replace(&mut self.life, Life::Down(now)) {
            Life::Up(mut engine) => {
                let in_flight = engine.running() + engine.waiting() + due;
                if let Ok(step) = engine.step(now, limit_bytes, new.iter().map(Request::from)) {
                    self.own_bytes = step.memory.total_bytes();
                    self.preempted += step.preempted;
                    self.score.lose(step.lost.len());
                    self.finish(&step.finished, self.taken);
                    Life::Up(engine)
                } else {
                    self.score.oom += 1;
                    self.score.lose(in_flight);
                    down(SUPERVISOR_SECS)
                }
            }
            Life::Drains(mut engine, until, from) => {
                self.score.lose(due);
                let in_flight = engine.running();
                match engine.step(now, limit_bytes, []) {
                    Ok(step) => {
                        self.own_bytes = step.memory.total_bytes();
                        self.finish(&step.finished, from);
                        if engine.running() > 0 && now < until {
                            Life::Drains(engine, until, from)
                        } else {
                            self.score.lose(engine.running());
                            down(0.0)
                        }
                    }
                    Err(_) => {
                        self.score.oom += 1;
                        self.score.lose(in_flight);
                        down(0.0)
                    }
                }
            }
            Life::Down(until) => {
                self.score.lose(due);
                if now >= until {
                    self.lives += 1;
                    Life::Up(start(&scenario, self.taken))
                } else {
                    Life::Down(until)
                }
            }
        };
        if !self.is_up() {
            self.score.down_secs += STEP_SECS;
        }
        self.score.on_rung(scenario.rungs.rung(self.taken), STEP_SECS);
    }

    /// Gives the neighbor what it asks for, if that is free: else it dies, as any process does. Returns what is left.
    fn share_card(&mut self, now: f64) -> u64 {
        let usable = self.scenario.hardware.usable_bytes;
        let wanted = self.scenario.workload.neighbor_bytes(now);
        self.neighbor_died = wanted > 0 && (self.neighbor_died || wanted > usable - self.own_bytes);
        self.neighbor_bytes = if self.neighbor_died { 0 } else { wanted };
        usable - self.neighbor_bytes
    }

    fn finish(&mut self, finished: &[Finished], taken: Taken) {
        let full = taken.is_full_quality();
        for one in finished {
            self.score.finished(is_good(one), full);
        }
    }
}

fn start(scenario: &Scenario, taken: Taken) -> Engine {
    Engine::new(
        scenario.rungs.config(taken),
        scenario.hardware,
        scenario.workload.leak_bytes_per_request,
    )
}
