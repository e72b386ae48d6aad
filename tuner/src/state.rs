//! What is remembered about a ladder from tick to tick, over restarts of the daemon and of the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_trace::{Stamp, Verdict, signal};
use serde::{Deserialize, Serialize};

use crate::budget::{Limits, Spent};
use crate::edit::KeyPath;
use crate::rule::{Cost, Ladder, Rule};
use crate::timer::Timer;

/// The state of an engine's ladder. Written to the store as JSON; holds no fractions, so that it comes back the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LadderState {
    /// When it was last evaluated.
    pub(crate) at: Option<Stamp>,
    /// The one transition that is being carried out.
    pub(crate) under_way: Option<UnderWay>,
    /// Set while no rule of this engine may act.
    pub(crate) stopped: Option<Stopped>,
    /// When the engine's configuration was last changed. What was measured before says nothing about the time after.
    pub(crate) changed_at: Option<Stamp>,
    /// The engine ran out of memory, and its rules have not answered yet.
    pub(crate) out_of_memory: Option<Stamp>,
    /// When it did so last, answered or not.
    pub(crate) last_death: Option<Stamp>,
    /// When the engine's process was last seen to be another one.
    pub(crate) restarted: Option<Stamp>,
    /// Whether it had done so shortly before that.
    pub(crate) died_again: bool,
    /// What changes cost the engine lately.
    pub(crate) spent: Spent,
    /// By rule name, so that it outlives edits of the rules.
    pub(crate) rules: BTreeMap<String, RuleState>,
}

/// A transition that is being carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UnderWay {
    /// The rule whose decision it is.
    pub(crate) rule: String,
    /// Which way it goes.
    pub(crate) verdict: Verdict,
    /// The rungs it takes or lets go, lowest first; more than one when lower rungs are taken along.
    pub(crate) rungs: Vec<String>,
    /// What it costs; when nothing was remembered, the most.
    #[serde(default = "restart")]
    pub(crate) cost: Cost,
    /// Since when.
    pub(crate) since: Stamp,
    /// Whether it is written and reloaded and now being verified.
    pub(crate) verifying: bool,
}

const fn restart() -> Cost {
    Cost::Restart
}

/// Why no rule may act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) why: StopReason,
    pub(crate) since: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopReason {
    /// A person asked for it.
    Paused,
    /// The engine did not become healthy even on its former configuration.
    Failed,
}

/// The state of one rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RuleState {
    pub(crate) rung: Rung,
    /// How long the condition has held.
    pub(crate) held: Option<Timer>,
    /// How long the projected use after a release has been at `exit` or better.
    pub(crate) calm: Option<Timer>,
    /// Per clause: since when its value is at `enter` or beyond.
    pub(crate) beyond: Vec<Option<Stamp>>,
    /// Set while the rule is not tried, because the last try did not work.
    pub(crate) barred: Option<Barred>,
    /// The rule has had its say about this pressure, and is silent until the pressure is over.
    pub(crate) spent: bool,
    /// Keys of this rule that a person has changed. While there are any, the rule does nothing.
    pub(crate) suspended: Vec<KeyPath>,
    /// The memory that taking this rung alone was seen to free; newest last.
    pub(crate) effects_bytes: Vec<i64>,
    /// When it was taken back lately, or did not keep the engine from dying; newest last.
    pub(crate) failures: Vec<Stamp>,
    /// Quarantines since it last served its whole time.
    pub(crate) quarantines: u32,
    /// Refusals since it was last carried out.
    pub(crate) refusals: u32,
    /// When the rung was last let go.
    pub(crate) released: Option<Stamp>,
    /// How often `hold` is doubled, because the rung had to be taken again soon after it was let go.
    pub(crate) hold_doublings: u32,
}

