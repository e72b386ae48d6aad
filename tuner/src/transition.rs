//! What is decided about one rule, with everything that a person or a program needs to understand it.

use std::time::Duration;

use plimsoll_trace::units::{show_bytes, show_duration};
use plimsoll_trace::{Mode, Verdict};
use serde_json::{Value, json};

use crate::condition::{Clause, Join, Stat};
use crate::explain::clauses;
use crate::forecast::NOT_FILLING_SECS;
use crate::projection::{FULL_IN_SECS, Relief, Sight, effect};
use crate::rule::{Cost, Ladder, Rule};
use crate::state::{LadderState, RuleState, Rung};
use crate::timer::Timer;

/// A rung is taken, proposed or observed, or let go. One row in `decisions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The rule whose rung it is.
    pub rule: String,
    /// What the rule may do: only in mode act is this to be carried out.
    pub mode: Mode,
    /// Which way it goes.
    pub verdict: Verdict,
    /// The signal that decided.
    pub signal: String,
    /// Its value, in the signal's unit.
    pub value: Option<f64>,
    /// The line it was held against: `enter` when a rung is taken, `exit` when it is let go.
    pub threshold: Option<f64>,
    /// What the signal is expected to be afterwards.
    pub projection: Option<f64>,
    /// How much memory this is expected to free, bytes; negative for a release.
    pub expected_effect_bytes: Option<i64>,
    /// The rungs that are in force afterwards, lowest first: what the file is to be rendered with.
    pub rungs: Vec<String>,
    /// Why, in sentences for people.
    pub explanation: String,
    /// The same and more for programs: clauses, timers, rungs.
    pub detail: Value,
}

/// Why a rung is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Because<'a> {
    /// The condition of this rule holds.
    Condition(&'a Rule),
    /// It holds, and a value is at its emergency line.
    Emergency(&'a Rule),
    /// The engine died.
    OutOfMemory,
}

/// A step up the ladder.
pub(crate) struct Climb<'a> {
    /// The rungs that are taken in one step, lowest first.
    pub(crate) rungs: Vec<&'a Rule>,
    /// The highest of them.
    highest: &'a Rule,
    /// What all of them are expected to do.
    relief: Relief,
    because: Because<'a>,
}

impl<'a> Climb<'a> {
    /// A step over these rungs; `None` without any.
    pub(crate) fn new(rungs: Vec<&'a Rule>, relief: Relief, because: Because<'a>) -> Option<Self> {
        let highest = rungs.last().copied()?;
        Some(Self {
            rungs,
            highest,
            relief,
            because,
        })
    }

