//! One engine under the tuner's eye: its ladder, its file, and what is under way. The face that the pipeline uses.

mod edits;
mod effects;
mod failures;
mod marks;
mod people;
mod proposals;
mod refusal;
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{Decision, DecisionId, DecisionOutcome, EngineMemo, Mode, Record, RunId, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::act::{Ended, Order, Report};
use crate::adopt::Base;
use crate::budget::{Balance, Host, Spent};
use crate::desired::Overlay;
use crate::edit::KeyPath;
use crate::evaluate::{Evaluation, evaluate};
use crate::explain::{RuleExplanation, explain};
use crate::file;
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::rule::{Cost, Ladder, Rule};
use crate::signals::Readings;
use crate::spec::EngineSpec;
use crate::state::LadderState;
use crate::transition::Transition;
use marks::Left;
pub use people::{Named, Planned};
pub use refusal::OrderError;

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
    /// What waits for a person, by rule.
    proposals: HashMap<String, Decision>,
    /// How the last evaluation left things, to tell when something else changed them since.
    left: Left,
    pace: Pace,
    /// Its last run.
    run: Option<RunId>,
    /// What the other engines had cost when the rules were looked at last.
    host: Host,
}

/// What survives a restart of the daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    ladder: LadderState,
    base: Option<Base>,
    /// What the quality command said, by command and file; oldest first.
    scores: Vec<(String, f64)>,
    /// The decision that took each rung in force, by rule.
    kept: BTreeMap<String, i64>,
    /// What the effects of each rule's rung were seen with, as a hash.
    seen_with: BTreeMap<String, String>,
}

