//! Rules over a recording: the same pure function over the same samples.
//!
//! **Exact.** As long as the replay decides what was decided then, what came of it is taken from the recording, and
//! the samples are what these rules would have seen. A decision of a rule that only observes or advises changes nothing,
//! so the samples stay exact when it differs.
//!
//! **Estimate.** From the first action on that was not taken then, or was taken then and is not now, the samples show
//! another history. Each further reading of memory or of the KV cache is moved by what the rungs differ in; every other
//! signal stays as it was recorded. An action is taken to work, and to do what its rule is known or said to do.

pub(crate) mod estimate;
mod past;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use plimsoll_trace::{Batch, MarkKind, Mode, Stamp, Verdict};
use serde::{Deserialize, Serialize};

pub use past::{Difference, Mark, Past};

use crate::budget::Host;
use crate::evaluate::evaluate;
use crate::explain::{RuleExplanation, explain};
use crate::intake::Intake;
use crate::outcome::Outcome;
use crate::rule::Ladder;
use crate::signals::{EngineView, Readings, Signals};
use crate::state::LadderState;
use crate::transition::Transition;
use estimate::Estimate;

/// A replay under way: marks, then the batches of the same instant, in order of time.
#[derive(Debug)]
pub struct Replay {
    ladder: Ladder,
    /// The rules that were in force when it was recorded, by their hashes.
    rule_sets: BTreeMap<String, Ladder>,
    /// Those in force now, for the effects of their rungs.
    recorded: Option<Ladder>,
    /// Whether those are the rules that are replayed.
    follows: bool,
    state: LadderState,
    signals: Signals,
    intake: Intake,
    view: EngineView,
    host: Host,
    /// Set until the next mark: the rules were not evaluated.
    held: bool,
    /// No mark has said yet where the ladder stood.
    waits: bool,
    instead: Option<LadderState>,
    past: VecDeque<Past>,
    estimate: Option<Estimate>,
    log: Log,
    /// What the last evaluation saw, and when.
    last: Option<(Readings, Stamp)>,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Log {
    /// How often the rules were evaluated.
    pub evaluations: u64,
    /// What was decided, in order.
    pub decisions: Vec<Replayed>,
    /// Decisions of the recording that the replay did not make while it was exact.
    pub missing: Vec<Past>,
    /// Where the samples cease to be those of these rules, ns since the Unix epoch, and why; null when they never do.
    pub exact_until: Option<Difference>,
}

/// One decision of a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// The rule.
    pub rule: String,
    /// Which way.
    pub verdict: Verdict,
    /// What the rule may do.
    pub mode: Mode,
    /// The signal that decided.
    pub signal: String,
    /// Its value, in its unit; moved where it is an estimate.
    pub value: Option<f64>,
    /// The line it was held against.
    pub threshold: Option<f64>,
    /// The rungs in force afterwards, lowest first.
    pub rungs: Vec<String>,
    /// Why, for people.
    pub explanation: String,
    /// The recorded decision that it is; null when there is none.
    pub recorded: Option<i64>,
    /// Whether it rests on modelled readings.
    pub estimate: bool,
}

impl Replay {
    /// A replay of `ladder` over a recording in which `past` was decided by `rule_sets`, as far as those are known. With
    /// `follows`, of the recorded rules from the first mark on that has any.
    #[must_use]
    pub fn new(ladder: Ladder, follows: bool, rule_sets: BTreeMap<String, Ladder>, past: Vec<Past>) -> Self {
        let mut signals = Signals::new(Duration::from_secs(1));
        signals.watch([&ladder]);
        Self {
            ladder,
            rule_sets,
            recorded: None,
            follows,
            state: LadderState::default(),
            signals,
            intake: Intake::default(),
            view: EngineView::default(),
            host: Host::default(),
            held: false,
            waits: true,
            instead: None,
            past: past.into(),
            estimate: None,
            log: Log::default(),
            last: None,
        }
    }

