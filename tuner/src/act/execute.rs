//! One action from its plan to its outcome, step by step. Whatever goes wrong, the file ends as it was or as planned,
//! and the engine is told to read whichever it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_trace::{ChangeOutcome, ConfigChange, Decision, DecisionOutcome, Event, Record, Stamp, units};
use serde_json::{Value, json};

use super::effect;
use super::live::{Latest, Live};
use super::order::{Ended, Order, Report};
use super::panics::{Panicked, caught};
use super::plan::{self, Plan};
use super::ready::{self, ReadBack, Readiness};
use super::recover::recover;
use super::{Journal, reload};
use crate::adopt::Base;
use crate::edit::KeyPath;
use crate::file;
use crate::spec::{DEFAULT_WITHIN, Reload};

/// Carries `order` out and reports. Blocks for as long as the engine may take to reload, twice in the worst case.
#[must_use]
pub fn carry_out(order: Order, live: &Live, journal: &dyn Journal) -> Report {
    let plan = match caught(|| plan::make(&order)) {
        Ok(Ok(plan)) => plan,
        Ok(Err(error)) => return Action::new(order, None).refuse(&error),
        Err(panic) => return Action::new(order, None).refuse(&panic),
    };
    let action = Action::new(order, Some(&plan));
    if plan.is_empty() {
        return action.end(
            Ended::Kept,
            DecisionOutcome::Kept,
            "the file already says so, so nothing was written",
            None,
        );
    }
    let spare = action.clone();
    caught(|| action.run(&plan, live, journal))
        .unwrap_or_else(|panic| spare.after_a_panic(&panic, live, journal))
}

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
}

impl Action {
    fn new(mut order: Order, plan: Option<&Plan>) -> Self {
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
        }
    }

    fn run(mut self, plan: &Plan, live: &Live, journal: &dyn Journal) -> Report {
        let engine = Arc::clone(&self.order.engine);
        let mut before = live.latest(&engine.name);
        before.vram = effect::fresh(before.vram, Stamp::now());
        if let Err(error) = file::check(&plan.snapshot) {
            self.change = None;
            return self.refuse(&error);
        }
        if let Err(error) = reload::check(&engine.reload, before.root) {
            self.change = None;
            return self.refuse(&error);
        }
        self.order.decision.outcome = DecisionOutcome::Applying;
        if let Err(error) = journal.commit(self.rows()) {
            self.change = None;
            return self.refuse(&error);
        }
        let started = Instant::now();
        if let Err(error) = file::replace(&plan.snapshot, &plan.after) {
            if let Some(change) = &mut self.change {
                change.outcome = ChangeOutcome::RolledBack;
            }
            return self.refuse(&error);
        }
        let ready = match reload::carry_out(&engine.reload, before.root, self.within()) {
            Ok(()) => ready::wait_until_ready(&engine, &plan.wanted, started),
            Err(error) => Readiness::NotReady(chain(&error)),
        };
        match ready {
            Readiness::Ready { read_back, after } => self.verify(&read_back, after, before, live, journal),
            Readiness::NotChecked => {
                self.verify(&ReadBack::Unknown, started.elapsed(), before, live, journal)
            }
            Readiness::NotReady(problem) => self.roll_back(&problem, live, journal),
        }
    }

    /// The engine serves with the new values. What did it do to memory?
    fn verify(
        mut self,
        read_back: &ReadBack,
        took: Duration,
        before: Latest,
        live: &Live,
        journal: &dyn Journal,
    ) -> Report {
        let equal = *read_back == ReadBack::Equal;
        let (shown, values) = if equal {
            ("equal", " and shows the new values")
        } else {
            ("unknown", "")
        };
        self.order.decision.outcome = DecisionOutcome::Applied;
        self.note(
            "ready",
            json!({ "after_secs": took.as_secs_f64(), "read_back": shown }),
        );
        let applied = Stamp::now();
        if let Err(error) = journal.commit(self.rows()) {
            // The engine serves; the row will follow with the outcome.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the step 'applied' is not stored"
            );
        }
        let after = effect::settled(&self.order.engine.name, applied, live);
        let restarted = !matches!(self.order.engine.reload, Reload::Restart(_));
        let replaced = match (before.root, live.latest(&self.order.engine.name).root) {
            (Some(before), Some(now)) if before != now && restarted => {
                "; its process ended meanwhile and was started again"
            }
            _ => "",
        };
        let before = before.vram.map(|(_, bytes)| bytes);
        let effect = before.zip(after).map(|(before, after)| before - after);
        self.note(
            "effect",
            json!({ "before_bytes": before, "after_bytes": after, "freed_bytes": effect }),
        );
        let said = format!(
            "the engine serves again after {}{values}{replaced}; {}",
            units::show_duration(took),
            effect.map_or_else(|| "what it did to memory is unknown".to_owned(), effect::show)
        );
        self.end(Ended::Kept, DecisionOutcome::Kept, &said, effect)
    }

    /// Resolves what a defect left in the middle as if the daemon had been killed there.
    fn after_a_panic(mut self, panic: &Panicked, live: &Live, journal: &dyn Journal) -> Report {
        tracing::error!(rule = self.order.decision.rule, "{panic}; the action is undone");
        self.note("panic", json!(panic.to_string()));
        self.order.decision.outcome = DecisionOutcome::Applying;
        recover(self.order, self.change, live, journal)
    }

    fn refuse(self, error: &dyn std::error::Error) -> Report {
        let said = format!("refused, nothing was changed: {}", chain(error));
        self.end(Ended::Refused, DecisionOutcome::Refused, &said, None)
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
            base: base.filter(|base| base.text != base.written),
            left,
            records,
        }
    }

    pub(super) fn rows(&self) -> Vec<Record> {
        let decision = std::iter::once(Record::Decision(self.order.decision.clone()));
        decision
            .chain(self.change.clone().map(Record::ConfigChange))
            .collect()
    }

    pub(super) fn note(&mut self, key: &str, value: Value) {
        note(&mut self.order.decision, key, value);
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
