//! The simulated inference engine: an HTTP server for a language model as Plimsoll meets it, without the model.
//!
//! [`model`] is the engine as a pure state machine over [`memory`]'s formula. [`accelerated`] runs it without processes,
//! [`run_engine`] runs it as a process that takes its memory on the simulated GPU. [`scenario`] and [`workload`] say
//! what clients ask of it, [`demo`] is the load that `plimsoll demo` shows, and [`Supervisor`] starts a dead engine
//! again as a service manager would.

pub mod accelerated;
mod args;
pub mod benchmark;
mod card;
pub mod config;
pub mod cuda;
pub mod demo;
mod http;
mod journal;
pub mod memory;
mod metrics;
pub mod model;
mod process;
mod random;
pub mod scenario;
mod server;
mod supervisor;
mod traced;
pub mod workload;

pub use args::{EngineArgs, ReloadFault};
pub use process::{chain, run_engine};
pub use supervisor::Supervisor;
