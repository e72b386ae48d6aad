//! The simulated inference engine: an HTTP server for a language model as Plimsoll meets it, without the model.
//!
//! [`model`] is the engine as a pure state machine over [`memory`]'s formula. [`accelerated`] runs it without processes,
//! [`run_engine`] runs it as a process that takes its memory on the simulated GPU. [`scenario`] and [`workload`] say
//! what clients ask of it, [`demo`] is the load that `plimsoll demo` shows, and [`supervisor`] starts a dead engine
//! again as a service manager would.

pub mod accelerated;
pub mod config;
pub mod demo;
pub mod memory;
pub mod model;
mod random;
pub mod scenario;
pub mod workload;
