//! What a person may ask and order: the plan, the execution of a proposal, and taking a kept decision back. Orders go the
//! same guarded way as those of rules in mode act.

use plimsoll_trace::{Decision, DecisionId, DecisionOutcome, Mode, Record, RunId, Stamp, Verdict};
use serde::Serialize;
use serde_json::json;

use super::failures::Consequence;
use super::refusal::OrderError;
use super::{Engine, Step};
use crate::act;
use crate::budget::{Host, exceeded};
use crate::explain::{Block, Phase, RuleExplanation};
use crate::projection::Effect;
use crate::rule::Rule;
use crate::signals::Readings;
use crate::spec::Reload;
use crate::state::UnderWay;

/// What would be done next about one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The engine.
    pub engine: String,
    /// The rule.
    pub rule: String,
    /// What it may do.
    pub mode: Mode,
    /// Where it stands.
    pub phase: Phase,
    /// Which way the next step goes.
    pub verdict: Verdict,
    /// The decision that waits for a person, if one does.
    pub decision: Option<i64>,
    /// The rungs that would be in force, lowest first.
    pub rungs: Vec<String>,
    /// The engine's file, if it has one.
    pub path: Option<String>,
    /// What would change in it, as a unified diff; null when that cannot be said, see `problem`.
    pub diff: Option<String>,
    /// Why there would be no change.
    pub problem: Option<String>,
    /// How the engine would be told.
    pub reload: String,
    /// How much memory the rung frees; of a release, how much it takes again.
    pub effect: Option<Effect>,
    /// How long the engine was away at the last change of this cost, seconds; null when none was seen.
    pub expected_outage_secs: Option<f64>,
    /// What keeps it from happening now.
    pub blocks: Vec<Block>,
}

/// How a person names a proposal: by its number, or by the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// A decision's number.
    Decision(i64),
    /// A rule's name.
    Rule(&'a str),
}

impl Engine {
    /// What waits for a person here, and what the rules would do next, lowest rung first.
    #[must_use]
    pub fn plan(&self, readings: &Readings, now: Stamp) -> Vec<Planned> {
        let explained = self.explain(readings, now);
        let rules = self.ladder.rules.iter().zip(&explained);
        rules
            .filter_map(|(rule, stands)| self.planned(rule, stands))
            .collect()
    }

    fn planned(&self, rule: &Rule, stands: &RuleExplanation) -> Option<Planned> {
        let proposal = self.proposals.get(&rule.name);
        let verdict = match (proposal, stands.phase) {
            (Some(proposal), _) => proposal.verdict,
            (None, Phase::Pending | Phase::Gated) if rule.mode == Mode::Act => Verdict::Apply,
            (None, Phase::Committed) if rule.mode == Mode::Act => Verdict::Release,
            _ => return None,
        };
        let rungs = self.rungs_with(rule, verdict);
        let draft = draft(self.name(), rule, stands);
        let order = self.order(draft, 0, self.overlays(&self.active()), &rungs);
        let (diff, problem) = match act::preview(&order) {
            Ok(diff) => (Some(diff), None),
            Err(error) => (None, Some(act::chain(&error))),
        };
        let outage = self.memo.ladder.spent.last_away(rule.cost);
        Some(Planned {
            engine: self.name().to_owned(),
            rule: rule.name.clone(),
            mode: rule.mode,
            phase: stands.phase,
            verdict,
            decision: proposal.map(|proposal| proposal.id.0),
            rungs,
            path: self.file().map(|path| path.to_string_lossy().into_owned()),
            diff,
            problem,
            reload: self.spec.reload.describe(),
            effect: stands.effect,
            expected_outage_secs: outage.map(|outage| outage.as_secs_f64()),
            blocks: stands.blocks.clone(),
        })
    }

    /// The rungs in force after a step of one rule.
    fn rungs_with(&self, rule: &Rule, verdict: Verdict) -> Vec<String> {
        let applies = verdict == Verdict::Apply;
        let names = self.ladder.rules.iter().map(|rule| &rule.name);
        names
            .filter(|name| {
                if **name == rule.name {
                    applies
                } else {
                    self.memo.ladder.is_on(name)
                }
            })
            .cloned()
            .collect()
    }

    /// The rule whose proposal a person names, if it is one of this engine's.
    #[must_use]
    pub fn proposed(&self, named: &Named<'_>) -> Option<&str> {
        let is_it = |proposal: &&Decision| match named {
            Named::Decision(id) => proposal.id.0 == *id,
            Named::Rule(rule) => proposal.rule == *rule,
        };
        self.proposals.values().find(is_it).map(|it| it.rule.as_str())
    }

