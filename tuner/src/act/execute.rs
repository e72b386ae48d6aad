//! One action from its plan to its outcome, step by step. Whatever goes wrong, the file ends as it was or as planned,
//! and the engine is told to read whichever it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_trace::{
    ChangeOutcome, ConfigChange, Decision, DecisionOutcome, Event, EventKind, Record, Stamp, units,
};
use serde_json::{Value, json};

use super::live::{Latest, Live, ProcessRef};
use super::plan::{self, Plan};
use super::ready::{self, ReadBack, Readiness};
use super::{Journal, reload};
use crate::adopt;
use crate::desired::{self, Overlay};
use crate::edit::{EditError, KeyPath};
use crate::file;
use crate::spec::{DEFAULT_WITHIN, EngineSpec, Reload};

/// How long the effect on memory is waited for, once the engine serves again.
const EFFECT_WITHIN: Duration = Duration::from_secs(10);
/// So many readings after the engine is ready make up the effect; their median counts.
const EFFECT_READINGS: usize = 3;

/// The file without any rung, and what Plimsoll wrote last: if the file no longer has that hash, a person edited it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Base {
    /// The person's text.
    pub text: String,
    /// The hash of the file as Plimsoll wrote it.
    pub written_hash: String,
}

/// Everything that an action needs to know.
#[derive(Clone, Debug)]
pub struct Order {
    /// The engine.
    pub engine: Arc<EngineSpec>,
    /// The decision as it was made; its outcome and explanation are filled in as it proceeds.
    pub decision: Decision,
    /// The number of the change it will write.
    pub change: i64,
    /// The file as a person wrote it, if rungs are taken already.
    pub base: Option<Base>,
    /// The hash of the file as it was last looked at.
    pub seen: Option<String>,
    /// The rungs that are taken now.
    pub active: Vec<Overlay>,
    /// The rungs that shall be taken.
    pub overlays: Vec<Overlay>,
    /// The keys that this action touches.
    pub keys: Vec<KeyPath>,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The change stays.
    Kept,
    /// The former bytes are back and the engine serves them.
    RolledBack,
    /// Nothing was touched.
    Refused,
    /// The engine does not serve, or a person came in between.
    Failed,
    /// A former daemon ended in the middle; it was undone.
    Interrupted,
}

/// What an action came to, for the pipeline to store and the rules to learn from.
#[derive(Clone, Debug)]
pub struct Report {
    /// The engine's name.
    pub engine: String,
    /// The rule's name.
    pub rule: String,
    /// How it ended.
    pub ended: Ended,
    /// Device memory freed, bytes; negative when use grew; `None` when it could not be seen.
    pub effect_bytes: Option<f64>,
    /// The base to remember; `None` when the file is the person's own again.
    pub base: Option<Base>,
    /// What the file holds now unless a person came in between; `None` when the action wrote nothing.
    pub left: Option<Vec<u8>>,
    /// Rows to store: the decision, the change, events.
    pub records: Vec<Record>,
}

