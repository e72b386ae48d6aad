//! Runs: one life of an engine, or one `plimsoll run`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A run's number in its store, given out by the one writer of that store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

words! {
    /// How a run ended (`runs.outcome`).
    pub enum RunOutcome {
        /// It has not ended.
        Running = "running",
        /// Exit status 0.
        Ok = "ok",
        /// Another exit status, or a signal of its own making such as SIGSEGV.
        Failed = "failed",
        /// Ended by SIGTERM, SIGINT, SIGHUP or SIGKILL from outside.
        Killed = "killed",
        /// Ended for want of device memory.
        OutOfMemory = "out_of_memory",
        /// It ended while nobody watched, so how is unknown.
        Lost = "lost",
    }
}

words! {
    /// How much the agent in the engine records (`runs.trace_tier`).
    pub enum TraceTier {
        /// Nothing: no agent.
        Off = "off",
        /// Allocations.
        Memory = "memory",
        /// Allocations, kernels, whole graph launches.
        Graph = "graph",
        /// Every kernel, in windows.
        Kernels = "kernels",
    }
}

/// The start of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStart {
    /// The number it got.
    pub id: RunId,
    /// The name the user knows it by: an engine's name, or `--name`.
    pub name: String,
    /// The configured engine, if it is one.
    pub engine: Option<String>,
    /// The machine's host name.
    pub host: String,
    /// The root process.
    pub pid: Option<u32>,
    /// What tells the root process from every other that ever had its pid: the machine's boot and the process's start in
    /// clock ticks, as `BOOT/TICKS`. Only compared, never shown.
    pub process_key: Option<String>,
    /// The command line, as far as it is known.
    pub command: Option<String>,
    /// What the agent records.
    pub trace_tier: TraceTier,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Which run.
    pub id: RunId,
    /// The exit status, when somebody saw it: 0..255, or 128+n for signal n.
    pub exit_code: Option<i32>,
    /// How it ended.
    pub outcome: RunOutcome,
}
