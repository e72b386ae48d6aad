//! Where every rule stands and why: clause by clause, what blocks it, and for how long. For `why` and `status`.

use std::time::Duration;

use plimsoll_trace::units::{show_duration, show_ratio};
use plimsoll_trace::{Mode, Stamp, Verdict};
use serde::Serialize;

use crate::budget::exceeded;
use crate::condition::{Clause, Join, Stat};
use crate::evaluate::{highest_on, hold, quality_loss};
use crate::projection::{Effect, FULL_IN_SECS, Relief, Sight, effect};
use crate::rule::{Ladder, Rule};
use crate::signals::Readings;
use crate::state::{BarReason, LadderState, RuleState, Rung, StopReason};
use crate::timer::Timer;
use crate::transition::{beyond, safe, show, subject};

/// Where a rule stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its condition does not hold.
    Idle,
    /// Whether its condition holds is unknown.
    Unknown,
    /// Its condition holds, but not yet for long enough.
    Pending,
    /// Its condition has held for long enough, and something keeps it from acting.
    Gated,
    /// It would have taken its rung, were it allowed to.
    Observed,
    /// It waits for a person.
    Proposed,
    /// Its rung is being taken.
    Applying,
    /// Its rung is taken, and whether that helped is being verified.
    Verifying,
    /// Its rung is taken.
    Committed,
    /// Its rung is being let go.
    Releasing,
    /// It was taken back once, and rests.
    RolledBack,
    /// It failed again and again, and is not tried for a long while.
    Quarantined,
    /// A person changed its keys.
    Suspended,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 13] = [
        Self::Idle,
        Self::Unknown,
        Self::Pending,
        Self::Gated,
        Self::Observed,
        Self::Proposed,
        Self::Applying,
        Self::Verifying,
        Self::Committed,
        Self::Releasing,
        Self::RolledBack,
        Self::Quarantined,
        Self::Suspended,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::Gated => "gated",
            Self::Observed => "observed",
            Self::Proposed => "proposed",
            Self::Applying => "applying",
            Self::Verifying => "verifying",
            Self::Committed => "committed",
            Self::Releasing => "releasing",
            Self::RolledBack => "rolled_back",
            Self::Quarantined => "quarantined",
            Self::Suspended => "suspended",
        }
    }
}

/// One clause of a condition, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClauseExplanation {
    /// The signal's name.
    pub signal: String,
    /// What of it is looked at.
    pub stat: Stat,
    /// Over which time; 0 for the newest value.
    pub window_secs: f64,
    /// The value, in the signal's unit; null while unknown.
    pub value: Option<f64>,
    /// Between which values it lies in four of five cases, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// When it was sampled, ns since the Unix epoch.
    pub at_ns: Option<i64>,
    /// The line that takes the rung.
    pub enter: f64,
    /// The line that lets it go.
    pub exit: f64,
    /// Whether the value is at `enter` or beyond; null while unknown.
    pub entered: Option<bool>,
    /// The line from which on hot rungs do not wait, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency: Option<f64>,
    /// Whether the value falls by itself, so that the clause does not press; left out where that does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub falls: Option<bool>,
    /// Since when it is (or was, when it became unknown), ns since the Unix epoch.
    pub since_ns: Option<i64>,
    /// What the value would be if the rung were let go; null when that is unknown or the rung is not taken.
    pub after_release: Option<f64>,
    /// All of this for people.
    pub text: String,
}

/// Something that keeps a rule from its next step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// What, for people.
    pub text: String,
    /// For how much longer, where that is known.
    pub remaining_secs: Option<f64>,
}

/// Where a rule stands and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleExplanation {
    /// The rule's name.
    pub rule: String,
    /// The engine's name.
    pub engine: String,
    /// What the rule may do.
    pub mode: Mode,
    /// Where it stands, in a word.
    pub phase: Phase,
    /// Since when, ns since the Unix epoch, where that is known.
    pub since_ns: Option<i64>,
    /// How the clauses are joined.
    pub join: Join,
    /// The clauses.
    pub clauses: Vec<ClauseExplanation>,
    /// What keeps it from its next step: taking its rung while the condition holds, letting go once it is taken.
    pub blocks: Vec<Block>,
    /// How much memory its rung frees, if anything is known about that.
    pub effect: Option<Effect>,
}

