//! Why a person's order is not carried out, in words for them.

use thiserror::Error;

use crate::state::{BarReason, StopReason};

/// Why a person's order is not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Something else is under way.
    #[error("{engine} is being changed at this moment; try again when that has ended (`plimsoll status`)")]
    Busy {
        /// The engine.
        engine: String,
    },
    /// Nobody may act on this engine.
    #[error("acting on {engine} is {why}; `plimsoll resume` lifts that")]
    Stopped {
        /// The engine.
        engine: String,
        /// How.
        why: &'static str,
    },
    /// The rule is not tried for a while.
    #[error(
        "rule {rule} is {why} for a while longer (`plimsoll why {rule}`); `plimsoll resume {rule}` lifts that"
    )]
    Barred {
        /// The rule.
        rule: String,
        /// Why.
        why: &'static str,
    },
    /// A person changed its keys.
    #[error(
        "somebody changed what rule {rule} sets in the engine's file; `plimsoll resume {rule}` lets it have those keys back"
    )]
    Suspended {
        /// The rule.
        rule: String,
    },
    /// A limit of the engine.
    #[error("it would pass a limit of {engine}: {limit}")]
    Limit {
        /// The engine.
        engine: String,
        /// Which.
        limit: String,
    },
    /// The engine cannot be acted on.
    #[error(
        "[engine.{engine}] has no {missing} in Plimsoll's configuration, without which nothing is changed"
    )]
    Unfit {
        /// The engine.
        engine: String,
        /// The key that is missing.
        missing: &'static str,
    },
    /// The file was edited a moment ago.
    #[error("somebody edited the file of {engine} just now; look at `plimsoll plan` again")]
    Edited {
        /// The engine.
        engine: String,
    },
    /// Nothing of the decision is in force.
    #[error(
        "nothing of decision {decision} is in force any more; `plimsoll why {decision}` says what became of it"
    )]
    NotInForce {
        /// Its number.
        decision: i64,
    },
    /// Another decision came later.
    #[error("decision {later} (rule {rule}) came on top of decision {decision}; revert {later} first")]
    NotOnTop {
        /// The one to revert.
        decision: i64,
        /// The one on top.
        later: i64,
        /// Whose it is.
        rule: String,
    },
}

impl StopReason {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Failed => "stopped after a rollback failed",
        }
    }
}

impl BarReason {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::RolledBack => "resting after a rollback",
            Self::Quarantined => "in quarantine after rollbacks",
            Self::Refused => "backing off after a refusal",
            Self::Interrupted => "backing off after an interruption",
            Self::Released => "resting after its release",
        }
    }
}
