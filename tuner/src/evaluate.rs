//! One tick of a ladder: what is decided, given what is remembered and what is seen. Pure: no clock, no I/O, no chance;
//! the same arguments give the same answer, bit for bit, so that a recording can be replayed.
//!
//! **Taking a rung.** A rule wants its rung when its condition has held for `for`, counted in time in which it was known
//! to hold. Of the act rules that want theirs, the highest decides how far to climb: the cheapest rung below it that
//! is not taken comes first, unless its projected effect leaves the condition standing; then the next, up to the rule
//! itself. Rungs that are passed on the way are taken along in the same step, because the ladder is cumulative. A
//! rung whose effect is unknown counts as one that may suffice. Rungs that are barred or suspended are passed over.
//! Rungs that the engine's limits do not allow now are passed over as well, and so are those that are known to do nothing
//! for the condition (a smaller cache where the cache is full). A rule that only restarts the engine is no rung: it is
//! taken for its own condition alone, and nothing of it stays.
//!
//! **A death by memory** takes the lowest free rung at once, whatever its condition says, if that is a hot one or the
//! engine died twice within half an hour.
//!
//! **Letting go.** Only the highest rung that is taken, one at a time, after `hold`, when the use projected to the state
//! after the release was at `exit` or better for all of `calm`, and only while no other rule's condition holds. The
//! raw reading plays no part: it is low because of the rung. Where no projection is possible (nothing is known of the
//! rung's effect, or the signal is not memory), only a person lets go.
//!
//! **Observe and advise.** Each such rule stands alone. An observed rung counts as taken from then on, so that it is
//! recorded once and not on every tick, and counts as let go when the reading itself (nothing was changed, so it needs
//! no projection) was at `exit` for all of `calm`, after `hold`. It frees nothing, so the rules above it see the pressure
//! that it would have taken away. A proposal stands until a person applies it, the pressure is over, or a day passed.
//!
//! **Unknown** stops every timer, takes nothing and lets nothing go. Readings from before the last change of the
//! engine's configuration are unknown.

use std::time::Duration;

use plimsoll_trace::{Mode, Stamp, Verdict};

use crate::projection::{Relief, Sight};
use crate::rule::{Cost, Ladder, Rule};
use crate::signals::Readings;
use crate::state::{LadderState, RuleState, Rung, UnderWay};
use crate::timer::{Timer, reached};
use crate::transition::{Because, Climb, Transition};

/// What one tick decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// What is to be remembered. To be stored before anything is carried out.
    pub state: LadderState,
    /// What is to be recorded and, in mode act, carried out; of the latter at most one.
    pub transitions: Vec<Transition>,
    /// Proposals that no longer stand.
    pub withdrawn: Vec<Withdrawal>,
}

/// A proposal that no longer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// The rule that proposed.
    pub rule: String,
    /// What it proposed.
    pub verdict: Verdict,
    /// Why it no longer stands, a sentence for people.
    pub explanation: &'static str,
}

/// A proposal that nobody applied stands this long.
pub const PROPOSAL_STANDS: Duration = Duration::from_secs(86_400);

/// The rules answer a death by memory within this time, or no more: the engine is back by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// `hold` is not doubled beyond this.
pub const LONGEST_HOLD: Duration = Duration::from_secs(86_400);

/// Evaluates a ladder at `now`.
#[must_use]
pub fn evaluate(ladder: &Ladder, state: &LadderState, readings: &Readings, now: Stamp) -> Evaluation {
    let mut state = state.clone();
    state.realign(now);
    let sight = Sight {
        readings,
        changed_at: state.changed_at,
    };
    let mut tick = Tick {
        ladder,
        sight,
        now,
        state,
        transitions: Vec::new(),
        withdrawn: Vec::new(),
    };
    for rule in &ladder.rules {
        tick.watch(rule);
        match rule.mode {
            Mode::Observe => tick.observe(rule),
            Mode::Advise => tick.advise(rule),
            Mode::Act => {}
        }
    }
    if tick.state.under_way.is_none() && tick.state.stopped.is_none() && !tick.answer_death() && !tick.climb()
    {
        tick.step_down();
    }
    tick.state.at = tick.state.at.max(Some(now));
    Evaluation {
        state: tick.state,
        transitions: tick.transitions,
        withdrawn: tick.withdrawn,
    }
}