    /// Takes in where the ladder stood. To be told before the batch of the same instant.
    pub fn mark(&mut self, mark: &Mark) {
        if mark.kind == MarkKind::Held {
            self.held = true;
            return;
        }
        let is_first = std::mem::take(&mut self.waits);
        self.held = false;
        if mark.kind == MarkKind::Start && !is_first {
            // Another daemon, which had seen nothing yet.
            self.signals = Signals::new(Duration::from_secs(1));
            self.signals.watch([&self.ladder]);
            self.intake = Intake::default();
        }
        self.signals.set_interval(mark.max_age / 3);
        self.view.clone_from(&mark.view);
        self.host.clone_from(&mark.host);
        self.recorded = mark
            .rules_hash
            .as_ref()
            .and_then(|hash| self.rule_sets.get(hash))
            .cloned();
        if let Some(recorded) = self.recorded.as_ref().filter(|_| self.follows)
            && recorded.source != self.ladder.source
        {
            self.ladder = recorded.clone();
            self.signals.watch([&self.ladder]);
        }
        if let Some(estimate) = &mut self.estimate {
            estimate.recorded(self.recorded.as_ref(), mark.state.as_ref());
            if let Some(state) = &mark.state {
                self.state.learn_from(state, &self.ladder);
            }
            return;
        }
        let Some(state) = &mark.state else { return };
        if mark.kind == MarkKind::Instead {
            self.instead = Some(state.clone());
        } else if mark.rules_hash.as_deref() == Some(&**self.ladder.source.hash()) {
            self.state = state.clone();
        } else {
            self.state.take_from_outside(state, &self.ladder);
        }
    }

    /// Takes in what was sampled at one instant; evaluates if the daemon did so then.
    pub fn batch(&mut self, batch: &Batch) {
        if self.intake.take(&mut self.signals, batch) && !self.held && !self.waits {
            self.evaluate(batch.at);
        }
    }

    /// When the rules were evaluated last, ns since the Unix epoch, and where each stood then.
    #[must_use]
    pub fn stands(&self) -> Option<(i64, Vec<RuleExplanation>)> {
        let (readings, now) = self.last.as_ref()?;
        Some((now.unix_ns, explain(&self.ladder, &self.state, readings, *now)))
    }

    /// The rest of the recording's decisions are not in the replay.
    #[must_use]
    pub fn finish(mut self) -> Log {
        if self.estimate.is_none() {
            self.log.missing.extend(self.past);
        }
        self.log
    }

    fn evaluate(&mut self, now: Stamp) {
        self.log.evaluations += 1;
        if let Some(state) = self.instead.take() {
            self.state = state;
            return;
        }
        let mut readings = self.signals.readings(&self.ladder, &self.view, now);
        readings.set_host(self.host.clone());
        if let Some(estimate) = &mut self.estimate {
            estimate.move_on(&self.ladder, &mut self.state, &mut readings, now);
        }
        let evaluation = evaluate(&self.ladder, &self.state, &readings, now);
        self.state = evaluation.state;
        let made = evaluation.transitions;
        self.last = Some((readings, now));
        let then: Vec<Past> = if self.estimate.is_some() {
            Vec::new()
        } else {
            let due = self.past.partition_point(|past| past.at_ns <= now.unix_ns);
            self.past.drain(..due).collect()
        };
        if self.estimate.is_none() {
            self.compare(&made, &then, now);
        }
        let is_estimate = self.estimate.is_some();
        for transition in &made {
            let recorded = then.iter().find(|past| past.is(transition, now));
            self.log
                .decisions
                .push(Replayed::new(transition, recorded, is_estimate, now));
        }
        if let Some(estimate) = &mut self.estimate {
            for transition in made.iter().filter(|made| made.mode == Mode::Act) {
                estimate.begin(&self.ladder, transition, now);
            }
        }
    }

