//! The vocabulary of Plimsoll: what a collector reports, what the store keeps and what a rule reads.
//!
//! A [`Record`] is a sample (a value at an instant), an event (something that happened), a row about a run or a
//! decision, or a count of what was lost. Records that were observed together travel as one [`Batch`].
//!
//! This crate is a leaf: it knows no runtime, no database and no driver. Nothing here reads anything but the clock,
//! and the clock is read in one place only ([`Stamp::now`]).
//!
//! Unknown is not zero: a figure that was not measured is `None` here, NULL in the store and "unknown" in text.

#[macro_use]
mod words;

mod clock;
mod decision;
mod event;
mod figures;
mod record;
mod run;
mod sample;
pub mod signal;
pub mod sketch;
mod traced;
pub mod units;
pub mod wire;

pub use clock::Stamp;
pub use decision::{ChangeOutcome, ConfigChange, Decision, DecisionId, DecisionOutcome, Mode, Verdict};
pub use event::{Event, EventKind, Loss};
pub use figures::{EngineFigures, Histogram};
pub use record::{Batch, EngineMemo, LadderMark, MarkKind, Record};
pub use run::{RunEnd, RunId, RunOutcome, RunStart, TraceTier};
pub use sample::{
    DeviceId, DeviceInfo, DeviceSample, EngineSample, HostSample, MemoryVersion, ProcessSample,
};
pub use traced::{Allocation, AllocatorSample, CopyWindow, KernelSpan, KernelWindow, Level, Traced, Work};
pub use words::UnknownWord;
