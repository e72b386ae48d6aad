//! What a failure means for its rule, told to people: a rest after the first, a quarantine after more.

use std::collections::BTreeSet;

use plimsoll_trace::units::show_duration;
use plimsoll_trace::{Decision, DecisionOutcome, Event, EventKind, Record, Stamp};
use serde_json::{Value, json};

use super::Engine;
use crate::state::{BarReason, RuleState};

/// What follows for the rule of a change that was taken back.
pub(super) struct Consequence {
    /// For the decision.
    pub(super) sentence: String,
    /// For the log of events.
    pub(super) event: Event,
}

impl Engine {
    /// What follows from the end of an action, if that was a failure of its rule. To be asked when its outcome is known.
    pub(super) fn consequence(&self, decision: &Decision, now: Stamp) -> Option<Consequence> {
        if !matches!(
            decision.outcome,
            DecisionOutcome::RolledBack | DecisionOutcome::Failed
        ) {
            return None;
        }
        let rule = &decision.rule;
        let state = self.memo.ladder.rules.get(rule)?;
        let problem = decision.detail.get("problem").and_then(Value::as_str);
        let problem = problem.unwrap_or("its change was taken back");
        if let Some((standing, event)) = self.quarantine(rule, state, problem, now) {
            let sentence = format!("The rule is {standing}.");
            return Some(Consequence { sentence, event });
        }
        let barred = state.barred_at(now)?;
        let rest = show_duration(barred.until.since(now));
        let message = format!("rule {rule} of {} rests for {rest}: {problem}", self.name());
        let event = Event::new(EventKind::RolledBack, message).in_run(decision.run);
        Some(Consequence {
            sentence: format!("The rule rests for {rest}."),
            event: event.with_detail(json!({
                "engine": self.name(), "rule": rule, "decision": decision.id.0, "until_ns": barred.until.unix_ns,
            })),
        })
    }

    /// The rules that are in quarantine.
    pub(super) fn quarantined(&self, now: Stamp) -> BTreeSet<String> {
        let rules = self.memo.ladder.rules.iter();
        let quarantined = rules.filter(|(_, state)| is_quarantined(state, now));
        quarantined.map(|(rule, _)| rule.clone()).collect()
    }

    /// An event for each rule that is in quarantine now and was not `before`.
    pub(super) fn newly_quarantined(&self, before: &BTreeSet<String>, why: &str, now: Stamp) -> Vec<Record> {
        let rules = self.memo.ladder.rules.iter();
        let new = rules.filter(|(rule, _)| !before.contains(*rule));
        let events = new.filter_map(|(rule, state)| self.quarantine(rule, state, why, now));
        events.map(|(_, event)| Record::Event(event)).collect()
    }

    /// How the rule stands and the event that says so, if it is in quarantine.
    fn quarantine(&self, rule: &str, state: &RuleState, why: &str, now: Stamp) -> Option<(String, Event)> {
        let barred = state.barred_at(now).filter(|_| is_quarantined(state, now))?;
        let failures = state.failures.len();
        let standing = format!(
            "in quarantine for {} after {failures} failures within a day; `plimsoll resume {rule}` lifts that",
            show_duration(barred.until.since(now))
        );
        let message = format!("rule {rule} of {} is {standing}: {why}", self.name());
        let detail = json!({
            "engine": self.name(), "rule": rule, "failures": failures, "until_ns": barred.until.unix_ns,
        });
        let event = Event::new(EventKind::Quarantine, message).in_run(self.run);
        Some((standing, event.with_detail(detail)))
    }
}

fn is_quarantined(state: &RuleState, now: Stamp) -> bool {
    let why = state.barred_at(now).map(|barred| barred.why);
    why == Some(BarReason::Quarantined)
}