/// Carries `order` out and reports. Blocks for as long as the engine may take to reload, twice in the worst case.
#[must_use]
pub fn carry_out(order: Order, live: &Live, journal: &dyn Journal) -> Report {
    let plan = match plan::make(&order) {
        Ok(plan) => plan,
        Err(error) => return Action::new(order, None).refuse(&error),
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
    action.run(&plan, live, journal)
}

/// An action under way.
pub(super) struct Action {
    order: Order,
    change: Option<ConfigChange>,
    base: Option<Base>,
    events: Vec<Event>,
    /// Whether a former daemon began it: then taking it back is an interruption, not a verdict on the rule.
    resumed: bool,
}

impl Action {
    fn new(order: Order, plan: Option<&Plan>) -> Self {
        let path = |plan: &Plan| plan.snapshot.path.to_string_lossy().into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let change = plan.filter(|plan| !plan.is_empty()).map(|plan| ConfigChange {
            id: order.change,
            decision: order.decision.id,
            path: path(plan),
            at_ns: Stamp::now().unix_ns,
            before: text(&plan.snapshot.bytes),
            after: text(&plan.after),
            diff: plan.diff.clone(),
            outcome: ChangeOutcome::Written,
        });
        let base = plan.map(|plan| Base {
            text: text(&plan.base),
            written_hash: file::hash(&plan.after),
        });
        Self {
            order,
            change,
            base,
            events: Vec::new(),
            resumed: false,
        }
    }

    /// An action that a former daemon left behind; `base` is remembered if it turns out to be kept.
    pub(super) const fn resume(order: Order, change: Option<ConfigChange>, base: Option<Base>) -> Self {
        Self {
            order,
            change,
            base,
            events: Vec::new(),
            resumed: true,
        }
    }

    fn run(mut self, plan: &Plan, live: &Live, journal: &dyn Journal) -> Report {
        let engine = Arc::clone(&self.order.engine);
        let before = live.latest(&engine.name);
        if let Err(error) = file::check(&plan.snapshot) {
            self.change = None;
            return self.refuse(&error);
        }
        if let Err(error) = reload::check(&engine.reload, before.root) {
            self.change = None;
            return self.refuse(&error);
        }
        self.order.decision.outcome = DecisionOutcome::Applying;
        self.note(
            "file",
            json!({
                "path": plan.snapshot.path, "reload": engine.reload.describe(),
                "hash_before": plan.snapshot.hash, "hash_after": file::hash(&plan.after),
                // Only where it is not what the change itself remembers as before.
                "base": (plan.base != plan.snapshot.bytes).then(|| self.base.as_ref().map(|base| &base.text)),
            }),
        );
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
        let within = self.within();
        let ready = match reload::carry_out(&engine.reload, before.root, within) {
            Ok(()) => ready::wait_until_ready(&engine, &plan.wanted, started),
            Err(error) => Readiness::NotReady(chain(&error)),
        };
        match ready {
            Readiness::Ready { read_back, after } => {
                self.verify(&read_back, after, before, live, journal)
            }
            Readiness::NotChecked => {
                self.verify(&ReadBack::Unknown, started.elapsed(), before, live, journal)
            }
            Readiness::NotReady(problem) => self.roll_back(&problem, &plan.former, live, journal),
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
        let shown = if *read_back == ReadBack::Equal {
            "equal"
        } else {
            "unknown"
        };
        self.order.decision.outcome = DecisionOutcome::Applied;
        self.note(
            "ready",
            json!({ "after_secs": took.as_secs_f64(), "read_back": shown }),
        );
        if let Err(error) = journal.commit(self.rows()) {
            // The engine serves; the row will follow with the outcome.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the step 'applied' is not stored"
            );
        }
        let after = settled(&self.order.engine.name, Stamp::now(), live);
        let restarted = !matches!(self.order.engine.reload, Reload::Restart(_));
        let replaced = match (before.root, live.latest(&self.order.engine.name).root) {
            (Some(before), Some(now)) if before != now && restarted => {
                "; its process ended meanwhile and was started again"
            }
            _ => "",
        };
        let before = before.vram;
        let effect = before.map(|(_, bytes)| bytes).zip(after)
            .map(|(before, after)| before - after);
        self.note(
            "effect",
            json!({
                "before_bytes": before.map(|(_, bytes)| bytes), "after_bytes": after, "freed_bytes": effect,
            }),
        );
        let values = if *read_back == ReadBack::Equal {
            " and shows the new values"
        } else {
            ""
        };
        let said = format!(
            "the engine serves again after {}{values}{replaced}; {}",
            units::show_duration(took),
            effect.map_or_else(|| "what it did to memory is unknown".to_owned(), show_effect)
        );
        self.end(Ended::Kept, DecisionOutcome::Kept, &said, effect)
    }

    /// The former bytes back, unless a person changed the file meanwhile; reload again; the same check.
    pub(super) fn roll_back(
        mut self,
        problem: &str,
        former: &[(KeyPath, Value)],
        live: &Live,
        journal: &dyn Journal,
    ) -> Report {
        self.note("problem", json!(problem));
        self.note("step", json!("rolling_back"));
        if let Err(error) = journal.commit(self.rows()) {
            // Taking back comes first: an unstored step is no reason to leave the engine on a bad file.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the step 'rolling_back' is not stored"
            );
        }
        match self.restore() {
            Ok(()) => self.reload_former(problem, former, live),
            Err(refusal) => self.end(
                Ended::Failed,
                DecisionOutcome::Failed,
                &format!("{problem}; {refusal}"),
                None,
            ),
        }
    }

    /// Makes the engine read the restored file, and says how that went.
    pub(super) fn reload_former(mut self, problem: &str, former: &[(KeyPath, Value)], live: &Live) -> Report {
        let engine = Arc::clone(&self.order.engine);
        let restored = Stamp::now();
        let deadline = Instant::now() + self.within();
        let reloaded = loop {
            // A process that started after the file was restored has read it already.
            let process = live.latest(&engine.name).root;
            if process.is_some_and(|process| started_after(process, restored)) {
                break Ok(());
            }
            match reload::carry_out(&engine.reload, process, self.within()) {
                Ok(()) => break Ok(()),
                Err(error) if Instant::now() >= deadline => break Err(chain(&error)),
                Err(_) => {
                    let next = Instant::now() + Duration::from_millis(500);
                    live.wait_for(&engine.name, next, |now| (now.root != process).then_some(()));
                }
            }
        };
        let ready = reloaded.map_or_else(Readiness::NotReady, |()| {
            ready::wait_until_ready(&engine, former, Instant::now())
        });
        if !self.resumed {
            let rule = &self.order.decision.rule;
            let message = format!(
                "rule {rule} of {} is not tried again for a while: {problem}",
                engine.name
            );
            self.events
                .push(Event::new(EventKind::Quarantine, message).in_run(self.order.decision.run));
        }
        match ready {
            Readiness::NotReady(again) => {
                let message = format!(
                    "{} does not serve after its former configuration was put back: {again}",
                    engine.name
                );
                self.events
                    .push(Event::new(EventKind::EngineUnhealthy, message).in_run(self.order.decision.run));
                let said =
                    format!("{problem}; the former file is back, but the engine does not serve: {again}");
                self.end(Ended::Failed, DecisionOutcome::Failed, &said, None)
            }
            Readiness::Ready { .. } | Readiness::NotChecked => {
                let said = format!("{problem}; the former file is back and the engine serves it");
                self.end(Ended::RolledBack, DecisionOutcome::RolledBack, &said, None)
            }
        }
    }

    /// Puts the former bytes back. If a person changed the file meanwhile, only what is ours is taken out of their text;
    /// where that cannot be told apart, the text stays as it is.
    fn restore(&mut self) -> Result<(), String> {
        let Some(change) = &mut self.change else {
            return Ok(());
        };
        let mut tries = 0;
        loop {
            let now = file::read(change.path.as_ref()).map_err(|error| chain(&error))?;
            let wanted = if now.bytes == change.after.as_bytes() {
                change.before.clone().into_bytes()
            } else {
                untangle(&self.order, self.base.as_ref(), &now.bytes).unwrap_or_else(|_| now.bytes.clone())
            };
            if wanted == now.bytes {
                break;
            }
            match file::replace(&now, &wanted) {
                Ok(_) => break,
                // They are writing at this very moment: look again.
                Err(file::FileError::ChangedMeanwhile { .. }) if tries < 10 => tries += 1,
                Err(error) => return Err(chain(&error)),
            }
        }
        change.outcome = ChangeOutcome::RolledBack;
        Ok(())
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
        let left = self
            .change
            .as_ref()
            .map(|change| if kept { &change.after } else { &change.before });
        let left = left
            .map(|text| text.clone().into_bytes())
            .filter(|_| ended != Ended::Refused);
        let taken = !(if kept {
            &self.order.overlays
        } else {
            &self.order.active
        })
        .is_empty();
        let base = if kept {
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
            base: base.filter(|_| taken),
            left,
            records,
        }
    }

    fn rows(&self) -> Vec<Record> {
        let decision = std::iter::once(Record::Decision(self.order.decision.clone()));
        decision
            .chain(self.change.clone().map(Record::ConfigChange))
            .collect()
    }

    fn note(&mut self, key: &str, value: Value) {
        let detail = &mut self.order.decision.detail;
        if !detail.is_object() {
            *detail = json!({});
        }
        if let Some(object) = detail.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    }

    fn within(&self) -> Duration {
        self.order
            .engine
            .health
            .as_ref()
            .map_or(DEFAULT_WITHIN, |health| health.within)
    }
}

