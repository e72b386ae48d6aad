//! The frames. Times are CUPTI's clock in ns unless said otherwise; [`Clock`] tells how it lies to the others. Devices are
//! the process's own numbers; [`Frame::Device`] tells which UUID each is.

use crate::TraceTier;

/// The longest kernel name that travels, bytes. The agent cuts longer ones and tells them apart by their numbers.
pub const MAX_NAME: usize = 4096;

/// Anything an agent tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Who is speaking; again after each connection.
    Process(Process),
    /// A number that stands for a name from here on, until it is told again with another; again after each connection.
    Name {
        /// The number.
        id: u32,
        /// The name as CUPTI gave it, at most [`MAX_NAME`] bytes, UTF-8 or not.
        name: Vec<u8>,
    },
    /// Which device a number stands for; again after each connection.
    Device {
        /// The number.
        index: u32,
        /// The UUID's 16 bytes as CUDA gives them.
        uuid: [u8; 16],
    },
    /// All clocks at one instant.
    Clock(Clock),
    /// What ran in one flush period, by name.
    Kernels(Kernels),
    /// What was copied in one flush period.
    Copies(Copies),
    /// Allocations and releases, in order of time.
    Memory(Vec<AllocationEvent>),
    /// How much is allocated now, by level.
    Levels(Levels),
    /// Single kernels of an open window.
    Spans(Spans),
    /// Something was lost.
    Loss {
        /// Why.
        reason: LossReason,
        /// How many records since the last such frame.
        count: u64,
    },
    /// What the agent cost its host since the last such frame.
    Cost(Cost),
    /// The agent is in another state now.
    State {
        /// Which.
        state: State,
        /// One sentence for people.
        message: String,
    },
    /// The last word: the process ends, and all that the agent had to say it has said, losses included. A ring that ends
    /// without it was cut off, by a kill or by an end that did not wait.
    Finished,
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process's number in its own pid namespace; the daemon asks the socket for the one in its own.
    pub pid: u32,
    /// What is recorded at most; the governor may go below.
    pub tier: TraceTier,
    /// CUPTI's version as it reports it, 0 where it was not asked; `None` without CUPTI.
    pub cupti: Option<u32>,
    /// How often aggregates come, ms.
    pub flush_ms: u32,
    /// `RANK` of distributed programs.
    pub rank: Option<u32>,
    /// `LOCAL_RANK` of distributed programs.
    pub local_rank: Option<u32>,
    /// `CUDA_VISIBLE_DEVICES`, empty when unset.
    pub visible_devices: String,
    /// The program.
    pub exe: String,
    /// The share of the process's time that the agent may cost, millionths; a million is no limit. `None` from an agent
    /// that does not say.
    pub budget_ppm: Option<u32>,
}

/// All clocks at one instant, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// CUPTI's.
    pub cupti_ns: u64,
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME.
    pub realtime_ns: u64,
}

/// What ran in one flush period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// When the period began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// By name and device.
    pub stats: Vec<KernelStats>,
}

/// What one kernel did on one device in one period.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KernelStats {
    /// Its name's number.
    pub name: u32,
    /// The device's number.
    pub device: u32,
    /// Launches that ended.
    pub count: u64,
    /// Sum of their durations.
    pub total_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many fell into which bucket of [`crate::sketch`]; ascending, none empty.
    pub buckets: Vec<(u8, u64)>,
}

/// What was copied in one flush period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// When the period began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// By device and direction.
    pub stats: Vec<CopyStats>,
}

/// What was copied in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStats {
    /// The device's number.
    pub device: u32,
    /// From where to where.
    pub direction: Direction,
    /// How many copies.
    pub count: u64,
    /// How much.
    pub bytes: u64,
    /// Sum of their durations.
    pub total_ns: u64,
}

words! {
    /// From where to where a copy went (`copies.direction`).
    pub enum Direction {
        /// Host to device.
        HostToDevice = "htod",
        /// Device to host.
        DeviceToHost = "dtoh",
        /// Within a device.
        DeviceToDevice = "dtod",
        /// From one device to another.
        PeerToPeer = "ptop",
        /// Within the host.
        HostToHost = "htoh",
    }
}

words! {
    /// What happened to memory (`allocations.operation`).
    pub enum MemoryOperation {
        /// It was taken.
        Alloc = "alloc",
        /// It was given back.
        Free = "free",
    }
}