    /// Carries out what is proposed for a rule, on the word of the user `uid`.
    ///
    /// # Errors
    /// [`OrderError`] says why not, beside rows to store all the same.
    pub fn apply(
        &mut self,
        rule: &str,
        uid: u32,
        host: &Host,
        now: Stamp,
        change: i64,
    ) -> (Result<Step, OrderError>, Vec<Record>) {
        let edits = self.look_at_file(now);
        if !edits.is_empty() {
            let engine = self.name().to_owned();
            let records = edits.into_iter().chain([self.memo()]).collect();
            return (Err(OrderError::Edited { engine }), records);
        }
        (self.begin_proposal(rule, uid, host, now, change), Vec::new())
    }

    fn begin_proposal(
        &mut self,
        name: &str,
        uid: u32,
        host: &Host,
        now: Stamp,
        change: i64,
    ) -> Result<Step, OrderError> {
        let engine = self.name().to_owned();
        self.is_idle()?;
        self.host.clone_from(host);
        if let Some(stopped) = &self.memo.ladder.stopped {
            return Err(OrderError::Stopped {
                engine,
                why: stopped.why.text(),
            });
        }
        self.is_fit()?;
        let rule = self.ladder.rule(name).cloned();
        let (Some(rule), Some(proposal)) = (rule, self.proposals.get(name)) else {
            return Err(OrderError::Edited { engine });
        };
        let verdict = proposal.verdict;
        if let Some(state) = self.memo.ladder.rules.get(name) {
            if !state.suspended.is_empty() {
                return Err(OrderError::Suspended {
                    rule: name.to_owned(),
                });
            }
            if let Some(barred) = state.barred_at(now).filter(|_| verdict == Verdict::Apply) {
                return Err(OrderError::Barred {
                    rule: name.to_owned(),
                    why: barred.why.text(),
                });
            }
        }
        let spent = &self.memo.ladder.spent;
        if let Some(exceeded) = exceeded(spent, &self.ladder.limits, host, rule.cost, now).next() {
            return Err(OrderError::Limit {
                engine,
                limit: exceeded.limit,
            });
        }
        let (rungs, taken) = if rule.only_restarts() {
            (self.active(), Vec::new())
        } else {
            (self.rungs_with(&rule, verdict), vec![rule.name.clone()])
        };
        let Some(mut decision) = self.proposals.remove(name) else {
            return Err(OrderError::Edited { engine });
        };
        decision.outcome = DecisionOutcome::Applying;
        decision.explanation += &format!(" Applied by the user {uid}.");
        if let Some(detail) = decision.detail.as_object_mut() {
            detail.insert(
                "applied_by".to_owned(),
                json!({ "kind": "person", "uid": uid, "at_ns": now.unix_ns }),
            );
        }
        self.memo.ladder.forget_proposal(name);
        Ok(self.begin(decision, change, &rungs, under_way(&rule, verdict, taken, now)))
    }

    /// Whether a decision's rungs are in force here.
    #[must_use]
    pub fn holds(&self, decision: i64) -> bool {
        !self.of_decision(decision).is_empty()
    }

    /// The rules whose rungs a decision took, lowest first.
    fn of_decision(&self, decision: i64) -> Vec<Rule> {
        let is_of = |rule: &&Rule| {
            self.memo.kept.get(&rule.name) == Some(&decision) && self.memo.ladder.is_on(&rule.name)
        };
        self.ladder.rules.iter().filter(is_of).cloned().collect()
    }

    /// Takes back what a kept decision did, on the word of the user `uid`. The rule is silent then until the pressure is
    /// over. A pause does not stand in the way, nor do budgets: a person undoes.
    ///
    /// # Errors
    /// [`OrderError`] says why not, beside rows to store all the same.
    pub fn revert(
        &mut self,
        decision: i64,
        uid: u32,
        run: Option<RunId>,
        now: Stamp,
        (id, change): (DecisionId, i64),
    ) -> (Result<Step, OrderError>, Vec<Record>) {
        let edits = self.look_at_file(now);
        let records = if edits.is_empty() {
            Vec::new()
        } else {
            edits.into_iter().chain([self.memo()]).collect()
        };
        // A person's edit stays; what is left of the decision goes.
        (self.begin_revert(decision, uid, run, now, id, change), records)
    }

