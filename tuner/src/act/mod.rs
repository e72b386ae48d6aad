//! Carrying a decision out: plan, write, reload, verify, keep or take back.
//!
//! Everything here runs on a thread of its own, one action per engine at a time, and may block. Each step is durable in
//! the [`Journal`] before it is an act, so that whoever finds the journal later can finish or undo.

mod action;
mod before;
mod effect;
mod execute;
mod http;
mod live;
mod order;
mod panics;
mod plan;
mod quality;
mod ready;
mod recover;
mod reload;
mod tell;
mod undo;
mod watch;

pub(crate) use action::chain;
pub use execute::carry_out;
pub use http::HttpError;
pub use live::{Latest, Live, ProcessRef};
pub use order::{Ended, Order, Report};
pub use plan::{PlanError, preview};
pub use ready::is_healthy;
pub use recover::recover;
pub use reload::ReloadError;

use plimsoll_trace::Record;
use thiserror::Error;

pub use crate::adopt::Base;

/// Where steps are written down before they are taken.
pub trait Journal: Send + Sync {
    /// Stores the records; when this returns, they survive a power cut.
    ///
    /// # Errors
    /// When they could not be stored. Then the step must not be taken.
    fn commit(&self, records: Vec<Record>) -> Result<(), JournalError>;
}

/// A journal that could not be written.
#[derive(Debug, Error)]
#[error("the step cannot be stored, so it is not taken")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
