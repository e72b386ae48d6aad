//! What becomes of a ladder's state when a transition ends, and when a person steps in.

use std::time::Duration;

use plimsoll_trace::{Stamp, Verdict};

use crate::edit::KeyPath;
use crate::rule::Ladder;
use crate::state::{BarReason, Barred, LadderState, Rung, StopReason, Stopped, UnderWay};

/// How far carrying out a transition came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written and reloaded, and now being verified. The transition goes on.
    Applied,
    /// It stays. `effect_bytes` is the memory it was seen to free, if that could be measured.
    Kept {
        /// Bytes; negative when it took more.
        effect_bytes: Option<i64>,
    },
    /// The former configuration is back and the engine serves it.
    RolledBack,
    /// Nothing was touched.
    Refused,
    /// The engine did not become healthy even on its former configuration.
    Failed,
    /// The daemon ended in the middle, and the former configuration is in force.
    Interrupted,
}

/// A rule is not tried for this long after a rollback that stands alone: what failed once may work later.
pub const REST_AFTER_ROLLBACK: Duration = Duration::from_secs(600);
/// A second rollback within this time puts the rule into quarantine.
pub const ROLLBACKS_WITHIN: Duration = Duration::from_secs(86_400);
/// The first quarantine; each further one doubles it.
pub const FIRST_QUARANTINE: Duration = Duration::from_secs(3_600);
/// The longest quarantine.
pub const LONGEST_QUARANTINE: Duration = Duration::from_secs(86_400);
/// A rule is not tried for this long after it was refused or interrupted; each further one doubles it.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(300);
/// The longest back-off after refusals.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(21_600);
/// A rung that must be taken again this soon after it was let go is held twice as long.
pub const SOON_AGAIN: Duration = Duration::from_secs(1_800);

/// So many failures of a rule are remembered, the newest: more than two within a day change nothing.
const FAILURES_KEPT: usize = 8;

/// An engine that runs out of memory so soon after a rung was taken did so in spite of it.
pub const BLAMED_WITHIN: Duration = Duration::from_secs(600);

/// Learned effects are taken from this many observations, the newest.
const EFFECTS_KEPT: usize = 9;
/// 2^16 times any hold or back-off is beyond its cap.
const MOST_DOUBLINGS: u32 = 16;

impl LadderState {
    /// Takes note of how far the transition of `rule` came. Anything about another rule than the one whose transition
    /// is being carried out is ignored.
    pub fn on_outcome(&mut self, rule: &str, outcome: Outcome, now: Stamp) {
        let Some(under_way) = self.under_way.as_mut().filter(|under_way| under_way.rule == rule) else {
            return;
        };
        // The engine was put through the change once, and once more if it was taken back.
        let mut changes = u32::from(!under_way.verifying && outcome != Outcome::Refused)
            + u32::from(matches!(outcome, Outcome::RolledBack | Outcome::Failed));
        let cost = under_way.cost;
        let was_applied = outcome == Outcome::Applied;
        if was_applied {
            changes = u32::from(!under_way.verifying);
            under_way.verifying = true;
        }
        for _ in 0..changes {
            self.spent.add(cost, Duration::ZERO, now);
        }
        if was_applied {
            return;
        }
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        if outcome != Outcome::Refused {
            self.changed_at = Some(now);
            // A calm that was seen with other rungs in force is none for the rungs that are left.
            self.rules
                .values_mut()
                .filter(|state| state.is_on())
                .for_each(|state| state.calm = None);
        }
        match outcome {
            Outcome::Applied => {}
            // A restart: nothing of it stays, and it is not done again at once.
            Outcome::Kept { .. } if under_way.rungs.is_empty() => {
                let rest = under_way.cost.rest();
                self.rule_mut(rule).bar(BarReason::Released, now.plus(rest));
            }
            Outcome::Kept { effect_bytes } if under_way.verdict == Verdict::Apply => {
                self.take(&under_way, effect_bytes, now);
            }
            Outcome::Kept { .. } => self.let_go(&under_way, now),
            Outcome::RolledBack => self.rule_mut(rule).rolled_back(now),
            Outcome::Failed => {
                self.rule_mut(rule).rolled_back(now);
                self.stopped = Some(Stopped {
                    why: StopReason::Failed,
                    since: now,
                });
            }
            Outcome::Refused => self.back_off(rule, BarReason::Refused, now),
            Outcome::Interrupted => self.back_off(rule, BarReason::Interrupted, now),
        }
    }