/// Where a rung stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rung {
    /// Not taken.
    #[default]
    Off,
    /// It would have been taken, were the rule allowed to. Nothing was changed.
    Observed { since: Stamp },
    /// Waiting for a person.
    Proposed { since: Stamp },
    /// Taken: its settings are in the engine's configuration.
    On {
        since: Stamp,
        /// What taking it (with the rungs that were taken along) was seen to free this time.
        measured_bytes: Option<i64>,
        /// Since when its release waits for a person.
        release_proposed: Option<Stamp>,
    },
}

/// A rule that is not tried for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Barred {
    pub(crate) why: BarReason,
    pub(crate) until: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BarReason {
    /// It was taken back a short while ago, for the first time in a long while.
    RolledBack,
    /// It was taken back again and again.
    Quarantined,
    Refused,
    Interrupted,
    /// It was let go a short while ago.
    Released,
}

impl RuleState {
    pub(crate) const fn is_on(&self) -> bool {
        matches!(self.rung, Rung::On { .. })
    }

    pub(crate) fn barred_at(&self, now: Stamp) -> Option<&Barred> {
        self.barred
            .as_ref()
            .filter(|barred| barred.until.mono_ns > now.mono_ns)
    }
}

impl LadderState {
    /// The rules whose settings are in force in the engine's configuration, lowest first.
    pub fn active<'a>(&'a self, ladder: &'a Ladder) -> impl Iterator<Item = &'a Rule> {
        ladder.rules.iter().filter(|rule| self.is_on(&rule.name))
    }

    /// The rule whose transition is being carried out, and which way it goes.
    #[must_use]
    pub fn under_way(&self) -> Option<(&str, Verdict)> {
        self.under_way
            .as_ref()
            .map(|under_way| (under_way.rule.as_str(), under_way.verdict))
    }

    /// What changes cost the engine lately, with the one that is being made.
    pub(crate) fn spent(&self) -> Spent {
        let mut spent = self.spent.clone();
        if let Some(under_way) = self.under_way.as_ref().filter(|it| !it.verifying) {
            spent.add(under_way.cost, Duration::ZERO, under_way.since);
        }
        spent
    }

    /// For how much longer no change of this cost is made, because the engine was changed or died a short while ago.
    pub(crate) fn cools_down(&self, limits: &Limits, cost: Cost, now: Stamp) -> Option<Duration> {
        let disturbed = [self.changed_at, self.last_death, self.restarted];
        let last = disturbed
            .into_iter()
            .flatten()
            .max_by_key(|stamp| stamp.mono_ns)?;
        let left = limits.cooldown(cost).saturating_sub(now.since(last));
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn is_on(&self, rule: &str) -> bool {
        self.rules.get(rule).is_some_and(RuleState::is_on)
    }

    /// Where each rule of the ladder stands, in a word, whatever its condition says.
    pub(crate) fn standing(&self, ladder: &Ladder) -> BTreeMap<String, &'static str> {
        let under_way = |rule: &str| {
            let it = self.under_way.as_ref();
            it.filter(|it| it.rungs.iter().any(|rung| rung == rule))
        };
        let word = |rule: &Rule| {
            let state = self.rules.get(&rule.name);
            match (under_way(&rule.name), state.map(|state| &state.rung)) {
                (Some(it), _) if it.verdict == Verdict::Apply => "being taken",
                (Some(_), _) => "being let go",
                _ if state.is_some_and(|state| !state.suspended.is_empty()) => "suspended",
                (None, Some(Rung::On { .. })) => "taken",
                (None, Some(Rung::Observed { .. })) => "observed",
                (None, Some(Rung::Proposed { .. })) => "proposed",
                (None, Some(Rung::Off) | None) => "not taken",
            }
        };
        let rules = ladder.rules.iter();
        rules.map(|rule| (rule.name.clone(), word(rule))).collect()
    }

    /// Rules that hold a rung and are not on the ladder: they were taken out of the configuration.
    pub(crate) fn absent<'a>(&'a self, ladder: &'a Ladder) -> impl Iterator<Item = &'a str> {
        let rules = self.rules.iter().filter(|(_, state)| state.is_on());
        rules
            .map(|(name, _)| name.as_str())
            .filter(|name| ladder.rule(name).is_none())
    }