/// Where every rule of a ladder stands after its last evaluation, lowest rung first.
#[must_use]
pub fn explain(
    ladder: &Ladder,
    state: &LadderState,
    readings: &Readings,
    now: Stamp,
) -> Vec<RuleExplanation> {
    let mut state = state.clone();
    state.realign(now);
    let none = RuleState::default();
    let scene = Scene {
        ladder,
        state: &state,
        sight: Sight {
            readings,
            changed_at: state.changed_at,
        },
        now,
    };
    let explain = |rule: &Rule| scene.explain(rule, state.rules.get(&rule.name).unwrap_or(&none));
    ladder.rules.iter().map(explain).collect()
}

/// The clauses of a rule as they are now.
pub(crate) fn clauses(rule: &Rule, state: &RuleState, sight: &Sight<'_>) -> Vec<ClauseExplanation> {
    let release = state.is_on().then(|| Relief::of(rule, state).undone());
    let since = |position| state.beyond.get(position).copied().flatten();
    let each = |(position, clause): (usize, &Clause)| {
        let reading = sight.reading(clause);
        let value = reading.map(|reading| reading.value);
        let after_release = release.and_then(|release| sight.after(clause, &release));
        let emergency = clause
            .emergency
            .map(|line| format!(", hot rungs at once {} {}", beyond(clause), show(clause, line)));
        let lines = format!(
            "takes {} {}{}, lets go {} {}",
            beyond(clause),
            show(clause, clause.enter),
            emergency.unwrap_or_default(),
            safe(clause),
            show(clause, clause.exit)
        );
        let fall = sight
            .fall(clause)
            .map(|change| format!(", and {}", falls(change)))
            .unwrap_or_default();
        let range = reading.and_then(|_| range(clause, sight.readings));
        let estimated = range
            .map(|(low, high)| {
                format!(
                    ", {} to {} in four of five cases",
                    show(clause, low),
                    show(clause, high)
                )
            })
            .unwrap_or_default();
        let now = value.map_or("unknown".to_owned(), |value| {
            let about = if range.is_some() { "about " } else { "" };
            format!("{about}{}{estimated}", show(clause, value))
        });
        let after = after_release
            .map(|after| format!(", {} without this rung", show(clause, after)))
            .unwrap_or_default();
        ClauseExplanation {
            signal: clause.probe.signal.to_string(),
            stat: clause.probe.stat,
            window_secs: clause.probe.window.as_secs_f64(),
            value,
            range,
            at_ns: reading.map(|reading| reading.at.unix_ns),
            enter: clause.enter,
            exit: clause.exit,
            entered: value.map(|value| clause.entered(value)),
            emergency: clause.emergency,
            since_ns: since(position).map(|since| since.unix_ns),
            after_release,
            falls: clause.fall.is_some().then(|| sight.fall(clause).is_some()),
            text: format!("{} is {now}{fall}{after} ({lines})", subject(clause)),
        }
    };
    rule.when.clauses().iter().enumerate().map(each).collect()
}

/// "it falls by itself, to 70 % of what it was five seconds before".
fn falls(change: f64) -> String {
    let word = if change < 1.0 { "falls" } else { "rises" };
    format!(
        "it {word} by itself, to {} of what it was five seconds before",
        show_ratio(change)
    )
}

/// Between which values an estimate lies in four of five cases.
fn range(clause: &Clause, readings: &Readings) -> Option<(f64, f64)> {
    let is_estimate = &*clause.probe.signal == FULL_IN_SECS && clause.probe.stat == Stat::Last;
    readings.forecast().filter(|_| is_estimate)?.range_secs()
}

struct Scene<'a> {
    ladder: &'a Ladder,
    state: &'a LadderState,
    sight: Sight<'a>,
    now: Stamp,
}

