//! The daemon ends, and the person wants their file back: all rungs are let go in one step, with one reload.

use plimsoll_trace::{Mode, RunId, Stamp, Verdict};
use serde_json::json;

use super::{Engine, Step, decision};
use crate::rule::Cost;
use crate::state::UnderWay;
use crate::transition::Transition;

impl Engine {
    /// Lets go of all rungs, whatever the pressure: the person's text back, byte for byte, and one reload. No order when
    /// the file holds nothing of ours, when something is under way or unresolved, or when acting is stopped.
    pub fn restore(
        &mut self,
        run: Option<RunId>,
        now: Stamp,
        ids: impl FnOnce() -> (plimsoll_trace::DecisionId, i64),
    ) -> Step {
        let mut step = Step::default();
        let ladder = &self.memo.ladder;
        if self.acting || self.held || ladder.stopped.is_some() || ladder.under_way.is_some() {
            return step;
        }
        // A person's edit that was not noticed yet comes first.
        step.records = self.look_at_file(now);
        let active = self.active();
        let absent = self.memo.ladder.absent(&self.ladder).map(str::to_owned);
        let rungs: Vec<String> = absent.chain(active.iter().cloned()).collect();
        let Some(highest) = rungs.last().filter(|_| self.memo.base.is_some()) else {
            return step;
        };
        let costs = self.ladder.rules.iter().filter(|rule| rungs.contains(&rule.name));
        let cost = costs.map(|rule| rule.cost).max().unwrap_or(Cost::Restart);
        let transition = Transition {
            rule: highest.clone(),
            mode: Mode::Act,
            verdict: Verdict::Release,
            signal: String::new(),
            value: None,
            threshold: None,
            projection: None,
            expected_effect_bytes: None,
            rungs: Vec::new(),
            explanation: format!(
                "The daemon ends, and `on_exit` is \"restore\": let go of {}.",
                rungs.join(", ")
            ),
            detail: json!({ "because_of": "on_exit", "rungs": [], "let_go": rungs, "cost": cost }),
        };
        self.memo.ladder.under_way = Some(UnderWay {
            rule: highest.clone(),
            verdict: Verdict::Release,
            rungs: rungs.clone(),
            cost,
            since: now,
            verifying: false,
        });
        let (id, change) = ids();
        let decision = decision(id, self.name(), run, now, &transition);
        let active = self.overlays(&active);
        self.acting = true;
        step.order = Some(self.order(decision, change, active, &[]));
        step.records.push(self.memo());
        step
    }
}