/// More scores than this are not remembered.
const MOST_SCORES: usize = 32;

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
        let engine = Self {
            spec: Arc::new(spec),
            ladder,
            memo,
            seen: None,
            acting: false,
            held: false,
            proposals: HashMap::new(),
            left: Left::default(),
            pace: Pace::default(),
            run: None,
            host: Host::default(),
        };
        engine.tell_of_absent();
        engine
    }

    /// This engine under another specification and ladder, as `new` was made from an edited configuration. Not while it
    /// is acting.
    #[must_use]
    pub fn reconfigured(self, new: Self) -> Self {
        let same_file = self.file() == new.file();
        let engine = Self {
            spec: new.spec,
            ladder: new.ladder,
            seen: self.seen.filter(|_| same_file),
            ..self
        };
        engine.tell_of_absent();
        engine
    }

    /// Whether a memo of another engine speaks of the file of this one: then that engine was given a new name.
    #[must_use]
    pub fn inherits(&self, memo: &str) -> bool {
        let base = serde_json::from_str::<Memo>(memo).ok().and_then(|memo| memo.base);
        base.is_some_and(|base| self.file() == Some(&base.path))
    }

    /// What is remembered, as it is stored.
    #[must_use]
    pub fn remembered(&self) -> String {
        serde_json::to_string(&self.memo).unwrap_or_default()
    }

    fn tell_of_absent(&self) {
        for rule in self.memo.ladder.absent(&self.ladder) {
            tracing::warn!(
                engine = self.name(),
                rule,
                "a rule is gone while its rung is taken; what it set leaves the engine's file with the next change"
            );
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

    /// What changes cost it lately, with the one that is being made: for the limits of the host.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.memo.ladder.spent()
    }

    /// Whether an action is under way.
    #[must_use]
    pub const fn is_acting(&self) -> bool {
        self.acting
    }

    /// Holds all evaluation, and looks at no edit, until the decisions of a former daemon are resolved.
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

    /// An order that could not even be begun.
    pub fn not_begun(&mut self, now: Stamp) -> Record {
        self.acting = false;
        if let Some((rule, _)) = self.memo.ladder.under_way() {
            let rule = rule.to_owned();
            self.memo.ladder.on_outcome(&rule, Outcome::Refused, now);
        }
        self.memo()
    }

    /// The same for an order of [`Engine::resume`], which stays to be resolved.
    pub const fn not_resumed(&mut self) {
        self.acting = false;
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
            return Step {
                records: self.passed_over(now),
                order: None,
            };
        }
        self.follow(run, now);
        if self.host != *readings.host() {
            self.host.clone_from(readings.host());
        }
        let mut orphans = self.orphans();
        orphans.extend(self.mark_before(readings, now));
        let Evaluation {
            state,
            transitions,
            withdrawn: withdrawals,
        } = evaluate(&self.ladder, &self.memo.ladder, readings, now);
        let mut step = Step {
            records: orphans,
            order: None,
        };
        let acts = transitions.iter().any(|transition| transition.mode == Mode::Act);
        if acts {
            // A person's edit that was not noticed yet comes first; the rules are looked at again with the next reading.
            let edit = self.look_at_file(now);
            if !edit.is_empty() {
                step.records.extend(edit);
                step.records.push(self.memo());
                step.records.push(self.mark_instead(readings, now));
                return step;
            }
        }
        let standing = (!transitions.is_empty()).then(|| self.memo.ladder.standing(&self.ladder));
        // As it is before the transition, and only where it is needed.
        let mut active = if acts {
            self.overlays(&self.active())
        } else {
            Vec::new()
        };
        self.memo.ladder = state;
        self.evaluated(readings);
        for withdrawal in &withdrawals {
            let proposal = self.proposals.remove(&withdrawal.rule);
            step.records
                .extend(proposal.map(|proposal| proposals::withdrawn(proposal, withdrawal.explanation)));
        }
        for transition in &transitions {
            let (id, change) = ids();
            let mut decision = decision(id, self.name(), run, now, transition);
            if let Some(detail) = decision.detail.as_object_mut() {
                detail.insert("actor".to_owned(), json!({ "kind": "rule" }));
                detail.insert("rules_hash".to_owned(), json!(&**self.ladder.source.hash()));
                detail.insert("state_before".to_owned(), json!(standing));
                if transition.mode != Mode::Act {
                    let standing = self.memo.ladder.standing(&self.ladder);
                    detail.insert("state_after".to_owned(), json!(standing));
                }
            }
            match transition.mode {
                Mode::Observe => step.records.push(Record::Decision(decision)),
                Mode::Advise => {
                    self.proposals.insert(transition.rule.clone(), decision.clone());
                    step.records.push(Record::Decision(decision));
                }
                Mode::Act => {
                    self.acting = true;
                    let active = std::mem::take(&mut active);
                    step.order = Some(self.order(decision, change, active, &transition.rungs));
                }
            }
        }
        let is_mark = |record: &Record| matches!(record, Record::LadderMark(_));
        if !transitions.is_empty() || !step.records.iter().all(is_mark) {
            step.records.push(self.memo());
        }
        step
    }

    /// Another run is another process: the engine was restarted, or came back.
    fn follow(&mut self, run: Option<RunId>, now: Stamp) {
        if let Some(run) = run
            && let Some(former) = self.run.replace(run)
            && former != run
        {
            self.memo.ladder.restarted = Some(now);
        }
    }

    /// How long the nearest line of a rung that is not taken takes to be crossed at least, if values move as fast as they
    /// did lately. `None`: none of them moves towards one.
    pub fn soonest_crossing(&mut self, readings: &Readings, now: Stamp) -> Option<Duration> {
        let state = &self.memo.ladder;
        let waiting = self.ladder.rules.iter().filter(|rule| !state.is_on(&rule.name));
        self.pace.soonest(waiting, readings, now)
    }

    /// The engine serves with what a rule changed, and the effect is awaited. This is for people; it is not remembered.
    pub fn applied(&mut self, rule: &str, now: Stamp) {
        self.memo.ladder.on_outcome(rule, Outcome::Applied, now);
    }

    /// The engine died because memory was out. Its rules answer at the next look; what was taken shortly before did not help.
    pub fn ran_out_of_memory(&mut self, now: Stamp) -> Vec<Record> {
        let before = self.quarantined(now);
        self.memo.ladder.ran_out_of_memory(now);
        let why = "the engine ran out of memory shortly after its rung was taken";
        let mut records = self.newly_quarantined(&before, why, now);
        records.push(self.memo());
        records
    }

    /// Takes note of how an action ended. Answers with rows to store.
    pub fn finished(&mut self, report: &Report, now: Stamp) -> Vec<Record> {
        self.acting = false;
        if report.ended == Ended::Unresolved {
            // What is in the file is neither known nor a person's.
            self.held = true;
            return Vec::new();
        }
        self.memo.base.clone_from(&report.base);
        for (key, score) in &report.scores {
            self.memo.scores.retain(|(known, _)| known != key);
            self.memo.scores.push((key.clone(), *score));
        }
        let surplus = self.memo.scores.len().saturating_sub(MOST_SCORES);
        self.memo.scores.drain(..surplus);
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
            Ended::Interrupted | Ended::Unresolved => Outcome::Interrupted,
        };
        self.memo.ladder.on_outcome(&report.rule, outcome, now);
        self.memo.ladder.was_away(report.away);
        if report.ended == Ended::Kept {
            // The file was rendered without them.
            self.memo.ladder.forget_absent(&self.ladder);
        }
        if let Some(left) = &report.left {
            self.seen = Some(left.clone());
        }
        let decision = report.records.iter().find_map(|record| match record {
            Record::Decision(decision) => Some(decision),
            _ => None,
        });
        let consequence = decision.and_then(|decision| self.consequence(decision, now));
        let decision = decision.map(|decision| self.settled(decision, consequence.as_ref()));
        let mut records = self.look_at_file(now);
        records.extend(decision);
        records.extend(consequence.map(|consequence| Record::Event(consequence.event)));
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

    /// Suspends all acting on this engine.
    pub fn pause(&mut self, now: Stamp) -> Record {
        self.memo.ladder.pause(now);
        self.memo()
    }

    /// Whether a person has suspended all acting on this engine. That outlives a restart of the daemon.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.memo.ladder.is_paused()
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
        let taken = self.ladder.by_priority(|rule| rungs.contains(&rule.name));
        taken
            .into_iter()
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
        let touched = touched.map(|setting| &setting.path);
        // What rules set that are gone by now leaves the file with this change.
        let left = self.memo.base.iter().flat_map(|base| &base.keys);
        let keys: BTreeSet<KeyPath> = touched.chain(left).cloned().collect();
        if let Some(detail) = decision.detail.as_object_mut() {
            detail.insert("rungs_after".to_owned(), json!(rungs));
        }
        let expected = decision.detail.get("expected_effect_bytes");
        let promised_bytes = expected.and_then(serde_json::Value::as_i64);
        let because = decision.detail.get("because_of");
        let ladder = &self.memo.ladder;
        let restart = self.ladder.rule(&decision.rule).is_some_and(Rule::only_restarts);
        let cost = ladder.under_way.as_ref().map_or(Cost::Restart, |it| it.cost);
        // Without the change itself, which has cost nothing yet.
        let budget = Balance::new(
            &ladder.spent,
            &self.ladder.limits,
            &self.host,
            cost,
            ladder.at.unwrap_or_default(),
        );
        Order {
            cost,
            budget,
            promised_bytes,
            changed_at: ladder.changed_at,
            scores: self.memo.scores.iter().cloned().collect(),
            answers_death: because.and_then(serde_json::Value::as_str) == Some("out_of_memory"),
            engine: Arc::clone(&self.spec),
            decision,
            restart,
            change,
            base: self.memo.base.clone(),
            seen: self.seen.as_deref().map(file::hash),
            active,
            overlays,
            keys: keys.into_iter().collect(),
        }
    }

    fn memo(&self) -> Record {
        Record::EngineMemo(EngineMemo {
            engine: self.spec.name.clone(),
            state: self.remembered(),
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