    /// Holds what was decided against the recording. An action on one side only ends the exact part.
    fn compare(&mut self, made: &[Transition], then: &[Past], now: Stamp) {
        let missing: Vec<&Past> = then
            .iter()
            .filter(|past| !made.iter().any(|made| past.is(made, now)))
            .collect();
        let added = made
            .iter()
            .filter(|made| made.mode == Mode::Act)
            .find(|made| !then.iter().any(|past| past.is(made, now)));
        let lost = missing.iter().find(|past| past.changed_the_engine());
        let why = match (added, lost) {
            (Some(added), _) => Some(format!("{} {} was not decided then", added.verdict, added.rule)),
            (None, Some(lost)) => Some(format!("{} {} was decided then", lost.verdict, lost.rule)),
            (None, None) => None,
        };
        self.log.missing.extend(missing.into_iter().cloned());
        if let Some(why) = why {
            self.log.exact_until = Some(Difference {
                at_ns: now.unix_ns,
                why,
            });
            let mut estimate = Estimate::default();
            estimate.recorded(self.recorded.as_ref(), Some(&self.state));
            self.estimate = Some(estimate);
        }
    }
}

impl Replayed {
    fn new(transition: &Transition, recorded: Option<&Past>, estimate: bool, now: Stamp) -> Self {
        Self {
            at_ns: now.unix_ns,
            rule: transition.rule.clone(),
            verdict: transition.verdict,
            mode: transition.mode,
            signal: transition.signal.clone(),
            value: transition.value,
            threshold: transition.threshold,
            rungs: transition.rungs.clone(),
            explanation: transition.explanation.clone(),
            recorded: recorded.map(|past| past.id),
            estimate,
        }
    }
}

impl LadderState {
    /// Takes over what something besides evaluation did to the ladder of a recording. What evaluation itself keeps (timers,
    /// what would have been observed or proposed) is that of other rules there.
    fn take_from_outside(&mut self, there: &Self, ladder: &Ladder) {
        self.under_way.clone_from(&there.under_way);
        self.stopped.clone_from(&there.stopped);
        self.changed_at = there.changed_at;
        self.out_of_memory = there.out_of_memory;
        self.last_death = there.last_death;
        self.died_again = there.died_again;
        self.spent.clone_from(&there.spent);
        for (name, other) in &there.rules {
            if ladder.rule(name).is_none() {
                continue;
            }
            let own = self.rule_mut(name);
            let mut taken = other.clone();
            if !own.is_on() && !other.is_on() {
                taken.rung = own.rung.clone();
            }
            taken.held.clone_from(&own.held);
            taken.calm = own.calm.clone().filter(|_| other.calm.is_some());
            taken.beyond.clone_from(&own.beyond);
            taken.spent = own.spent;
            *own = taken;
        }
    }

    /// Takes over what was seen of rungs of which nothing is known.
    fn learn_from(&mut self, there: &Self, ladder: &Ladder) {
        for rule in &ladder.rules {
            if let Some(other) = there.rules.get(&rule.name) {
                let own = self.rule_mut(&rule.name);
                if own.effects_bytes.is_empty() {
                    own.effects_bytes.clone_from(&other.effects_bytes);
                }
            }
        }
    }

    /// A state as it was recorded, with times as a replay has them.
    ///
    /// # Errors
    /// When it is of a form that this version does not know.
    pub fn recorded(text: &str) -> Result<Self, serde_json::Error> {
        let mut state: Self = serde_json::from_str(text)?;
        state.each_stamp(&mut |stamp| stamp.mono_ns = stamp.unix_ns);
        Ok(state)
    }
}

impl Host {
    /// What the state of a mark says of the host, with times as a replay has them; nothing was noted by former versions.
    pub(crate) fn recorded(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Noted {
            host: Host,
        }
        let mut host = serde_json::from_str::<Noted>(text)?.host;
        host.others.each_stamp(&mut |stamp| stamp.mono_ns = stamp.unix_ns);
        Ok(host)
    }
}

/// How an action of the estimate ends.
const fn works(effect_bytes: Option<i64>) -> Outcome {
    Outcome::Kept { effect_bytes }
}

#[cfg(test)]
mod tests;
