//! What a memory timeline shows, as plain data: no database, no clock, no pixels.

mod allocator;
mod gpu_time;
mod span;
mod verdict;

pub use allocator::{Allocator, Share};
pub use gpu_time::GpuTime;
pub(crate) use gpu_time::Shares;
pub(crate) use span::Gaps;
pub use span::{find_gaps, find_peak};

/// One picture: a window of time, the devices in it, and what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Who and where.
    pub title: Title,
    /// Start of the window, ns since the Unix epoch.
    pub from_ns: i64,
    /// End of the window, ns since the Unix epoch; after `from_ns`.
    pub to_ns: i64,
    /// One lane for each, in this order.
    pub devices: Vec<DeviceTrack>,
    /// What happened, in any order.
    pub marks: Vec<Mark>,
}

/// The words above the picture. What is not known is left out of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Title {
    /// The run's number in its store.
    pub run_id: Option<i64>,
    /// The run's name, or what the window is called.
    pub name: String,
    /// The configured engine.
    pub engine: Option<String>,
    /// The model it serves.
    pub model: Option<String>,
    /// The machine.
    pub host: Option<String>,
    /// When the run began, ns since the Unix epoch: the zero of elapsed times.
    pub started_ns: Option<i64>,
    /// How the run ended, as in `runs.outcome`.
    pub outcome: Option<String>,
}

/// What is known of one device in the window.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DeviceTrack {
    /// The UUID.
    pub uuid: String,
    /// The product name.
    pub name: Option<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// Physical memory, bytes.
    pub capacity_bytes: Option<u64>,
    /// What the driver keeps for itself, bytes.
    pub reserved_bytes: Option<u64>,
    /// Readings of the whole device, ascending in time; of a long window those that a picture shows.
    pub samples: Vec<Sample>,
    /// Readings of its processes.
    pub owners: Vec<Owner>,
    /// Share of time in which kernels ran, ascending in time; of a long window those that a picture shows.
    pub busy: Vec<Busy>,
    /// Mean of all readings of that share; `None` for that of `busy`.
    pub mean_busy_ratio: Option<f64>,
    /// What its time went to, as far as processes were traced: stretches, ascending and equally long. Where one is
    /// missing, nothing was recorded.
    pub gpu_time: Vec<GpuTime>,
    /// What allocators hold and do not use, by level and source.
    pub allocators: Vec<Allocator>,
    /// Where samples are missing, ascending; nothing is drawn there.
    pub gaps: Vec<Span>,
    /// The highest reading of the window, from raw values.
    pub peak: Option<Peak>,
    /// The lines of rules, as uses of this device.
    pub lines: Vec<Line>,
}

/// One reading of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// Memory in use, bytes; `None` when the driver did not say.
    pub used_bytes: Option<u64>,
}

/// One reading of how busy a device was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busy {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// Share of time, 0..1; `None` when the driver did not say.
    pub ratio: Option<f64>,
}

/// A process, or several taken together, and what they held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who.
    pub name: OwnerName,
    /// Readings, ascending in time. A value holds until the next one; `None` ends it.
    pub samples: Vec<Sample>,
}

/// Who holds memory. Ordered by name, then by process id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerName {
    /// One process.
    Process {
        /// Its name, when it was known.
        name: Option<String>,
        /// Its process id.
        pid: u32,
    },
    /// All processes that belong to no run or to another one.
    OtherProcesses,
}

/// The highest reading of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// When it was first reached, ns since the Unix epoch.
    pub at_ns: i64,
    /// Memory in use then, bytes.
    pub used_bytes: u64,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start, ns since the Unix epoch.
    pub from_ns: i64,
    /// Its end, ns since the Unix epoch.
    pub to_ns: i64,
}

