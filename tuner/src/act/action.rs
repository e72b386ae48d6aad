//! An action under way: what it knows, and how it ends.

use std::time::Duration;

use plimsoll_trace::{
    ChangeOutcome, ConfigChange, Decision, DecisionOutcome, Event, EventKind, Record, Stamp,
};
use serde_json::{Value, json};

use super::order::{Ended, Order, Report};
use super::plan::Plan;
use crate::adopt::Base;
use crate::edit::KeyPath;
use crate::file;
use crate::guard::Guard;
use crate::spec::DEFAULT_WITHIN;

/// An action under way.
#[derive(Clone)]
pub(super) struct Action {
    pub(super) order: Order,
    pub(super) change: Option<ConfigChange>,
    /// The base to remember if the file ends with what this action wrote.
    pub(super) base: Option<Base>,
    pub(super) events: Vec<Event>,
    /// Whether a former daemon began it: then taking it back is an interruption, not a verdict on the rule.
    pub(super) resumed: bool,
    /// What this action wrote is not kept, but could not be taken out of the file.
    pub(super) ours_left: bool,
    /// How long the engine did not serve because of it.
    pub(super) away: Duration,
    /// The engine was down when it began, and nobody else's doing brought it down since.
    pub(super) down: bool,
    /// What the quality command said before the change.
    pub(super) score_before: Option<f64>,
    /// What it said in the course of it, to be remembered.
    pub(super) scores: Vec<(String, f64)>,
}

impl Action {
    pub(super) fn new(mut order: Order, plan: Option<&Plan>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let change = plan.filter(|plan| !plan.is_empty()).map(|plan| ConfigChange {
            id: order.change,
            decision: order.decision.id,
            path: plan.snapshot.path.to_string_lossy().into_owned(),
            at_ns: Stamp::now().unix_ns,
            before: text(&plan.snapshot.bytes),
            after: text(&plan.after),
            diff: plan.diff.clone(),
            outcome: ChangeOutcome::Written,
        });
        let base = plan.zip(order.engine.config.as_ref()).map(|(plan, config)| Base {
            path: config.path.clone(),
            text: text(&plan.base),
            written: text(&plan.after),
            keys: set_keys(&order),
        });
        if let Some(plan) = plan.filter(|plan| !plan.is_empty()) {
            // What recovery needs, in the very row that comes before the write.
            let detail = json!({
                "path": plan.snapshot.path, "reload": order.engine.reload.describe(),
                "hash_before": plan.snapshot.hash, "hash_after": file::hash(&plan.after),
                "keys": base.as_ref().map(|base| &base.keys),
                // Only where it is not what the change itself remembers as before.
                "base": (plan.base != plan.snapshot.bytes).then(|| base.as_ref().map(|base| &base.text)),
            });
            note(&mut order.decision, "file", detail);
        }
        Self {
            order,
            change,
            base,
            events: Vec::new(),
            resumed: false,
            ours_left: false,
            away: Duration::ZERO,
            down: false,
            score_before: None,
            scores: Vec::new(),
        }
    }

    /// An action that a former daemon left behind.
    pub(super) fn resume(order: Order, change: Option<ConfigChange>) -> Self {
        let detail = order.decision.detail.get("file");
        let config = order.engine.config.as_ref();
        let base = change.as_ref().zip(config).map(|(change, config)| Base {
            path: config.path.clone(),
            text: detail
                .and_then(|file| file.get("base")?.as_str())
                .unwrap_or(&change.before)
                .to_owned(),
            written: change.after.clone(),
            // By the rules as they were then; they may have been edited since.
            keys: detail
                .and_then(|file| serde_json::from_value(file.get("keys")?.clone()).ok())
                .unwrap_or_else(|| set_keys(&order)),
        });
        Self {
            order,
            change,
            base,
            events: Vec::new(),
            resumed: true,
            ours_left: false,
            away: Duration::ZERO,
            down: false,
            score_before: None,
            scores: Vec::new(),
        }
    }

    pub(super) fn end(
        mut self,
        ended: Ended,
        outcome: DecisionOutcome,
        said: &str,
        effect_bytes: Option<f64>,
    ) -> Report {
        let kept = ended == Ended::Kept;
        let (ended, outcome) = if self.resumed && ended == Ended::RolledBack {
            (Ended::Interrupted, DecisionOutcome::Interrupted)
        } else {
            (ended, outcome)
        };
        if let Some(change) = self.change.as_mut().filter(|_| kept) {
            change.outcome = ChangeOutcome::Kept;
        }
        self.order.decision.outcome = outcome;
        self.order.decision.explanation = format!("{} {}.", self.order.decision.explanation, sentence(said));
        self.note("step", json!("ended"));
        if self.resumed {
            self.note("resolved_by", json!({ "kind": "recovery" }));
        }
        let ours = kept || self.ours_left;
        let left = self
            .change
            .as_ref()
            .map(|change| if ours { &change.after } else { &change.before });
        let left = left
            .map(|text| text.clone().into_bytes())
            .filter(|_| ended != Ended::Refused);
        let base = if ours {
            self.base.take()
        } else {
            self.order.base.take()
        };
        let mut records = self.rows();
        records.extend(self.events.into_iter().map(Record::Event));
        Report {
            engine: self.order.engine.name.clone(),
            rule: self.order.decision.rule.clone(),
            ended,
            effect_bytes,
            away: self.away,
            base: base.filter(|base| base.text != base.written),
            left,
            scores: self.scores,
            records,
        }
    }

    pub(super) fn rows(&self) -> Vec<Record> {
        let decision = std::iter::once(Record::Decision(self.order.decision.clone()));
        decision
            .chain(self.change.clone().map(Record::ConfigChange))
            .collect()
    }

    /// That the engine answers its health check after a reload.
    pub(super) fn ready(&self, message: String) -> Event {
        Event::new(EventKind::EngineReady, message).in_run(self.order.decision.run)
    }

    pub(super) fn note(&mut self, key: &str, value: Value) {
        note(&mut self.order.decision, key, value);
    }

    /// Writes down what guards say, under "before", "during" or "after".
    pub(super) fn note_guards(&mut self, when: &str, guards: &[Guard]) {
        let said: Vec<Value> = guards.iter().map(Guard::to_json).collect();
        let mut all = self
            .order
            .decision
            .detail
            .get("guards")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let list = all.entry(when.to_owned()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.extend(said);
        }
        self.note("guards", Value::Object(all));
    }

    pub(super) fn within(&self) -> Duration {
        let health = self.order.engine.health.as_ref();
        health.map_or(DEFAULT_WITHIN, |health| health.within)
    }
}

/// The keys that the rungs set in the file, if the order is carried out.
fn set_keys(order: &Order) -> Vec<KeyPath> {
    let settings = order.overlays.iter().flat_map(|overlay| &overlay.settings);
    settings.map(|setting| setting.path.clone()).collect()
}

fn note(decision: &mut Decision, key: &str, value: Value) {
    if !decision.detail.is_object() {
        decision.detail = json!({});
    }
    if let Some(object) = decision.detail.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// With a capital first letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