words! {
    /// Which kind of memory it is (`allocations.kind`).
    pub enum MemoryKind {
        /// Of the device.
        Device = "device",
        /// Of the device, from a stream-ordered pool.
        Pool = "pool",
        /// Of the device, through the virtual memory calls (`cuMemCreate`).
        Physical = "physical",
        /// Moved by the driver.
        Managed = "managed",
        /// Pinned, of the host.
        Pinned = "pinned",
    }
}

/// Memory was taken or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationEvent {
    /// When.
    pub at_ns: u64,
    /// The device's number.
    pub device: u32,
    /// What happened.
    pub operation: MemoryOperation,
    /// To which kind of memory.
    pub kind: MemoryKind,
    /// Where it begins; for physical memory its handle.
    pub address: u64,
    /// How large it is. Unknown for a release of what was taken before the agent looked.
    pub bytes: Option<u64>,
}

/// How much one process holds on one device, as the agent counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Levels {
    /// The device's number.
    pub device: u32,
    /// Taken and not given back through the driver: device, pool and physical memory, bytes.
    pub live_bytes: u64,
    /// In so many pieces.
    pub segments: u64,
    /// What rounding each piece up to 2 MiB can cost at most, bytes.
    pub rounding_bytes: u64,
    /// What stream-ordered pools hold, bytes; unknown without such records.
    pub pool_bytes: Option<u64>,
    /// What of it is in use, bytes.
    pub pool_used_bytes: Option<u64>,
    /// Virtual addresses reserved, bytes; unknown where the calls are not observed.
    pub reserved_bytes: Option<u64>,
    /// Physical memory mapped into them, bytes.
    pub mapped_bytes: Option<u64>,
    /// When. `None` from an agent that does not say.
    pub at_ns: Option<u64>,
}

/// Single kernels of an open window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// In the order CUPTI delivered them.
    pub spans: Vec<Span>,
}

/// One kernel, one graph or one copy that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its name's number.
    pub name: u32,
    /// The device's number.
    pub device: u32,
    /// The stream.
    pub stream: u32,
    /// When it began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

words! {
    /// Why an agent's records are missing (`losses.reason`).
    pub enum LossReason {
        /// CUPTI says that it dropped them.
        DroppedByCupti = "dropped_by_cupti",
        /// No start or no end.
        ZeroTimestamp = "zero_timestamp",
        /// An end before the start, or longer after it than the process has lived.
        InvertedTimestamp = "inverted_timestamp",
        /// Single kernels that the ring had no room for. All else waits until there is room again.
        RingFull = "ring_full",
        /// A record that ends beyond its buffer or is of no known length.
        BadRecord = "bad_record",
        /// More names than the agent keeps.
        NamesFull = "names_full",
        /// More events of memory at once than the agent keeps.
        QueueFull = "queue_full",
        /// No buffer was free.
        NoBuffer = "no_buffer",
        /// Not looked at, to stay inside the budget.
        OverBudget = "over_budget",
        /// Taken from the ring by a daemon that was killed before it knew them to be stored: at most so many are missing.
        Unconfirmed = "unconfirmed",
        /// A frame that the daemon could not read.
        Malformed = "malformed",
        /// Another profiler took CUPTI over.
        Displaced = "displaced",
        /// Brought in too late: the process's end did not wait until they were counted or told.
        CutOff = "cut_off",
        /// How many processes ended without their agent's last word. What each did since its last flush is missing; how
        /// much that is nobody knows.
        Unfinished = "unfinished",
    }
}

/// What the agent cost its host since the last such frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How long that was, ns.
    pub wall_ns: u64,
    /// Processor time of the agent's own thread, ns.
    pub thread_ns: u64,
    /// Estimated time inside the hooks on the host's threads, ns.
    pub hooks_ns: u64,
    /// For how much of the time kernels were recorded, ns.
    pub traced_ns: u64,
    /// Device memory that CUPTI may hold for it by its settings, in each of the process's contexts, bytes; unknown without
    /// CUPTI.
    pub device_bytes: Option<u64>,
    /// The tier in force.
    pub tier: TraceTier,
}

words! {
    /// What an agent is doing.
    pub enum State {
        /// It records.
        Tracing = "tracing",
        /// It was asked to leave CUPTI to another.
        Yielded = "yielded",
        /// Another profiler took CUPTI over.
        Displaced = "displaced",
        /// It records less than it was asked to.
        Degraded = "degraded",
        /// It records nothing and says why.
        Off = "off",
    }
}
