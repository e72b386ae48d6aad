//! One engine under the tuner's eye: its ladder, its file, and what is under way. The face that the pipeline uses.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use plimsoll_trace::{
    Decision, DecisionId, DecisionOutcome, EngineMemo, Event, EventKind, Mode, Record, RunId, Stamp,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::act::{Base, Ended, Order, Report};
use crate::desired::{self, Overlay};
use crate::edit::KeyPath;
use crate::evaluate::{Evaluation, evaluate};
use crate::explain::{RuleExplanation, explain};
use crate::outcome::Outcome;
use crate::rule::{Ladder, Rule};
use crate::signals::Readings;
use crate::spec::EngineSpec;
use crate::state::LadderState;
use crate::transition::Transition;
use crate::{adopt, diff, file};

/// An engine and everything that is remembered about it.
#[derive(Debug)]
pub struct Engine {
    spec: Arc<EngineSpec>,
    ladder: Ladder,
    memo: Memo,
    /// The file as it was last seen, to tell a person's edit from our own write.
    seen: Option<Vec<u8>>,
    acting: bool,
    /// Whether decisions of a former daemon are still to be resolved.
    held: bool,
    proposals: HashMap<String, Decision>,
}

/// What survives a restart of the daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    ladder: LadderState,
    base: Option<Base>,
}

/// What one look at the rules came to.
#[derive(Debug, Default)]
pub struct Step {
    /// Rows to store, before anything is carried out.
    pub records: Vec<Record>,
    /// What is to be carried out, on a thread of its own.
    pub order: Option<Order>,
}

impl Engine {
    /// An engine with what a former daemon remembered. A memo that cannot be read is as good as none: the rungs then
    /// count as the person's own text, and nothing is undone on a guess.
    #[must_use]
    pub fn new(spec: EngineSpec, ladder: Ladder, memo: Option<&str>) -> Self {
        let memo = memo.map_or_else(Memo::default, |text| {
            serde_json::from_str(text).unwrap_or_else(|error| {
                tracing::error!(engine = spec.name, %error, "what was remembered of the rules cannot be read");
                Memo::default()
            })
        });
        Self {
            spec: Arc::new(spec),
            ladder,
            memo,
            seen: None,
            acting: false,
            held: false,
            proposals: HashMap::new(),
        }
    }