    fn take(&mut self, under_way: &UnderWay, measured_bytes: Option<i64>, now: Stamp) {
        let (mut alone, mut top) = (under_way.rungs.len() == 1, true);
        for name in under_way.rungs.iter().rev() {
            let state = self.rule_mut(name);
            (state.refusals, state.barred, state.calm) = (0, None, None);
            let again = state
                .released
                .is_some_and(|released| now.since(released) < SOON_AGAIN);
            state.hold_doublings = if again {
                (state.hold_doublings + 1).min(MOST_DOUBLINGS)
            } else {
                0
            };
            // What several rungs freed together says nothing certain about any one of them.
            if let Some(bytes) = measured_bytes.filter(|_| alone) {
                state.effects_bytes.push(bytes);
                let surplus = state.effects_bytes.len().saturating_sub(EFFECTS_KEPT);
                state.effects_bytes.drain(..surplus);
            }
            if state.suspended.is_empty() {
                let measured_bytes = measured_bytes.filter(|_| top);
                state.rung = Rung::On {
                    since: now,
                    measured_bytes,
                    release_proposed: None,
                };
            }
            (alone, top) = (false, false);
        }
    }

    fn let_go(&mut self, under_way: &UnderWay, now: Stamp) {
        for name in &under_way.rungs {
            let state = self.rule_mut(name);
            (state.rung, state.calm, state.released) = (Rung::Off, None, Some(now));
            (state.refusals, state.spent) = (0, false);
            // What a person lets go of in quarantine stays there; what served its whole time starts afresh.
            if state
                .barred_at(now)
                .is_none_or(|barred| barred.why != BarReason::Quarantined)
            {
                (state.barred, state.quarantines) = (None, 0);
            }
            let rest = under_way.cost.rest();
            if !rest.is_zero() {
                state.bar(BarReason::Released, now.plus(rest));
            }
        }
    }

    /// The engine died because memory was out. Its rules answer at the next evaluation, and rungs that were taken shortly
    /// before did not help: that counts as a failure of theirs, as a rollback does.
    pub fn ran_out_of_memory(&mut self, now: Stamp) {
        self.died_again = self
            .last_death
            .replace(now)
            .is_some_and(|last| now.since(last) < SOON_AGAIN);
        self.out_of_memory = Some(now);
        for state in self.rules.values_mut() {
            if matches!(state.rung, Rung::On { since, .. } if now.since(since) < BLAMED_WITHIN) {
                state.failed(now);
            }
        }
    }

    /// The engine did not serve for so long because of the change that was made last.
    pub fn was_away(&mut self, away: Duration) {
        self.spent.away(away);
    }

    fn back_off(&mut self, rule: &str, why: BarReason, now: Stamp) {
        let state = self.rule_mut(rule);
        let time = doubled(FIRST_BACKOFF, state.refusals).min(LONGEST_BACKOFF);
        state.refusals = state.refusals.saturating_add(1);
        state.bar(why, now.plus(time));
    }

    /// A person changed these keys in the engine's file: they are the person's now. The rules that set them do nothing
    /// until [`resume`](Self::resume), and their rungs count as not taken. Returns the names of those rules.
    pub fn suspend(&mut self, ladder: &Ladder, keys: &[KeyPath], now: Stamp) -> Vec<String> {
        let mut suspended = Vec::new();
        for rule in &ladder.rules {
            let mut paths = rule.set.iter().map(|setting| &setting.path);
            let touched: Vec<&KeyPath> = paths
                .by_ref()
                .filter(|path| keys.iter().any(|key| key.overlaps(path)))
                .collect();
            if touched.is_empty() {
                continue;
            }
            let state = self.rule_mut(&rule.name);
            for path in touched {
                if !state.suspended.contains(path) {
                    state.suspended.push(path.clone());
                }
            }
            (state.rung, state.calm) = (Rung::Off, None);
            suspended.push(rule.name.clone());
        }
        self.changed_at = Some(now);
        suspended
    }