    /// The highest rung that is taken.
    pub(crate) const fn rule(&self) -> &'a Rule {
        self.highest
    }

    /// The rungs that are in force because of it: none for a restart alone.
    pub(crate) fn taken(&self) -> impl Iterator<Item = &'a Rule> + '_ {
        self.rungs.iter().copied().filter(|rule| !rule.only_restarts())
    }

    /// What the step costs: as much as its dearest rung.
    pub(crate) fn cost(&self) -> Cost {
        let costs = self.rungs.iter().map(|rule| rule.cost);
        costs.max().unwrap_or(self.highest.cost)
    }

    /// The rule whose condition the step is explained by.
    const fn trigger(&self) -> &'a Rule {
        match self.because {
            Because::Condition(rule) | Because::Emergency(rule) => rule,
            Because::OutOfMemory => self.highest,
        }
    }

    pub(crate) fn transition(&self, ladder: &Ladder, state: &LadderState, sight: &Sight<'_>) -> Transition {
        let (rule, trigger) = (self.highest, self.trigger());
        let is_emergency = matches!(self.because, Because::Emergency(_));
        let entered = |clause: &&Clause| {
            sight.value(clause).is_some_and(|value| {
                if is_emergency {
                    clause.is_emergency(value)
                } else {
                    clause.entered(value)
                }
            })
        };
        let deciding = trigger
            .when
            .clauses()
            .iter()
            .find(entered)
            .or(trigger.when.clauses().first());
        let projection = deciding.and_then(|clause| sight.after(clause, &self.relief));
        let trigger_state = state.rules.get(&trigger.name);
        let held = trigger_state
            .and_then(|state| state.held.as_ref())
            .map(Timer::elapsed)
            .unwrap_or_default();
        let taken = |name: &str| self.taken().any(|rung| rung.name == name);
        let rungs: Vec<String> = names(ladder, |name| taken(name) || state.is_on(name));
        let because_of = match self.because {
            Because::Condition(rule) | Because::Emergency(rule) => &rule.name,
            Because::OutOfMemory => "out_of_memory",
        };
        let detail = json!({
            "clauses": trigger_state.map(|state| clauses(trigger, state, sight)),
            "held_secs": held.as_secs_f64(),
            "for_secs": trigger.held_for.as_secs_f64(),
            "because_of": because_of,
            "emergency": is_emergency,
            "taken": names(ladder, taken),
            "rungs": rungs,
            "expected_effect_bytes": self.relief.bytes,
            "expected_capacity": self.relief.capacity,
            "projection": projection,
            "cost": self.cost(),
        });
        Transition {
            rule: rule.name.clone(),
            mode: rule.mode,
            verdict: Verdict::Apply,
            signal: deciding
                .map(|clause| clause.probe.signal.to_string())
                .unwrap_or_default(),
            value: deciding.and_then(|clause| sight.value(clause)),
            threshold: deciding
                .map(|clause| clause.emergency.filter(|_| is_emergency).unwrap_or(clause.enter)),
            projection,
            expected_effect_bytes: self.relief.bytes,
            rungs,
            explanation: self.sentences(sight, held, deciding.zip(projection)),
            detail,
        }
    }

    fn sentences(&self, sight: &Sight<'_>, held: Duration, projected: Option<(&Clause, f64)>) -> String {
        let rule = self.highest;
        let mut text = match self.because {
            Because::OutOfMemory => {
                format!(
                    "The engine ran out of memory; it comes back with '{}'.",
                    rule.name
                )
            }
            Because::Condition(trigger) => Self::condition(trigger, rule, sight, held),
            Because::Emergency(trigger) => Self::emergency(trigger, rule, sight),
        };
        if let [along @ .., _] = self.rungs.as_slice()
            && !along.is_empty()
        {
            let along: Vec<String> = along.iter().map(|rule| format!("'{}'", rule.name)).collect();
            text += &format!(
                " Taken along, because it would not suffice alone: {}.",
                along.join(", ")
            );
        }
        let expected = match (self.relief.bytes, self.relief.capacity) {
            (Some(freed), Some(times)) => Some(format!(
                "free {} and to let the KV cache hold {times:.1} times as much",
                bytes(freed)
            )),
            (Some(freed), None) => Some(format!("free {}", bytes(freed))),
            (None, Some(times)) => Some(format!("let the KV cache hold {times:.1} times as much")),
            (None, None) => None,
        };
        if self.highest.only_restarts() {
            return text + " The engine is restarted as it is." + mode_sentence(rule.mode);
        }
        text += &match (expected, projected) {
            (None, _) => " How much this frees is not known yet.".to_owned(),
            (Some(expected), None) => format!(" Expected to {expected}."),
            (Some(expected), Some((clause, value))) => {
                format!(
                    " Expected to {expected}, which would make it {}.",
                    show(clause, value)
                )
            }
        };
        text + mode_sentence(rule.mode)
    }

    fn emergency(trigger: &Rule, rule: &Rule, sight: &Sight<'_>) -> String {
        let told: Vec<String> = trigger
            .when
            .clauses()
            .iter()
            .filter_map(|clause| Some((clause, sight.value(clause)?, clause.emergency?)))
            .filter(|(clause, value, _)| clause.is_emergency(*value))
            .map(|(clause, value, line)| {
                format!(
                    "{} is {}, {} the emergency line {}",
                    subject(clause),
                    show(clause, value),
                    beyond(clause),
                    show(clause, line)
                )
            })
            .collect();
        format!(
            "{}; '{}' is hot and does not wait.",
            told.join(", and "),
            rule.name
        )
    }

    fn condition(trigger: &Rule, rule: &Rule, sight: &Sight<'_>, held: Duration) -> String {
        let told: Vec<String> = trigger
            .when
            .clauses()
            .iter()
            .filter_map(|clause| sight.value(clause).map(|value| (clause, value)))
            .filter(|(clause, value)| clause.entered(*value))
            .take(if trigger.when.join() == Join::Any {
                1
            } else {
                usize::MAX
            })
            .map(|(clause, value)| {
                format!(
                    "{} is {}, {} {}",
                    subject(clause),
                    show(clause, value),
                    beyond(clause),
                    show(clause, clause.enter)
                )
            })
            .collect();
        let mut text = format!("{}{}.", told.join(", and "), for_time(held));
        if trigger.name != rule.name {
            text += &format!(
                " That is the line of '{}'; the cheaper rung '{}' comes first.",
                trigger.name, rule.name
            );
        }
        text
    }
}