/// How long a rung stays at least.
pub(crate) fn hold(rule: &Rule, state: &RuleState) -> Duration {
    let doubled = rule
        .hold
        .saturating_mul(1_u32.checked_shl(state.hold_doublings).unwrap_or(u32::MAX));
    doubled.min(LONGEST_HOLD.max(rule.hold))
}

struct Tick<'a> {
    ladder: &'a Ladder,
    sight: Sight<'a>,
    now: Stamp,
    state: LadderState,
    transitions: Vec<Transition>,
    withdrawn: Vec<Withdrawal>,
}

impl<'a> Tick<'a> {
    /// Moves a rule's timers on. Done for every rule on every tick, whatever else is going on.
    fn watch(&mut self, rule: &Rule) {
        let (sight, now, longest) = (&self.sight, self.now, self.sight.readings.max_age());
        let state = self.state.rule_mut(&rule.name);
        let value = |clause: &_| sight.value(clause);

        state.beyond.resize(rule.when.clauses().len(), None);
        for (clause, beyond) in rule.when.clauses().iter().zip(&mut state.beyond) {
            match value(clause).map(|value| clause.entered(value)) {
                Some(true) => *beyond = beyond.or(Some(now)),
                Some(false) => *beyond = None,
                None => {}
            }
        }
        Timer::advance(&mut state.held, rule.when.entered(value), longest, now);
        if state.spent && rule.when.exited(value) == Some(true) {
            state.spent = false;
        }
        match state.rung {
            Rung::Off | Rung::Proposed { .. } => state.calm = None,
            Rung::Observed { .. } => Timer::advance(&mut state.calm, rule.when.exited(value), longest, now),
            Rung::On { .. } => {
                let release = Relief::of(rule, state).undone();
                let over = rule.when.exited(|clause| sight.after(clause, &release));
                Timer::advance(&mut state.calm, over, longest, now);
            }
        }
        // What was virtual or proposed in one mode means nothing in another.
        let mut dropped = None;
        match &mut state.rung {
            Rung::Observed { .. } if rule.mode != Mode::Observe => state.rung = Rung::Off,
            Rung::Proposed { .. } if rule.mode != Mode::Advise => {
                state.rung = Rung::Off;
                dropped = Some(Verdict::Apply);
            }
            Rung::On { release_proposed, .. } if rule.mode != Mode::Advise => {
                dropped = release_proposed.take().map(|_| Verdict::Release);
            }
            _ => {}
        }
        if let Some(verdict) = dropped {
            self.withdraw(rule, verdict, "The rule no longer advises.");
        }
    }

    fn observe(&mut self, rule: &Rule) {
        let (now, wants) = (self.now, self.wants(rule));
        let state = self.state.rule_mut(&rule.name);
        match state.rung {
            Rung::Off if wants => {
                let climb = Climb::alone(rule, self.relief(rule));
                self.transitions
                    .push(climb.transition(self.ladder, &self.state, &self.sight));
                self.state.rule_mut(&rule.name).rung = Rung::Observed { since: now };
            }
            Rung::Observed { since }
                if now.since(since) >= rule.hold && reached(state.calm.as_ref(), rule.calm) =>
            {
                self.transitions
                    .push(Transition::release(rule, self.ladder, &self.state, &self.sight));
                self.state.rule_mut(&rule.name).rung = Rung::Off;
            }
            _ => {}
        }
    }