    /// The rungs of rules that are no longer on the ladder count as let go.
    pub(crate) fn forget_absent(&mut self, ladder: &Ladder) {
        let absent: Vec<String> = self.absent(ladder).map(str::to_owned).collect();
        for name in absent {
            self.rule_mut(&name).rung = Rung::Off;
        }
    }

    /// A person did what was proposed for this rule. It is silent until the pressure is over: what they wrote is theirs,
    /// and would be all that it could propose again.
    pub(crate) fn heed(&mut self, rule: &str) {
        let state = self.rule_mut(rule);
        (state.rung, state.spent) = (Rung::Off, true);
    }

    /// What was proposed for this rule no longer stands.
    pub(crate) fn forget_proposal(&mut self, rule: &str) {
        match &mut self.rule_mut(rule).rung {
            rung @ Rung::Proposed { .. } => *rung = Rung::Off,
            Rung::On { release_proposed, .. } => *release_proposed = None,
            Rung::Off | Rung::Observed { .. } => {}
        }
    }

    /// The engine has another file: no rung is taken in it.
    pub(crate) fn leave_all(&mut self, now: Stamp) {
        for state in self.rules.values_mut().filter(|state| state.is_on()) {
            (state.rung, state.calm) = (Rung::Off, None);
        }
        self.changed_at = Some(now);
    }

    /// Suspends all acting on this engine. What is being carried out is carried to its end; timers go on.
    pub fn pause(&mut self, now: Stamp) {
        self.stopped.get_or_insert(Stopped {
            why: StopReason::Paused,
            since: now,
        });
    }

    /// Whether a person has suspended all acting on this engine.
    pub(crate) fn is_paused(&self) -> bool {
        let why = self.stopped.as_ref().map(|stopped| stopped.why);
        why == Some(StopReason::Paused)
    }

    /// Lets the rules act again: after a pause, after a failure, and on keys that a person had changed.
    pub fn resume(&mut self) {
        self.stopped = None;
        self.rules.values_mut().for_each(|state| state.suspended.clear());
    }

    /// Ends what keeps one rule from acting: its quarantine or back-off, and its suspension on keys that a person had
    /// changed.
    pub fn lift(&mut self, rule: &str) {
        if let Some(state) = self.rules.get_mut(rule) {
            (state.barred, state.quarantines, state.refusals, state.spent) = (None, 0, 0, false);
            state.failures.clear();
            state.suspended.clear();
        }
    }
}

impl crate::state::RuleState {
    /// The rule is not tried until then; a bar that lasts longer stays.
    fn bar(&mut self, why: BarReason, until: Stamp) {
        self.calm = None;
        if self
            .barred
            .as_ref()
            .is_none_or(|barred| barred.until.mono_ns <= until.mono_ns)
        {
            self.barred = Some(Barred { why, until });
        }
    }

    /// It was taken, or let go, and that was taken back.
    fn rolled_back(&mut self, now: Stamp) {
        if !self.failed(now) {
            self.bar(BarReason::RolledBack, now.plus(REST_AFTER_ROLLBACK));
        }
    }

    /// It failed. Answers whether that put it into quarantine: a second failure within a day does.
    fn failed(&mut self, now: Stamp) -> bool {
        self.failures.retain(|at| now.since(*at) < ROLLBACKS_WITHIN);
        self.failures.push(now);
        let surplus = self.failures.len().saturating_sub(FAILURES_KEPT);
        self.failures.drain(..surplus);
        let again = self.failures.len() > 1;
        if again {
            let time = doubled(FIRST_QUARANTINE, self.quarantines).min(LONGEST_QUARANTINE);
            self.quarantines = self.quarantines.saturating_add(1);
            self.bar(BarReason::Quarantined, now.plus(time));
        }
        again
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(MOST_DOUBLINGS))
}