impl Scene<'_> {
    fn explain(&self, rule: &Rule, state: &RuleState) -> RuleExplanation {
        let (phase, since) = self.phase(rule, state);
        let mut blocks = Vec::new();
        match state.rung {
            Rung::On { since, .. } => {
                self.common_blocks(rule, state, &mut blocks);
                self.release_blocks(rule, state, since, &mut blocks);
            }
            Rung::Off if state.held.is_some() => {
                self.common_blocks(rule, state, &mut blocks);
                self.apply_blocks(rule, state, &mut blocks);
            }
            Rung::Off | Rung::Observed { .. } | Rung::Proposed { .. } => {}
        }
        RuleExplanation {
            rule: rule.name.clone(),
            engine: self.ladder.engine.clone(),
            mode: rule.mode,
            phase,
            since_ns: since.map(|since| since.unix_ns),
            join: rule.when.join(),
            clauses: clauses(rule, state, &self.sight),
            blocks,
            effect: effect(rule, state),
        }
    }

    fn phase(&self, rule: &Rule, state: &RuleState) -> (Phase, Option<Stamp>) {
        if let Some(under_way) = self
            .state
            .under_way
            .as_ref()
            .filter(|it| it.rungs.contains(&rule.name))
        {
            let phase = match under_way.verdict {
                Verdict::Release | Verdict::Revert => Phase::Releasing,
                Verdict::Apply if under_way.verifying => Phase::Verifying,
                Verdict::Apply => Phase::Applying,
            };
            return (phase, Some(under_way.since));
        }
        match state.rung {
            _ if !state.suspended.is_empty() => return (Phase::Suspended, None),
            Rung::On { since, .. } => return (Phase::Committed, Some(since)),
            Rung::Observed { since } => return (Phase::Observed, Some(since)),
            Rung::Proposed { since } => return (Phase::Proposed, Some(since)),
            Rung::Off => {}
        }
        match state.barred_at(self.now).map(|barred| barred.why) {
            Some(BarReason::RolledBack) => return (Phase::RolledBack, state.failures.last().copied()),
            Some(BarReason::Quarantined) => return (Phase::Quarantined, state.failures.last().copied()),
            Some(BarReason::Refused | BarReason::Interrupted | BarReason::Released) | None => {}
        }
        match (rule.when.entered(|clause| self.sight.value(clause)), &state.held) {
            (None, held) => (Phase::Unknown, held.as_ref().map(|held| held.since)),
            (Some(true), Some(held)) if held.elapsed() >= rule.held_for => (Phase::Gated, Some(held.since)),
            (Some(true), held) => (Phase::Pending, held.as_ref().map(|held| held.since)),
            (Some(false), _) => (Phase::Idle, None),
        }
    }

    /// What keeps a rule from taking its rung and from letting it go alike.
    fn common_blocks(&self, rule: &Rule, state: &RuleState, blocks: &mut Vec<Block>) {
        if let Some(stopped) = &self.state.stopped {
            blocks.push(plain(match stopped.why {
                StopReason::Paused => "acting on this engine is paused".to_owned(),
                StopReason::Failed => {
                    "acting on this engine stopped after a rollback failed; `plimsoll resume` lifts that"
                        .to_owned()
                }
            }));
        }
        if let Some(under_way) = &self.state.under_way {
            let whose = if under_way.rule == rule.name {
                "its own"
            } else {
                &format!("that of '{}'", under_way.rule)
            };
            blocks.push(plain(format!("a transition is being carried out: {whose}")));
        }
        if let Some(barred) = state.barred_at(self.now) {
            let why = match barred.why {
                BarReason::RolledBack => "taken back a short while ago".to_owned(),
                BarReason::Quarantined => {
                    format!(
                        "in quarantine after {} failures within a day",
                        state.failures.len()
                    )
                }
                BarReason::Refused => format!("backing off after {} refusal(s)", state.refusals),
                BarReason::Interrupted => "backing off after the daemon ended in the middle".to_owned(),
                BarReason::Released => "let go a short while ago".to_owned(),
            };
            blocks.push(timed(&why, barred.until.since(self.now)));
        }
    }

    /// What the limits of the engine and of the host say to a change of this rule.
    fn budget_blocks(&self, rule: &Rule, blocks: &mut Vec<Block>) {
        let (spent, host) = (&self.state.spent, self.sight.readings.host());
        for exceeded in exceeded(spent, &self.ladder.limits, host, rule.cost, self.now) {
            blocks.push(timed(&exceeded.limit, exceeded.remaining));
        }
        if let Some(left) = self.state.cools_down(&self.ladder.limits, rule.cost, self.now) {
            blocks.push(timed("the engine was changed a short while ago", left));
        }
    }

    fn apply_blocks(&self, rule: &Rule, state: &RuleState, blocks: &mut Vec<Block>) {
        self.budget_blocks(rule, blocks);
        let (most, loss) = (
            self.ladder.limits.quality_loss_max,
            quality_loss(self.ladder, self.state, std::iter::once(rule)),
        );
        if loss > most {
            blocks.push(plain(format!(
                "with it answers would be worse by {} in all, and the limit is {}",
                show_ratio(loss),
                show_ratio(most)
            )));
        }
        if !state.suspended.is_empty() {
            let keys: Vec<String> = state.suspended.iter().map(ToString::to_string).collect();
            blocks.push(plain(format!(
                "a person changed {} in the engine's file",
                keys.join(", ")
            )));
        }
        if state.spent {
            blocks.push(plain(
                "it had its say about this pressure, and waits until that is over".to_owned(),
            ));
        }
        match &state.held {
            Some(held) if held.is_running() && held.elapsed() < rule.held_for => {
                blocks.push(timed(
                    "its condition must hold for longer",
                    rule.held_for.saturating_sub(held.elapsed()),
                ));
            }
            Some(held) if !held.is_running() => blocks.push(plain(UNKNOWN.to_owned())),
            _ => {}
        }
        if self.sight.presses(rule) == Some(false) {
            let falling = |clause: &Clause| {
                Some(format!(
                    "{}: {}",
                    clause.probe.signal,
                    falls(self.sight.fall(clause)?)
                ))
            };
            blocks.extend(rule.when.clauses().iter().filter_map(falling).map(plain));
        }
    }

    fn release_blocks(&self, rule: &Rule, state: &RuleState, since: Stamp, blocks: &mut Vec<Block>) {
        if rule.mode == Mode::Observe {
            blocks.push(plain(
                "the rule only observes: a person lets go of its rung".to_owned(),
            ));
        }
        let highest = highest_on(self.ladder, self.state).filter(|_| rule.mode != Mode::Observe);
        if let Some(higher) = highest.filter(|highest| highest.name != rule.name) {
            blocks.push(plain(format!(
                "the rung of '{}' above it is let go first",
                higher.name
            )));
            return;
        }
        self.budget_blocks(rule, blocks);
        let (held, wanted) = (self.now.since(since), hold(rule, state));
        if held < wanted {
            blocks.push(timed("a rung is held for a while", wanted.saturating_sub(held)));
        }
        let release = Relief::of(rule, state).undone();
        if release.is_unknown() {
            blocks.push(plain(
                "what its rung frees is unknown, so nothing says what letting go would do".to_owned(),
            ));
            return;
        }
        let seen = |clause: &Clause| self.sight.value(clause);
        let projected = |clause: &Clause| self.sight.after(clause, &release);
        match (rule.when.exited(projected), &state.calm) {
            (None, _) if rule.when.exited(seen).is_some() => {
                blocks.push(plain(
                    "what letting go would do to its signals is unknown: a person lets go".to_owned(),
                ));
            }
            (None, _) => blocks.push(plain(UNKNOWN.to_owned())),
            (Some(false), _) => {
                blocks.push(plain(
                    "without its rung the pressure would be back, or near".to_owned(),
                ));
            }
            (Some(true), calm) => {
                let calm = calm.as_ref().map(Timer::elapsed).unwrap_or_default();
                if calm < rule.calm {
                    blocks.push(timed("the calm must last longer", rule.calm.saturating_sub(calm)));
                }
            }
        }
    }
}

const UNKNOWN: &str = "its condition is unknown, which stops its timers";

fn plain(text: String) -> Block {
    Block {
        text,
        remaining_secs: None,
    }
}

fn timed(text: &str, remaining: Duration) -> Block {
    let text = format!("{text}: {} to go", show_duration(remaining));
    Block {
        text,
        remaining_secs: Some(remaining.as_secs_f64()),
    }
}
