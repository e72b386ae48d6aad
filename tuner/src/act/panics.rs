//! A defect of Plimsoll's own must not leave an engine half changed, nor a decision open for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// A panic that was caught.
#[derive(Debug, Error)]
#[error("a defect in Plimsoll: {0}")]
pub(super) struct Panicked(String);

/// Runs one part of an action. What it shares with others (the journal, what is known of the engines) is locked piece by
/// piece and never left half done.
pub(super) fn caught<T>(part: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(part)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Panicked(said.unwrap_or("no message").to_owned())
    })
}
