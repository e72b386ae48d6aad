//! What an action is told, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{Decision, Record, Stamp};

use crate::adopt::Base;
use crate::budget::Balance;
use crate::desired::Overlay;
use crate::edit::KeyPath;
use crate::rule::Cost;
use crate::spec::EngineSpec;

/// Everything that an action needs to know.
#[derive(Clone, Debug)]
pub struct Order {
    /// The engine.
    pub engine: Arc<EngineSpec>,
    /// The decision as it was made; its outcome and explanation are filled in as it proceeds.
    pub decision: Decision,
    /// The number of the change it will write.
    pub change: i64,
    /// The person's text, if the file holds anything of ours already.
    pub base: Option<Base>,
    /// The hash of the file as it was last looked at.
    pub seen: Option<String>,
    /// The rungs that are taken now.
    pub active: Vec<Overlay>,
    /// The rungs that shall be taken.
    pub overlays: Vec<Overlay>,
    /// Whether the engine is to be restarted even if the file already says so: that is all the rule does.
    pub restart: bool,
    /// The keys that this action touches.
    pub keys: Vec<KeyPath>,
    /// What it costs the engine.
    pub cost: Cost,
    /// What was spent of the limits when it was ordered.
    pub budget: Balance,
    /// How much memory it is to free, bytes; `None` when that is not known, negative when a rung is let go.
    pub promised_bytes: Option<i64>,
    /// When the engine's configuration was last changed. How it served before that is no measure.
    pub changed_at: Option<Stamp>,
    /// The engine died because memory was out, and is perhaps still down.
    pub answers_death: bool,
    /// What the quality command said before, by command and file.
    pub scores: BTreeMap<String, f64>,
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
    /// The engine does not serve, or the file could not be put back.
    Failed,
    /// A former daemon ended in the middle; it was undone.
    Interrupted,
    /// A former daemon ended in the middle, and the file cannot be read, so that is still so.
    Unresolved,
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
    /// How long the engine did not serve because of this action.
    pub away: Duration,
    /// The base to remember; `None` when the file holds nothing of ours.
    pub base: Option<Base>,
    /// What this action left in the file, whatever a person made of it since; `None` when it wrote nothing.
    pub left: Option<Vec<u8>>,
    /// What the quality command said, by command and file.
    pub scores: Vec<(String, f64)>,
    /// Rows to store: the decision, the change, events.
    pub records: Vec<Record>,
}