/// A person's text, written over ours while the action was under way, without what this action put into it.
fn untangle(order: &Order, base: Option<&Base>, edited: &[u8]) -> Result<Vec<u8>, EditError> {
    let (Some(config), Some(base)) = (&order.engine.config, base) else {
        return Ok(edited.to_vec());
    };
    let theirs = adopt::base(base.text.as_bytes(), edited, config.format, &order.overlays)?;
    desired::render(&theirs, config.format, &order.active)
}

/// The median of the first readings taken after `since`.
fn settled(engine: &str, since: Stamp, live: &Live) -> Option<f64> {
    let deadline = Instant::now() + EFFECT_WITHIN;
    let (mut last, mut readings) = (since, Vec::new());
    while readings.len() < EFFECT_READINGS {
        let fresh = |now: &Latest| now.vram.filter(|(at, _)| at.mono_ns > last.mono_ns);
        let Some((at, bytes)) = live.wait_for(engine, deadline, fresh) else {
            break;
        };
        last = at;
        readings.push(bytes);
    }
    readings.sort_by(f64::total_cmp);
    readings.get(readings.len() / 2).copied()
}

/// Whether a process began its life after `at`. `/proc` counts in clock ticks since boot, as CLOCK_BOOTTIME does.
fn started_after(process: ProcessRef, at: Stamp) -> bool {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let started_ns = u128::from(process.started_ticks) * 1_000_000_000 / u128::from(per_second);
    u128::try_from(at.mono_ns).is_ok_and(|at| started_ns > at)
}

fn show_effect(freed: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a non-negative byte count, printed"
    )]
    let bytes = units::show_bytes(freed.abs() as u64);
    if freed >= 0.0 {
        format!("{bytes} of device memory freed")
    } else {
        format!("{bytes} more device memory in use")
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
