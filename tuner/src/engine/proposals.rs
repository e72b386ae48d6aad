//! What waits for a person: proposals outlive the daemon, and not their rule.

use plimsoll_trace::{Decision, DecisionOutcome, Record, Stamp};

use super::Engine;

impl Engine {
    /// Takes up what a former daemon had proposed, oldest first. Answers with the rows of proposals that no longer stand.
    pub fn take_up(&mut self, proposals: Vec<Decision>) -> Vec<Record> {
        let mut records = Vec::new();
        for proposal in proposals {
            if self.memo.ladder.awaits_person(&proposal.rule) {
                let former = self.proposals.insert(proposal.rule.clone(), proposal);
                records.extend(former.map(|former| withdrawn(former, "It was proposed anew.")));
            } else {
                records.push(withdrawn(
                    proposal,
                    "The daemon was started again and no longer knew of it.",
                ));
            }
        }
        records
    }

    /// The engine is no longer configured: closes what is open. Answers with rows to store.
    pub fn retire(&mut self, now: Stamp) -> Vec<Record> {
        self.settle(now);
        let proposals = std::mem::take(&mut self.proposals);
        let mut records = Vec::new();
        for (rule, proposal) in proposals {
            self.memo.ladder.forget_proposal(&rule);
            records.push(withdrawn(proposal, "The engine is no longer configured."));
        }
        records.push(self.memo());
        records
    }

    /// Closes proposals of rules that are no longer configured.
    pub(super) fn orphans(&mut self) -> Vec<Record> {
        let gone = |rule: &String| self.ladder.rule(rule).is_none();
        let rules: Vec<String> = self.proposals.keys().filter(|rule| gone(rule)).cloned().collect();
        let mut records = Vec::new();
        for rule in rules {
            self.memo.ladder.forget_proposal(&rule);
            let proposal = self.proposals.remove(&rule);
            records.extend(proposal.map(|proposal| withdrawn(proposal, "The rule is no longer configured.")));
        }
        records
    }
}

pub(super) fn withdrawn(mut proposal: Decision, why: &str) -> Record {
    proposal.outcome = DecisionOutcome::Refused;
    proposal.explanation = format!("{} Withdrawn: {why}", proposal.explanation);
    Record::Decision(proposal)
}
