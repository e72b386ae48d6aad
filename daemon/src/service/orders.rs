//! What a person orders over the control socket, and the answer when it is done.

use plimsoll_trace::{Batch, Decision, DecisionId, DecisionOutcome, Stamp};
use plimsoll_tuner::{Engine, Named, OrderError, Step, act};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::control;
use super::pipeline::Pipeline;

/// Whoever waits for the end of a decision.
pub(super) struct Ordered {
    decision: DecisionId,
    answer: oneshot::Sender<Value>,
}

const NOT_NOW: &str = "the daemon is ending or reading its configuration; try again in a moment";

impl Pipeline {
    /// What waits for a person, and what the rules would do next.
    pub(super) fn plan(&self) -> Vec<Value> {
        let now = Stamp::now();
        let plan = |engine: &Engine| engine.plan(&self.readings(engine, now), now);
        let plans = self.engines.iter().flat_map(plan);
        plans.map(|planned| json!(planned)).collect()
    }

    /// Carries out a proposal; the answer comes when that has ended.
    pub(super) fn apply(&mut self, proposal: &str, uid: u32, answer: oneshot::Sender<Value>) {
        if self.is_stopping() || self.edited {
            return refuse(answer, NOT_NOW);
        }
        let by_number = proposal.parse().map(Named::Decision);
        let named = [by_number.ok(), Some(Named::Rule(proposal))];
        let found = named.iter().flatten().find_map(|named| {
            let index = self
                .engines
                .iter()
                .position(|engine| engine.proposed(named).is_some())?;
            let rule = self.engines[index].proposed(named)?.to_owned();
            Some((index, rule))
        });
        let Some((index, rule)) = found else {
            let text =
                format!("nothing is proposed as '{proposal}'; `plimsoll plan` lists what waits for a person");
            return refuse(answer, &text);
        };
        let (now, change) = (Stamp::now(), self.writer.next_change_id());
        let host = self.host(self.engines[index].name());
        let (step, records) = self.engines[index].apply(&rule, uid, &host, now, change);
        self.store(records);
        self.order(index, step, answer);
    }

    /// Takes a kept decision back; the answer comes when that has ended.
    pub(super) fn revert(&mut self, decision: i64, uid: u32, answer: oneshot::Sender<Value>) {
        if self.is_stopping() || self.edited {
            return refuse(answer, NOT_NOW);
        }
        let index = self.engines.iter().position(|engine| engine.holds(decision));
        let Some(index) = index else {
            return refuse(answer, &OrderError::NotInForce { decision }.to_string());
        };
        let run = self.runs.of_engine(self.engines[index].name());
        let ids = (self.writer.next_decision_id(), self.writer.next_change_id());
        let (step, records) = self.engines[index].revert(decision, uid, run, Stamp::now(), ids);
        self.store(records);
        self.order(index, step, answer);
    }

    fn order(&mut self, index: usize, step: Result<Step, OrderError>, answer: oneshot::Sender<Value>) {
        let step = match step {
            Ok(step) => step,
            Err(error) => return refuse(answer, &error.to_string()),
        };
        self.store(step.records);
        let Some(order) = step.order else { return };
        let decision = order.decision.id;
        if !self.act(move |live, journal| act::carry_out(order, live, journal)) {
            let memo = self.engines[index].not_begun(Stamp::now());
            self.store(vec![memo]);
            return refuse(answer, "there is no thread for it; nothing was changed");
        }
        self.ordered.push(Ordered { decision, answer });
    }

    /// Tells whoever ordered it how a decision ended, once that is stored.
    pub(super) fn tell_ended(&mut self, ended: &Decision) {
        let (told, others): (Vec<Ordered>, Vec<Ordered>) = std::mem::take(&mut self.ordered)
            .into_iter()
            .partition(|ordered| ordered.decision == ended.id);
        self.ordered = others;
        for ordered in told {
            let (writer, ending) = (self.writer.clone(), ending(ended));
            tokio::spawn(async move {
                // Nothing of its own: it is through when all that came before is on the disk.
                if let Err(error) = writer.commit(Batch::new(Stamp::now())).await {
                    tracing::warn!(%error, "the end of an ordered decision is not stored yet");
                }
                // Who asked may have gone; the decision's row says the same.
                drop(ordered.answer.send(ending));
            });
        }
    }
}

fn ending(decision: &Decision) -> Value {
    json!({
        "version": 1,
        "decision": decision.id.0,
        "rule": decision.rule,
        "engine": decision.engine,
        "verdict": decision.verdict,
        "outcome": decision.outcome,
        "is_kept": decision.outcome == DecisionOutcome::Kept,
        "explanation": decision.explanation,
    })
}

fn refuse(answer: oneshot::Sender<Value>, why: &str) {
    // Who asked may have gone; nothing was done.
    drop(answer.send(control::error(why)));
}