    fn advise(&mut self, rule: &Rule) {
        let (now, wants) = (self.now, self.wants(rule));
        let over = rule.when.exited(|clause| self.sight.value(clause)) == Some(true);
        let state = self.state.rule_mut(&rule.name);
        match &mut state.rung {
            Rung::Off if wants => {
                let climb = Climb::alone(rule, self.relief(rule));
                self.transitions
                    .push(climb.transition(self.ladder, &self.state, &self.sight));
                self.state.rule_mut(&rule.name).rung = Rung::Proposed { since: now };
            }
            Rung::Proposed { .. } if over => {
                state.rung = Rung::Off;
                self.withdraw(rule, Verdict::Apply, "The pressure is over.");
            }
            Rung::Proposed { since } if now.since(*since) >= PROPOSAL_STANDS => {
                state.rung = Rung::Off;
                state.spent = true;
                self.withdraw(rule, Verdict::Apply, "Nobody applied it for a day.");
            }
            Rung::On {
                release_proposed: proposed @ Some(_),
                ..
            } if state.calm.is_none() => {
                *proposed = None;
                self.withdraw(rule, Verdict::Release, "The pressure would come back.");
            }
            _ => {}
        }
    }

    /// Takes the next rung of the act rules, if one of them wants its own. Returns whether it did.
    fn climb(&mut self) -> bool {
        let ladder = self.ladder;
        let wanted = |rule: &Rule| rule.mode == Mode::Act && self.wants(rule);
        let Some(highest) = ladder.rules.iter().rposition(wanted) else {
            return false;
        };
        let Some(trigger) = ladder.rules.get(highest) else {
            return false;
        };
        let (mut rungs, mut relief) = (Vec::new(), Relief::NONE);
        for (position, rule) in ladder.rules.iter().enumerate().take(highest + 1) {
            if rule.mode != Mode::Act || !self.is_free(rule) || !self.affords(rule, &rungs) {
                continue;
            }
            let own = self.relief(rule);
            let passed =
                trigger.only_restarts() || rule.only_restarts() || own.is_useless(&trigger.when, &self.sight);
            if position < highest && passed {
                continue;
            }
            rungs.push(rule);
            relief = relief.and(own);
            let stands_after = trigger.when.entered(|clause| self.sight.after(clause, &relief));
            if stands_after != Some(true) {
                break;
            }
        }
        let because = Because::Condition(trigger);
        Climb::new(rungs, relief, because).is_some_and(|climb| self.begin(&climb))
    }

    /// The engine ran out of memory. It comes back on the lowest free rung: it is away already, so that no rung could be
    /// had for less. One that costs a reload or a restart is taken only when the engine died for the second time within a
    /// short while: the first death may have been a leak, which is gone with the process.
    fn answer_death(&mut self) -> bool {
        let Some(died) = self.state.out_of_memory.take() else {
            return false;
        };
        if self.now.since(died) > ANSWER_WITHIN {
            return false;
        }
        let ladder = self.ladder;
        let died_again = self.state.died_again;
        let next = |rule: &&Rule| {
            let is_tried = rule.cost == Cost::Hot || died_again;
            rule.mode == Mode::Act
                && is_tried
                && !rule.only_restarts()
                && self.is_free(rule)
                && self.keeps_quality(rule, &[])
        };
        let Some(rule) = ladder.rules.iter().find(next) else {
            return false;
        };
        let relief = self.relief(rule);
        Climb::new(vec![rule], relief, Because::OutOfMemory).is_some_and(|climb| self.begin(&climb))
    }

    fn begin(&mut self, climb: &Climb<'_>) -> bool {
        self.transitions
            .push(climb.transition(self.ladder, &self.state, &self.sight));
        self.state.under_way = Some(UnderWay {
            rule: climb.rule().name.clone(),
            verdict: Verdict::Apply,
            rungs: climb.taken().map(|rule| rule.name.clone()).collect(),
            cost: climb.cost(),
            since: self.now,
            verifying: false,
        });
        true
    }

    /// Whether the engine's limits allow to take this rung together with others.
    fn affords(&self, rule: &Rule, others: &[&Rule]) -> bool {
        let exceeded = self
            .state
            .spent
            .exceeded(&self.ladder.limits, rule.cost, self.now);
        exceeded.is_none() && self.keeps_quality(rule, others)
    }

