//! What a recording says besides samples.

use std::time::Duration;

use plimsoll_trace::{Decision, DecisionOutcome, LadderMark, MarkKind, Mode, Stamp, Verdict};
use serde::Serialize;

use crate::budget::Host;
use crate::signals::EngineView;
use crate::state::LadderState;
use crate::transition::Transition;

/// Where the ladder stood before an evaluation, as far as that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Which evaluation, ns since the Unix epoch.
    pub at_ns: i64,
    /// What it says.
    pub kind: MarkKind,
    /// The rules in force then; `None` when no rules were.
    pub rules_hash: Option<String>,
    /// How long a value stood for the present.
    pub max_age: Duration,
    /// What belonged to the engine.
    pub view: EngineView,
    /// The state of the ladder; `None` when there was none.
    pub state: Option<LadderState>,
    /// What the other engines of the host had cost.
    pub host: Host,
}

impl Mark {
    /// A mark from a recording.
    ///
    /// # Errors
    /// When its state is of a form that this version does not know.
    pub fn new(mark: &LadderMark) -> Result<Self, serde_json::Error> {
        Ok(Self {
            at_ns: mark.at_ns,
            kind: mark.kind,
            rules_hash: Some(mark.rules_hash.clone()),
            max_age: Duration::from_nanos(u64::try_from(mark.max_age_ns).unwrap_or(0)),
            view: EngineView {
                devices: mark.devices.clone(),
                run: mark.run,
            },
            state: Some(LadderState::recorded(&mark.state)?),
            host: Host::recorded(&mark.state)?,
        })
    }
}

/// A decision of the recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Past {
    /// Its number.
    pub id: i64,
    /// When it was made, ns since the Unix epoch.
    pub at_ns: i64,
    /// The rule.
    pub rule: String,
    /// Which way.
    pub verdict: Verdict,
    /// What the rule might do.
    pub mode: Mode,
    /// What came of it.
    pub outcome: DecisionOutcome,
    /// The rungs in force afterwards, lowest first, where that is recorded.
    pub rungs: Option<Vec<String>>,
}

impl Past {
    /// A decision of a rule; `None` for one of a person, which no evaluation makes.
    #[must_use]
    pub fn new(decision: &Decision) -> Option<Self> {
        let by_person = decision
            .detail
            .pointer("/actor/kind")
            .and_then(|kind| kind.as_str())
            == Some("person");
        let rungs = decision.detail.get("rungs");
        (!by_person).then(|| Self {
            id: decision.id.0,
            at_ns: decision.at_ns,
            rule: decision.rule.clone(),
            verdict: decision.verdict,
            mode: decision.mode,
            outcome: decision.outcome,
            rungs: rungs.and_then(|rungs| serde_json::from_value(rungs.clone()).ok()),
        })
    }

    pub(super) fn is(&self, made: &Transition, now: Stamp) -> bool {
        let same_rungs = self.rungs.as_ref().is_none_or(|rungs| *rungs == made.rungs);
        (self.at_ns, self.verdict, self.mode) == (now.unix_ns, made.verdict, made.mode)
            && self.rule == made.rule
            && same_rungs
    }

    /// Whether the engine was put through it.
    pub(super) const fn changed_the_engine(&self) -> bool {
        match self.outcome {
            DecisionOutcome::Observed
            | DecisionOutcome::Proposed
            | DecisionOutcome::Refused
            | DecisionOutcome::Interrupted => false,
            DecisionOutcome::Applying
            | DecisionOutcome::Applied
            | DecisionOutcome::Kept
            | DecisionOutcome::RolledBack
            | DecisionOutcome::Failed => true,
        }
    }
}

/// The first action on one side only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// What differs.
    pub why: String,
}
