//! What is told about engines' processes.

use plimsoll_trace::Stamp;

/// A process's identity: pids are used again, but not at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started_ticks: u64,
}

impl ProcessId {
    /// How long it has run at `at`, in ns; the kernel and [`Stamp`] count from the same instant.
    pub(crate) fn age_ns(self, at: Stamp) -> i128 {
        let ticks_per_sec = i128::from(rustix::param::clock_ticks_per_second().max(1));
        i128::from(at.mono_ns) - i128::from(self.started_ticks) * 1_000_000_000 / ticks_per_sec
    }

    /// When it began, by the clocks of `now`; never later than that.
    #[must_use]
    pub fn began(self, now: Stamp) -> Stamp {
        now.before(i64::try_from(self.age_ns(now).max(0)).unwrap_or(0))
    }
}

/// Who runs, as of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessTable {
    /// When.
    pub at: Stamp,
    /// Every watched engine, in the order of the watches.
    pub engines: Vec<EngineProcesses>,
    /// Roots that ended since the former table. Each root that a table named is here once, and its engine may
    /// already have another root.
    pub exits: Vec<Exit>,
}

/// One engine's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineProcesses {
    /// The engine's name in the configuration.
    pub engine: String,
    /// The process that is the engine; `None` when it does not run. Another identity is another life of the engine.
    pub root: Option<ProcessId>,
    /// The root's command line, words joined by spaces, as it was when the root was found.
    pub command: Option<String>,
    /// The root and what belongs to it, ascending. Without a root: what a former root left behind.
    pub pids: Vec<u32>,
}

/// The end of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The engine's name in the configuration.
    pub engine: String,
    /// Which process ended.
    pub process: ProcessId,
    /// The exit status, 0..255, or 128+n for signal n; `None` when nobody could see it.
    pub exit_code: Option<i32>,
    /// What more is known about its end.
    pub hint: Option<ExitHint>,
}

/// What the status alone does not tell about a process's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitHint {
    /// The kernel killed it for want of host memory, which is not device memory.
    HostOutOfMemory,
}