    fn keeps_quality(&self, rule: &Rule, others: &[&Rule]) -> bool {
        quality_loss(self.ladder, &self.state, others.iter().copied().chain([rule]))
            <= self.ladder.limits.quality_loss_max
    }

    /// Lets go of the highest rung, if nothing speaks against it.
    fn step_down(&mut self) {
        let ladder = self.ladder;
        let pressed = |rule: &Rule| rule.mode == Mode::Act && self.is_free(rule) && self.holds(rule);
        if ladder.rules.iter().any(pressed) {
            return;
        }
        let Some(rule) = highest_on(ladder, &self.state) else {
            return;
        };
        let now = self.now;
        let state = self.state.rule_mut(&rule.name);
        let Rung::On {
            since,
            release_proposed,
            ..
        } = &state.rung
        else {
            return;
        };
        let held = now.since(*since) >= hold(rule, state);
        if release_proposed.is_some()
            || !held
            || state.barred_at(now).is_some()
            || !reached(state.calm.as_ref(), rule.calm)
            || self
                .state
                .spent
                .exceeded(&ladder.limits, rule.cost, now)
                .is_some()
        {
            return;
        }
        self.transitions
            .push(Transition::release(rule, ladder, &self.state, &self.sight));
        match &mut self.state.rule_mut(&rule.name).rung {
            Rung::On { release_proposed, .. } if rule.mode == Mode::Advise => *release_proposed = Some(now),
            _ => {
                self.state.under_way = Some(UnderWay {
                    rule: rule.name.clone(),
                    verdict: Verdict::Release,
                    rungs: vec![rule.name.clone()],
                    cost: rule.cost,
                    since: now,
                    verifying: false,
                });
            }
        }
    }

    /// Whether the rule's condition is known to hold now.
    fn holds(&self, rule: &Rule) -> bool {
        self.state
            .rules
            .get(&rule.name)
            .is_some_and(|state| reached(state.held.as_ref(), Duration::ZERO))
    }

    /// Whether the rung is neither taken nor being taken, and nothing keeps it from being taken.
    fn is_free(&self, rule: &Rule) -> bool {
        let under_way = self
            .state
            .under_way
            .as_ref()
            .is_some_and(|under_way| under_way.rungs.contains(&rule.name));
        let state = self.state.rules.get(&rule.name);
        !under_way
            && state.is_some_and(|state| {
                state.rung == Rung::Off
                    && !state.spent
                    && state.suspended.is_empty()
                    && state.barred_at(self.now).is_none()
            })
    }

    /// Whether the rule's condition has held for long enough, and its rung is free.
    fn wants(&self, rule: &Rule) -> bool {
        let held = self
            .state
            .rules
            .get(&rule.name)
            .and_then(|state| state.held.as_ref());
        reached(held, rule.held_for) && self.is_free(rule)
    }

    fn relief(&self, rule: &Rule) -> Relief {
        let none = RuleState::default();
        Relief::of(rule, self.state.rules.get(&rule.name).unwrap_or(&none))
    }

    fn withdraw(&mut self, rule: &Rule, verdict: Verdict, explanation: &'static str) {
        self.withdrawn.push(Withdrawal {
            rule: rule.name.clone(),
            verdict,
            explanation,
        });
    }
}

/// How much worse answers are with all rungs that are taken and these.
pub(crate) fn quality_loss<'a>(
    ladder: &Ladder,
    state: &LadderState,
    more: impl Iterator<Item = &'a Rule>,
) -> f64 {
    let taken: f64 = state.active(ladder).map(|rule| rule.quality_loss).sum();
    taken + more.map(|rule| rule.quality_loss).sum::<f64>()
}

/// The rung that would be let go first: the highest that is taken, of the rules that may do more than observe.
pub(crate) fn highest_on<'a>(ladder: &'a Ladder, state: &LadderState) -> Option<&'a Rule> {
    ladder
        .rules
        .iter()
        .rev()
        .find(|rule| rule.mode != Mode::Observe && state.is_on(&rule.name))
}
