//! The plan of one action: the exact bytes that the file will have, and what will be looked for afterwards.

use serde_json::Value;
use thiserror::Error;

use super::order::Order;
use crate::desired;
use crate::diff;
use crate::edit::{self, EditError, Format, KeyPath};
use crate::file::{self, FileError, Snapshot};

/// Why there is no plan. Nothing was touched.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The engine's file is not configured.
    #[error("the engine has no `config` in Plimsoll's configuration, so there is no file to change")]
    NoFile,
    /// The file cannot be read or may not be written.
    #[error("the engine's file cannot be used")]
    File(#[from] FileError),
    /// The file cannot be edited safely.
    #[error("the engine's file cannot be edited safely")]
    Edit(#[from] EditError),
    /// Somebody else wrote the file, and it was not taken over yet.
    #[error("somebody is changing the file, or left it empty or not valid; it is looked at again later")]
    JustEdited,
}

/// What will be written, and what is expected of it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The file as it is now.
    pub(crate) snapshot: Snapshot,
    /// The file as the person wrote it, without any rung.
    pub(crate) base: Vec<u8>,
    /// The file as it will be.
    pub(crate) after: Vec<u8>,
    /// The values that the engine shall show afterwards.
    pub(crate) wanted: Vec<(KeyPath, Value)>,
    /// The change, for people.
    pub(crate) diff: String,
}

impl Plan {
    /// Whether the file already says what the plan wants.
    pub(crate) fn is_empty(&self) -> bool {
        self.after == self.snapshot.bytes
    }
}

/// Reads the file and renders what it shall be. Reads only.
pub(crate) fn make(order: &Order) -> Result<Plan, PlanError> {
    let config = order.engine.config.as_ref().ok_or(PlanError::NoFile)?;
    let snapshot = file::read(&config.path)?;
    if order.seen.as_ref() != Some(&snapshot.hash) {
        return Err(PlanError::JustEdited);
    }
    let base = order
        .base
        .as_ref()
        .map_or_else(|| snapshot.bytes.clone(), |base| base.text.clone().into_bytes());
    let after = desired::render(&base, config.format, &order.overlays)?;
    let wanted = values(&after, config.format, &order.keys)?;
    let diff = diff::unified(&config.path.to_string_lossy(), &snapshot.bytes, &after);
    Ok(Plan {
        snapshot,
        base,
        after,
        wanted,
        diff,
    })
}

/// What an order would change in the engine's file, as a unified diff; empty when the file says so already. Reads only.
///
/// # Errors
/// [`PlanError`] says why there would be no change.
pub fn preview(order: &Order) -> Result<String, PlanError> {
    make(order).map(|plan| plan.diff)
}

/// The values that a text has at these keys, where it has any.
pub(super) fn values(
    text: &[u8],
    format: Format,
    keys: &[KeyPath],
) -> Result<Vec<(KeyPath, Value)>, EditError> {
    let text = edit::text(text)?;
    let found = keys
        .iter()
        .map(|key| Ok(edit::get(text, format, key)?.map(|value| (key.clone(), value))));
    found.filter_map(Result::transpose).collect()
}