    fn begin_revert(
        &mut self,
        decision: i64,
        uid: u32,
        run: Option<RunId>,
        now: Stamp,
        id: DecisionId,
        change: i64,
    ) -> Result<Step, OrderError> {
        self.is_idle()?;
        self.is_fit()?;
        let rules = self.of_decision(decision);
        let Some(highest) = rules.last().cloned() else {
            return Err(OrderError::NotInForce { decision });
        };
        let on_top = self
            .memo
            .kept
            .iter()
            .filter(|(rule, _)| self.memo.ladder.is_on(rule))
            .max_by_key(|(_, later)| **later);
        if let Some((rule, later)) = on_top.filter(|(_, later)| **later > decision) {
            return Err(OrderError::NotOnTop {
                decision,
                later: *later,
                rule: rule.clone(),
            });
        }
        let taken: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        let rungs: Vec<String> = self
            .active()
            .into_iter()
            .filter(|name| !taken.contains(name))
            .collect();
        let row = Decision {
            id,
            run,
            engine: self.name().to_owned(),
            rule: highest.name.clone(),
            at_ns: now.unix_ns,
            mode: highest.mode,
            verdict: Verdict::Revert,
            outcome: DecisionOutcome::Applying,
            signal: String::new(),
            value: None,
            threshold: None,
            explanation: format!("The user {uid} took decision {decision} back."),
            detail: json!({
                "actor": { "kind": "person", "uid": uid },
                "reverts": decision,
                "taken": taken,
                "rungs": rungs,
                "rules_hash": &**self.ladder.source.hash(),
                "state_before": self.memo.ladder.standing(&self.ladder),
            }),
        };
        let cost = rules.iter().map(|rule| rule.cost).max().unwrap_or(highest.cost);
        let mut under_way = under_way(&highest, Verdict::Revert, taken, now);
        under_way.cost = cost;
        Ok(self.begin(row, change, &rungs, under_way))
    }

    /// The rows and the order of a step that is decided.
    fn begin(&mut self, decision: Decision, change: i64, rungs: &[String], under_way: UnderWay) -> Step {
        let active = self.overlays(&self.active());
        self.memo.ladder.under_way = Some(under_way);
        self.acting = true;
        Step {
            records: vec![Record::Decision(decision.clone()), self.memo()],
            order: Some(self.order(decision, change, active, rungs)),
        }
    }

    fn is_idle(&self) -> Result<(), OrderError> {
        if self.acting || self.held || self.memo.ladder.under_way.is_some() {
            return Err(OrderError::Busy {
                engine: self.name().to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the engine has what `act` needs.
    fn is_fit(&self) -> Result<(), OrderError> {
        let missing = if self.spec.config.is_none() {
            "`config`"
        } else if self.spec.reload == Reload::None {
            "`reload`"
        } else if self.spec.health.is_none() {
            "`health`"
        } else {
            return Ok(());
        };
        Err(OrderError::Unfit {
            engine: self.name().to_owned(),
            missing,
        })
    }

    /// Takes note of who holds which rung after an action, and tells the decision where everything stands then.
    pub(super) fn settled(&mut self, decision: &Decision, consequence: Option<&Consequence>) -> Record {
        let (active, kept) = (self.active(), decision.outcome == DecisionOutcome::Kept);
        if kept && decision.verdict == Verdict::Apply {
            let of = |key: &str| decision.detail.get(key).cloned();
            let taken: Option<Vec<String>> = of("taken").and_then(|taken| serde_json::from_value(taken).ok());
            let taken = taken.unwrap_or_else(|| vec![decision.rule.clone()]);
            self.seen_with(&taken);
            for rung in taken {
                self.memo.kept.insert(rung, decision.id.0);
            }
        }
        if kept && decision.verdict == Verdict::Revert {
            let taken = decision.detail.get("taken").cloned().unwrap_or_default();
            for rung in serde_json::from_value::<Vec<String>>(taken).unwrap_or_default() {
                self.memo.ladder.heed(&rung);
            }
        }
        self.memo.kept.retain(|rule, _| active.contains(rule));
        let mut decision = decision.clone();
        if let Some(consequence) = consequence {
            decision.explanation += &format!(" {}", consequence.sentence);
        }
        if let Some(detail) = decision.detail.as_object_mut() {
            let standing = self.memo.ladder.standing(&self.ladder);
            detail.insert("state_after".to_owned(), json!(standing));
        }
        Record::Decision(decision)
    }
}

fn under_way(rule: &Rule, verdict: Verdict, rungs: Vec<String>, now: Stamp) -> UnderWay {
    UnderWay {
        rule: rule.name.clone(),
        verdict,
        rungs,
        cost: rule.cost,
        since: now,
        verifying: false,
    }
}

/// A decision that is only looked at.
fn draft(engine: &str, rule: &Rule, stands: &RuleExplanation) -> Decision {
    let clause = stands.clauses.first();
    Decision {
        id: DecisionId(0),
        run: None,
        engine: engine.to_owned(),
        rule: rule.name.clone(),
        at_ns: 0,
        mode: rule.mode,
        verdict: Verdict::Apply,
        outcome: DecisionOutcome::Proposed,
        signal: clause.map(|clause| clause.signal.clone()).unwrap_or_default(),
        value: clause.and_then(|clause| clause.value),
        threshold: clause.map(|clause| clause.enter),
        explanation: String::new(),
        detail: json!({}),
    }
}