/// A rule's thresholds, as memory in use on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The rule.
    pub rule: String,
    /// Use at which it takes effect, bytes.
    pub enter_bytes: u64,
    /// Use below which it may be taken back, bytes.
    pub exit_bytes: Option<u64>,
    /// The same as the user wrote it, when that was a ratio of the usable memory.
    pub enter_ratio: Option<f64>,
    /// The same as the user wrote it, when that was a ratio of the usable memory.
    pub exit_ratio: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, ns since the Unix epoch.
    pub at_ns: i64,
    /// What kind of thing.
    pub kind: MarkKind,
    /// The device it belongs to, by UUID.
    pub device: Option<String>,
    /// One line for people.
    pub label: String,
    /// More about it; may be empty.
    pub detail: String,
}

/// Kinds of marks; each has its own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkKind {
    /// A rung was taken and helped.
    Kept,
    /// A rung was given back.
    Released,
    /// A rung was taken; whether it helps is not known yet.
    Applied,
    /// A change did not help and was taken back.
    RolledBack,
    /// The engine did not recover from a change.
    Failed,
    /// A change was not safe or not possible.
    Refused,
    /// A change was only proposed, or only noted.
    Proposed,
    /// The engine's process was started again.
    Restart,
    /// A process ran out of device memory.
    OutOfMemory,
    /// The driver reported an Xid error.
    Xid,
    /// The device lowered its clocks.
    Throttle,
    /// A person changed the configuration.
    HumanEdit,
    /// A process appeared.
    ProcessStart,
    /// A process is gone.
    ProcessExit,
    /// Samples are missing.
    SamplingGap,
    /// The device or its driver stopped answering.
    DeviceLost,
    /// The device or its driver answers again.
    DeviceBack,
    /// Anything else.
    Note,
}

impl MarkKind {
    /// Its word in the picture's metadata.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Released => "released",
            Self::Applied => "applied",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Proposed => "proposed",
            Self::Restart => "restart",
            Self::OutOfMemory => "out_of_memory",
            Self::Xid => "xid",
            Self::Throttle => "throttle",
            Self::HumanEdit => "human_edit",
            Self::ProcessStart => "process_start",
            Self::ProcessExit => "process_exit",
            Self::SamplingGap => "sampling_gap",
            Self::DeviceLost => "device_lost",
            Self::DeviceBack => "device_back",
            Self::Note => "note",
        }
    }
}

impl Busy {
    /// The share in thousandths, as it is drawn.
    pub(crate) fn thousandths(&self) -> Option<u64> {
        thousandths(self.ratio)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1000"
)]
fn thousandths(ratio: Option<f64>) -> Option<u64> {
    let ratio = ratio.filter(|ratio| ratio.is_finite())?;
    Some((ratio * 1000.0).round().clamp(0.0, 1000.0) as u64)
}

impl DeviceTrack {
    /// Memory that processes can have: capacity less reserved, with reserved taken as 0 when it is unknown.
    #[must_use]
    pub fn usable_bytes(&self) -> Option<u64> {
        self.capacity_bytes?.checked_sub(self.reserved_bytes.unwrap_or(0))
    }
}

/// Characters of a UUID that tell the devices of a host apart, as a rule.
pub(crate) const SHORT_UUID: usize = 12;

/// "GPU-5a1e2c9d": the devices by their UUIDs, as `nvidia-smi -L` tells them. Their numbers there are not known, and
/// change.
pub(crate) fn device_names(devices: &[DeviceTrack]) -> Vec<&str> {
    let uuids: Vec<&str> = devices.iter().map(|device| device.uuid.as_str()).collect();
    crate::text::told_apart(&uuids, SHORT_UUID)
}

impl Timeline {
    /// One sentence that says how it went, such as
    /// `peak 22.1 of 23.5 GiB at 00:17, 2 tuner actions kept, 0 out of memory`.
    #[must_use]
    pub fn verdict(&self, zone: &jiff::tz::TimeZone) -> String {
        verdict::sentence(self, &crate::instant::Clock::of(self, zone))
    }
}