    /// This engine under another specification and ladder, as `new` was made from an edited configuration.
    #[must_use]
    pub fn reconfigured(self, new: Self) -> Self {
        Self {
            spec: new.spec,
            ladder: new.ladder,
            ..self
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The rules.
    #[must_use]
    pub const fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The engine's own configuration file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.spec.config.as_ref().map(|config| config.path.as_path())
    }

    /// Whether an action is under way.
    #[must_use]
    pub const fn is_acting(&self) -> bool {
        self.acting
    }

    /// Holds all evaluation until the decisions of a former daemon are resolved.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Closes what a former daemon had begun and left no trace of in the file or the store.
    pub fn settle(&mut self, now: Stamp) {
        if let Some((rule, _)) = self.memo.ladder.under_way() {
            let rule = rule.to_owned();
            self.memo.ladder.on_outcome(&rule, Outcome::Interrupted, now);
        }
    }

    /// Looks at the rules: what is to be recorded, and what to be carried out. `ids` gives out the numbers of a decision
    /// and of a change.
    pub fn tick(
        &mut self,
        readings: &Readings,
        run: Option<RunId>,
        now: Stamp,
        mut ids: impl FnMut() -> (DecisionId, i64),
    ) -> Step {
        if self.held {
            return Step::default();
        }
        let active = self.overlays(&self.active());
        let Evaluation {
            state,
            transitions,
            withdrawn,
        } = evaluate(&self.ladder, &self.memo.ladder, readings, now);
        let mut step = Step::default();
        if transitions.iter().any(|transition| transition.mode == Mode::Act) {
            // A person's edit that was not noticed yet comes first; the rules are looked at again with the next reading.
            step.records = self.look_at_file(now);
            if !step.records.is_empty() {
                step.records.push(self.memo());
                return step;
            }
        }
        self.memo.ladder = state;
        for withdrawal in &withdrawn {
            if let Some(mut decision) = self.proposals.remove(&withdrawal.rule) {
                decision.outcome = DecisionOutcome::Refused;
                decision.explanation =
                    format!("{} Withdrawn: {}", decision.explanation, withdrawal.explanation);
                step.records.push(Record::Decision(decision));
            }
        }
        for transition in &transitions {
            let (id, change) = ids();
            let decision = decision(id, self.name(), run, now, transition);
            match transition.mode {
                Mode::Observe => step.records.push(Record::Decision(decision)),
                Mode::Advise => {
                    self.proposals.insert(transition.rule.clone(), decision.clone());
                    step.records.push(Record::Decision(decision));
                }
                Mode::Act => {
                    self.acting = true;
                    step.order = Some(self.order(decision, change, active.clone(), &transition.rungs));
                }
            }
        }
        if !transitions.is_empty() || !withdrawn.is_empty() {
            step.records.push(self.memo());
        }
        step
    }

    /// Takes note of how an action ended. Answers with rows to store.
    pub fn finished(&mut self, report: &Report, now: Stamp) -> Vec<Record> {
        self.acting = false;
        self.memo.base.clone_from(&report.base);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bytes of device memory, far below 2^63"
        )]
        let effect_bytes = report.effect_bytes.map(|bytes| bytes.round() as i64);
        let outcome = match report.ended {
            Ended::Kept => Outcome::Kept { effect_bytes },
            Ended::RolledBack => Outcome::RolledBack,
            Ended::Refused => Outcome::Refused,
            Ended::Failed => Outcome::Failed,
            Ended::Interrupted => Outcome::Interrupted,
        };
        self.memo.ladder.on_outcome(&report.rule, outcome, now);
        if let Some(left) = &report.left {
            self.seen = Some(left.clone());
        }
        let mut records = self.look_at_file(now);
        records.push(self.memo());
        records
    }

    /// The action that resolves a decision which a former daemon left unfinished.
    #[must_use]
    pub fn resume(&mut self, decision: Decision) -> Order {
        self.acting = true;
        let active = self.active();
        let rungs = decision
            .detail
            .get("rungs_after")
            .and_then(serde_json::Value::as_array);
        let rungs: Vec<String> = match rungs {
            Some(rungs) => rungs
                .iter()
                .filter_map(|rung| rung.as_str().map(str::to_owned))
                .collect(),
            None => active.clone(),
        };
        let active = self.overlays(&active);
        self.order(decision, 0, active, &rungs)
    }

    /// Looks whether a person changed the file. If so, their text is the new base, and the rules on the keys that they
    /// changed are suspended. Answers with rows to store.
    pub fn file_changed(&mut self, now: Stamp) -> Vec<Record> {
        if self.acting {
            // Looked at when the action ends, which itself never writes over a person's edit.
            return Vec::new();
        }
        let mut records = self.look_at_file(now);
        if !records.is_empty() {
            records.push(self.memo());
        }
        records
    }

    fn look_at_file(&mut self, now: Stamp) -> Vec<Record> {
        let Some(config) = self.spec.config.clone() else {
            return Vec::new();
        };
        // A file that is gone or unreadable is refused with its reason when a rule wants it.
        let Ok(snapshot) = file::read(&config.path) else {
            return Vec::new();
        };
        let before = match (self.seen.replace(snapshot.bytes.clone()), &self.memo.base) {
            (Some(before), _) => before,
            (None, None) => return Vec::new(),
            // The first look of this daemon: what was there before is what a former one wrote last.
            (None, Some(base)) if base.written_hash == snapshot.hash => return Vec::new(),
            (None, Some(base)) => {
                let active = self.overlays(&self.active());
                desired::render(base.text.as_bytes(), config.format, &active).unwrap_or_default()
            }
        };
        if before == snapshot.bytes {
            return Vec::new();
        }
        self.take_over(&before, &snapshot.bytes, now)
    }

    /// A person's text becomes the new base.
    fn take_over(&mut self, before: &[u8], edited: &[u8], now: Stamp) -> Vec<Record> {
        let Some(config) = self.spec.config.clone() else {
            return Vec::new();
        };
        let keys = |rules: &[Rule]| -> BTreeSet<KeyPath> {
            rules
                .iter()
                .flat_map(|rule| rule.set.iter().map(|setting| setting.path.clone()))
                .collect()
        };
        let all = keys(&self.ladder.rules);
        let changed = desired::touched_keys(before, edited, config.format, &all);
        // A text that cannot be read any more changed them all.
        let changed = changed.unwrap_or_else(|_| all.iter().cloned().collect());
        let suspended = self.memo.ladder.suspend(&self.ladder, &changed, now);
        if let Some(base) = self.memo.base.take() {
            let active = self.overlays(&self.active());
            let text = adopt::base(base.text.as_bytes(), edited, config.format, &active);
            match text.map(String::from_utf8) {
                Ok(Ok(text)) if !active.is_empty() => {
                    self.memo.base = Some(Base {
                        text,
                        written_hash: file::hash(edited),
                    });
                }
                Ok(Ok(_)) => {}
                // What is ours cannot be told from what is theirs: all of it is theirs.
                Ok(Err(_)) | Err(_) => {
                    let keys: Vec<KeyPath> = all.into_iter().collect();
                    self.memo.ladder.suspend(&self.ladder, &keys, now);
                }
            }
        }
        let path = config.path.to_string_lossy();
        let mut message = format!("somebody changed {path}; that text is the base from now on");
        if !suspended.is_empty() {
            message += &format!("; suspended until `plimsoll resume`: {}", suspended.join(", "));
        }
        tracing::info!("{message}");
        let detail = json!({
            "path": path,
            "diff": diff::unified(&path, before, edited),
            "keys": changed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "suspended": suspended,
        });
        vec![Record::Event(
            Event::new(EventKind::HumanEdit, message).with_detail(detail),
        )]
    }

    /// Suspends all acting on this engine.
    pub fn pause(&mut self, now: Stamp) -> Record {
        self.memo.ladder.pause(now);
        self.memo()
    }

    /// Lets all rules act again that a person had stopped or taken keys from.
    pub fn resume_all(&mut self) -> Record {
        self.memo.ladder.resume();
        self.memo()
    }

    /// Lets one rule act again: ends its suspension, its quarantine or its back-off. `None` when there is no such rule.
    pub fn resume_rule(&mut self, rule: &str) -> Option<Record> {
        self.ladder.rule(rule)?;
        self.memo.ladder.lift(rule);
        Some(self.memo())
    }

    /// Where every rule stands, clause by clause.
    #[must_use]
    pub fn explain(&self, readings: &Readings, now: Stamp) -> Vec<RuleExplanation> {
        explain(&self.ladder, &self.memo.ladder, readings, now)
    }

    fn active(&self) -> Vec<String> {
        self.memo
            .ladder
            .active(&self.ladder)
            .map(|rule| rule.name.clone())
            .collect()
    }

    fn overlays(&self, rungs: &[String]) -> Vec<Overlay> {
        let taken = self.ladder.rules.iter().filter(|rule| rungs.contains(&rule.name));
        taken
            .map(|rule| Overlay {
                rung: rule.name.clone(),
                settings: rule.set.clone(),
            })
            .collect()
    }

    fn order(&self, mut decision: Decision, change: i64, active: Vec<Overlay>, rungs: &[String]) -> Order {
        let overlays = self.overlays(rungs);
        let touched = active
            .iter()
            .chain(&overlays)
            .flat_map(|overlay| &overlay.settings);
        let keys: BTreeSet<KeyPath> = touched.map(|setting| setting.path.clone()).collect();
        if let Some(detail) = decision.detail.as_object_mut() {
            detail.insert("rungs_after".to_owned(), json!(rungs));
        }
        Order {
            engine: Arc::clone(&self.spec),
            decision,
            change,
            base: self.memo.base.clone(),
            seen: self.seen.as_deref().map(file::hash),
            active,
            overlays,
            keys: keys.into_iter().collect(),
        }
    }

    fn memo(&self) -> Record {
        let state = serde_json::to_string(&self.memo).unwrap_or_default();
        Record::EngineMemo(EngineMemo {
            engine: self.spec.name.clone(),
            state,
        })
    }
}

fn decision(
    id: DecisionId,
    engine: &str,
    run: Option<RunId>,
    now: Stamp,
    transition: &Transition,
) -> Decision {
    Decision {
        id,
        run,
        engine: engine.to_owned(),
        rule: transition.rule.clone(),
        at_ns: now.unix_ns,
        mode: transition.mode,
        verdict: transition.verdict,
        outcome: match transition.mode {
            Mode::Observe => DecisionOutcome::Observed,
            Mode::Advise => DecisionOutcome::Proposed,
            Mode::Act => DecisionOutcome::Applying,
        },
        signal: transition.signal.clone(),
        value: transition.value,
        threshold: transition.threshold,
        explanation: transition.explanation.clone(),
        detail: transition.detail.clone(),
    }
}
