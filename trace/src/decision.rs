//! What the tuner decided and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::RunId;

/// A decision's number in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DecisionId(pub i64);

words! {
    /// What a rule may do (`decisions.mode`).
    pub enum Mode {
        /// Record what would be done.
        Observe = "observe",
        /// Propose; a person applies.
        Advise = "advise",
        /// Do it.
        Act = "act",
    }
}

words! {
    /// Which way a decision goes (`decisions.verdict`).
    pub enum Verdict {
        /// Take the rung.
        Apply = "apply",
        /// Step down from the rung.
        Release = "release",
        /// Take back on a person's word, or because it did not help.
        Revert = "revert",
    }
}

words! {
    /// How far a decision came (`decisions.outcome`).
    pub enum DecisionOutcome {
        /// The rule may only observe: this is what it would have done.
        Observed = "observed",
        /// The rule may only advise: this waits for a person.
        Proposed = "proposed",
        /// It was not safe or not possible; nothing was touched.
        Refused = "refused",
        /// Written ahead; file and engine may be in either state.
        Applying = "applying",
        /// Written and reloaded, being verified.
        Applied = "applied",
        /// It helped, and stays.
        Kept = "kept",
        /// The former bytes are back and the engine serves them.
        RolledBack = "rolled_back",
        /// The engine did not become healthy even on the former bytes.
        Failed = "failed",
        /// The daemon ended in the middle and resolved it at its next start.
        Interrupted = "interrupted",
    }
}

words! {
    /// What became of a written file (`config_changes.outcome`).
    pub enum ChangeOutcome {
        /// Written, or about to be: a row comes before its act.
        Written = "written",
        /// It stays.
        Kept = "kept",
        /// The former bytes are back.
        RolledBack = "rolled_back",
    }
}

/// A transition of a rule, and how far it came. Rows are replaced by `id` as the decision proceeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The number it got.
    pub id: DecisionId,
    /// The run it acts on, if one is known.
    pub run: Option<RunId>,
    /// The engine's name in the configuration.
    pub engine: String,
    /// The rule's name.
    pub rule: String,
    /// When it was made, ns since the Unix epoch (updates keep it).
    pub at_ns: i64,
    /// What the rule was allowed to do.
    pub mode: Mode,
    /// Which way it goes.
    pub verdict: Verdict,
    /// How far it came.
    pub outcome: DecisionOutcome,
    /// The signal that decided.
    pub signal: String,
    /// The signal's value then, in the signal's unit; `None` when it was unknown (a revert needs none).
    pub value: Option<f64>,
    /// The line it was held against.
    pub threshold: Option<f64>,
    /// One or two sentences for people: why, and what came of it.
    pub explanation: String,
    /// Clauses, expectation, steps and figures, as a JSON object.
    pub detail: Value,
}

/// A write to a file that a person owns. The row is stored before the file is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its number in the store.
    pub id: i64,
    /// The decision it belongs to.
    pub decision: DecisionId,
    /// The file that was really written (symlinks resolved).
    pub path: String,
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// The bytes before.
    pub before: String,
    /// The bytes after.
    pub after: String,
    /// A unified diff for people.
    pub diff: String,
    /// What became of it.
    pub outcome: ChangeOutcome,
}