impl Transition {
    pub(crate) fn release(rule: &Rule, ladder: &Ladder, state: &LadderState, sight: &Sight<'_>) -> Self {
        let none = RuleState::default();
        let own = state.rules.get(&rule.name).unwrap_or(&none);
        let relief = Relief::of(rule, own).undone();
        let freed = relief.bytes.filter(|_| matches!(own.rung, Rung::On { .. }));
        // An observed rung changed nothing, so the state after its release is the present one.
        let after = |clause: &Clause| match own.rung {
            Rung::Observed { .. } => sight.value(clause),
            _ => sight.after(clause, &relief),
        };
        let exited = |clause: &&Clause| after(clause).is_some_and(|value| clause.exited(value));
        let deciding = rule
            .when
            .clauses()
            .iter()
            .find(exited)
            .or(rule.when.clauses().first());
        let value = deciding.and_then(|clause| sight.value(clause));
        let projection = deciding.and_then(after);
        let calm = own.calm.as_ref().map(Timer::elapsed).unwrap_or_default();
        let rungs = names(ladder, |name| name != rule.name && state.is_on(name));
        let mut text = String::new();
        if let (Some(clause), Some(value), Some(projection)) = (deciding, value, projection) {
            text = match own.rung {
                Rung::Observed { .. } => format!("{} is {}", subject(clause), show(clause, value)),
                _ => format!(
                    "Without '{}' {} would be {} ({} now)",
                    rule.name,
                    subject(clause),
                    show(clause, projection),
                    show(clause, value)
                ),
            };
            text += &format!(
                ", {} {}{}.",
                safe(clause),
                show(clause, clause.exit),
                for_time(calm)
            );
        }
        text += mode_sentence(rule.mode);
        let detail = json!({
            "clauses": clauses(rule, own, sight),
            "calm_secs": calm.as_secs_f64(),
            "calm_wanted_secs": rule.calm.as_secs_f64(),
            "hold_secs": rule.hold.as_secs_f64(),
            "effect": effect(rule, own),
            "rungs": rungs,
            "projection": projection,
            "cost": rule.cost,
        });
        Self {
            rule: rule.name.clone(),
            mode: rule.mode,
            verdict: Verdict::Release,
            signal: deciding
                .map(|clause| clause.probe.signal.to_string())
                .unwrap_or_default(),
            value,
            threshold: deciding.map(|clause| clause.exit),
            projection,
            expected_effect_bytes: freed,
            rungs,
            explanation: text,
            detail,
        }
    }
}

pub(crate) fn names(ladder: &Ladder, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    ladder
        .rules
        .iter()
        .map(|rule| &rule.name)
        .filter(|name| wanted(name))
        .cloned()
        .collect()
}

/// What a clause looks at: "vram.used_ratio", "the mean of vram.used_ratio over 30 s".
pub(crate) fn subject(clause: &Clause) -> String {
    let signal = &clause.probe.signal;
    let over = || show_duration(clause.probe.window);
    match clause.probe.stat {
        Stat::Last => signal.to_string(),
        Stat::Mean => format!("the mean of {signal} over {}", over()),
        Stat::Max => format!("the highest {signal} within {}", over()),
        Stat::Change => format!("the change of {signal} within {}", over()),
        Stat::Percentile(hundredths) => {
            format!("the {hundredths}th percentile of {signal} over {}", over())
        }
    }
}

pub(crate) fn show(clause: &Clause, value: f64) -> String {
    if &*clause.probe.signal == FULL_IN_SECS && value >= NOT_FILLING_SECS {
        return "not within a day".to_owned();
    }
    clause.unit.show(value)
}

/// Where the pressure is, seen from `enter`.
pub(crate) fn beyond(clause: &Clause) -> &'static str {
    if clause.is_under() {
        "at or below"
    } else {
        "at or above"
    }
}

/// Where the pressure is over, seen from `exit`.
pub(crate) fn safe(clause: &Clause) -> &'static str {
    if clause.is_under() {
        "at or above"
    } else {
        "at or below"
    }
}

pub(crate) fn bytes(bytes: i64) -> String {
    show_bytes(bytes.unsigned_abs())
}

fn for_time(time: Duration) -> String {
    if time.is_zero() {
        String::new()
    } else {
        format!(" for {}", show_duration(time))
    }
}

fn mode_sentence(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => " The rule only observes: nothing is changed.",
        Mode::Advise => " The rule advises: a person applies it.",
        Mode::Act => "",
    }
}
