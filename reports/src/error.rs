//! What can go wrong between a store and a report.

use plimsoll_store::StoreError;
use thiserror::Error;

/// A report that could not be made. The text fits after "failed to make the report:".
#[derive(Debug, Error)]
pub enum ReportError {
    /// Reading the store failed.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// Nothing was recorded yet.
    #[error("the store holds no runs yet; start the service, or record one with `plimsoll run -- COMMAND`")]
    NoRuns,
    /// No run has that number or name.
    #[error("there is no run '{wanted}'{}", hint(near, "list them with `plimsoll runs`"))]
    UnknownRun {
        /// What was asked for.
        wanted: String,
        /// Names that look like it, best first.
        near: Vec<String>,
    },
    /// No decision has that number and no rule that name.
    #[error(
        "there is no decision or rule '{wanted}'{}",
        hint(near, "nothing was decided about it yet")
    )]
    UnknownDecision {
        /// What was asked for.
        wanted: String,
        /// Names that look like it, best first.
        near: Vec<String>,
    },
    /// The window ends before it begins.
    #[error("the window ends at {to} before it begins at {from}; exchange --from and --to")]
    EmptyWindow {
        /// Its start.
        from: String,
        /// Its end.
        to: String,
    },
}

fn hint(near: &[String], otherwise: &str) -> String {
    if near.is_empty() {
        return format!("; {otherwise}");
    }
    let quoted: Vec<String> = near.iter().map(|name| format!("'{name}'")).collect();
    format!("; did you mean {}?", quoted.join(" or "))
}