    /// Whether a proposal of this rule waits for a person.
    pub(crate) fn awaits_person(&self, rule: &str) -> bool {
        let rung = self.rules.get(rule).map(|state| &state.rung);
        matches!(
            rung,
            Some(
                Rung::Proposed { .. }
                    | Rung::On {
                        release_proposed: Some(_),
                        ..
                    }
            )
        )
    }

    /// The state of a rule, made when it is new.
    pub(crate) fn rule_mut(&mut self, name: &str) -> &mut RuleState {
        self.rules.entry(name.to_owned()).or_default()
    }

    /// Moves every stamp to the present boot's clock, if the machine was started anew since the last evaluation: the
    /// monotonic clock then begins again, and only the wall clock can tell how much time has passed. A small step back
    /// is not a new boot, but batches that came out of order.
    pub(crate) fn realign(&mut self, now: Stamp) {
        let Some(at) = self.at.filter(|at| at.since(now) > signal::MAX_AGE) else {
            return;
        };
        let passed_ns = now.unix_ns.saturating_sub(at.unix_ns).max(0);
        let shift_ns = now.mono_ns.saturating_sub(passed_ns).saturating_sub(at.mono_ns);
        self.each_stamp(&mut |stamp| stamp.mono_ns = stamp.mono_ns.saturating_add(shift_ns));
    }

    pub(crate) fn each_stamp(&mut self, change: &mut impl FnMut(&mut Stamp)) {
        self.at
            .iter_mut()
            .chain(&mut self.changed_at)
            .chain(&mut self.out_of_memory)
            .chain(&mut self.last_death)
            .chain(&mut self.restarted)
            .for_each(&mut *change);
        self.spent.each_stamp(&mut *change);
        self.under_way
            .iter_mut()
            .for_each(|under_way| change(&mut under_way.since));
        self.stopped
            .iter_mut()
            .for_each(|stopped| change(&mut stopped.since));
        for rule in self.rules.values_mut() {
            match &mut rule.rung {
                Rung::Off => {}
                Rung::Observed { since } | Rung::Proposed { since } => change(since),
                Rung::On {
                    since,
                    release_proposed,
                    ..
                } => {
                    change(since);
                    release_proposed.iter_mut().for_each(&mut *change);
                }
            }
            for timer in rule.held.iter_mut().chain(&mut rule.calm) {
                change(&mut timer.since);
                change(&mut timer.last);
            }
            rule.barred
                .iter_mut()
                .for_each(|barred| change(&mut barred.until));
            rule.beyond
                .iter_mut()
                .flatten()
                .chain(&mut rule.released)
                .chain(&mut rule.failures)
                .for_each(&mut *change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_boot_keeps_the_distances() {
        let boot_1 = |secs: i64| Stamp {
            mono_ns: (9_000 + secs) * 1_000_000_000,
            unix_ns: (50_000 + secs) * 1_000_000_000,
        };
        let boot_2 = |secs: i64| Stamp {
            mono_ns: (secs - 100) * 1_000_000_000,
            unix_ns: (50_000 + secs) * 1_000_000_000,
        };
        let mut state = LadderState {
            at: Some(boot_1(10)),
            ..LadderState::default()
        };
        state.rule_mut("a").rung = Rung::On {
            since: boot_1(0),
            measured_bytes: None,
            release_proposed: None,
        };
        state.rule_mut("a").barred = Some(Barred {
            why: BarReason::Quarantined,
            until: boot_1(500),
        });
        let unchanged = state.clone();
        state.realign(boot_1(20));
        assert_eq!(state, unchanged);

        let now = boot_2(200);
        state.realign(now);
        let rule = state.rule_mut("a").clone();
        assert!(matches!(rule.rung, Rung::On { since, .. } if now.since(since) == Duration::from_secs(200)));
        assert!(rule.barred_at(now).is_some() && rule.barred_at(boot_2(500)).is_none());
    }
}
