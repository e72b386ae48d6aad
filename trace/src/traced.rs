//! What the agent in a process tells about its GPU work, as it is stored.

use std::sync::Arc;

use crate::wire::{Direction, MemoryKind, MemoryOperation};
use crate::{DeviceId, RunId};

/// Something that one process did on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// The process, in the daemon's pid namespace.
    pub pid: u32,
    /// Its run, once it is known.
    pub run: Option<RunId>,
    /// The device; `None` for the process as a whole.
    pub device: Option<DeviceId>,
    /// What it did.
    pub work: Work,
}

/// What a process did. Times are ns since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// All launches of one kernel in one period.
    Kernels(KernelWindow),
    /// All copies in one direction in one period.
    Copies(CopyWindow),
    /// One kernel, in a window in which each is kept.
    Span(KernelSpan),
    /// Memory was taken or given back.
    Allocation(Allocation),
    /// How much an allocator holds.
    Allocator(AllocatorSample),
    /// A figure of the agent's own, such as `agent.cost_ratio` or `kernel.busy_ratio`; stored beside the engine's.
    Signal {
        /// Its name.
        signal: Arc<str>,
        /// In the signal's unit.
        value: f64,
    },
}

/// All launches of one kernel in one period. Counts and totals are exact for all that CUPTI delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelWindow {
    /// The kernel's name as CUPTI gave it; what is not UTF-8 is replaced.
    pub name: Arc<str>,
    /// When the period began.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: i64,
    /// Launches that ended.
    pub count: u64,
    /// Sum of their durations.
    pub total_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many fell into which bucket of [`crate::sketch`]; ascending.
    pub buckets: Vec<(u8, u64)>,
}

/// All copies in one direction in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyWindow {
    /// From where to where.
    pub direction: Direction,
    /// When the period began.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: i64,
    /// How many.
    pub count: u64,
    /// How much.
    pub bytes: u64,
    /// Sum of their durations.
    pub total_ns: u64,
}

/// One kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSpan {
    /// Its name as CUPTI gave it.
    pub name: Arc<str>,
    /// The stream.
    pub stream: u32,
    /// When it began.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: i64,
}

/// Memory was taken or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// When.
    pub at_ns: i64,
    /// What happened.
    pub operation: MemoryOperation,
    /// To which kind of memory.
    pub kind: MemoryKind,
    /// Where it begins.
    pub address: u64,
    /// How large it is; unknown for a release of what was taken before anybody looked.
    pub bytes: Option<u64>,
}

words! {
    /// Whose view of memory a figure is (`allocator_samples.level`). Fragmentation without its level means nothing.
    pub enum Level {
        /// The driver's: what was taken through it. Free space inside is not known at this level.
        Driver = "driver",
        /// Stream-ordered pools (`cuMemAllocAsync`).
        Pools = "pools",
        /// Reserved virtual addresses and what is mapped into them.
        VirtualMemory = "vmm",
        /// PyTorch's caching allocator.
        PyTorch = "pytorch",
    }
}

/// How much one allocator holds, in the words of PyTorch's allocator. What a level cannot know is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorSample {
    /// Whose view it is.
    pub level: Level,
    /// In use by tensors, or by the program, bytes.
    pub allocated_bytes: Option<u64>,
    /// In blocks that are in use, bytes.
    pub active_bytes: Option<u64>,
    /// Taken from the level below, bytes.
    pub reserved_bytes: Option<u64>,
    /// Free, but stuck: in blocks that cannot be given back, bytes.
    pub inactive_split_bytes: Option<u64>,
    /// Asked for before rounding, bytes.
    pub requested_bytes: Option<u64>,
    /// Pieces taken from the level below.
    pub segments: Option<u64>,
    /// The largest free block, bytes; only measured on demand.
    pub largest_free_bytes: Option<u64>,
    /// All free blocks together, bytes; measured with the largest.
    pub free_blocks_bytes: Option<u64>,
    /// What rounding each piece up costs at most, bytes, where it is told as such.
    pub rounding_bytes: Option<u64>,
    /// When, ns since the Unix epoch; `None` is when its batch was made.
    pub at_ns: Option<i64>,
    /// Who says so: `cupti`, `pytorch`.
    pub source: &'static str,
}

impl AllocatorSample {
    /// Nothing known.
    #[must_use]
    pub const fn unknown(level: Level, source: &'static str) -> Self {
        Self {
            level,
            allocated_bytes: None,
            active_bytes: None,
            reserved_bytes: None,
            inactive_split_bytes: None,
            requested_bytes: None,
            segments: None,
            largest_free_bytes: None,
            free_blocks_bytes: None,
            rounding_bytes: None,
            at_ns: None,
            source,
        }
    }

    /// The share of what was taken that is not in use: 1 - allocated/reserved, 0..1.
    #[must_use]
    pub fn slack_ratio(&self) -> Option<f64> {
        share(
            self.reserved_bytes?.checked_sub(self.allocated_bytes?)?,
            self.reserved_bytes?,
        )
    }

    /// The share of what was taken that is free and cannot be given back: inactive_split/reserved, 0..1.
    #[must_use]
    pub fn stuck_ratio(&self) -> Option<f64> {
        share(self.inactive_split_bytes?, self.reserved_bytes?)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of device memory, far below 2^52"
)]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0 && part <= whole).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_unknown_when_a_figure_is() {
        let mut sample = AllocatorSample::unknown(Level::PyTorch, "pytorch");
        assert_eq!((sample.slack_ratio(), sample.stuck_ratio()), (None, None));
        (sample.reserved_bytes, sample.allocated_bytes) = (Some(100), Some(75));
        assert_eq!((sample.slack_ratio(), sample.stuck_ratio()), (Some(0.25), None));
        sample.inactive_split_bytes = Some(10);
        assert_eq!(sample.stuck_ratio(), Some(0.1));
        sample.reserved_bytes = Some(0);
        assert_eq!(sample.stuck_ratio(), None);
    }
}
