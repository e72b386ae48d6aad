//! Records and batches: the one currency of the pipeline.

use crate::{
    ConfigChange, Decision, DeviceInfo, DeviceSample, EngineSample, Event, HostSample, Loss, ProcessSample,
    RunEnd, RunStart, Stamp, Traced, Work,
};

/// Anything that is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A device was seen for the first time, or its driver changed.
    DeviceInfo(DeviceInfo),
    /// A reading of a device.
    Device(DeviceSample),
    /// A reading of a process on a device.
    Process(ProcessSample),
    /// A reading of the host.
    Host(HostSample),
    /// A value from an engine.
    Engine(EngineSample),
    /// GPU work of a process that carries the agent.
    Traced(Traced),
    /// Something that happened.
    Event(Event),
    /// Something that was lost.
    Loss(Loss),
    /// A run began.
    RunStart(RunStart),
    /// A run ended.
    RunEnd(RunEnd),
    /// A decision was made or went a step further.
    Decision(Decision),
    /// A file was or is about to be written.
    ConfigChange(ConfigChange),
    /// What the tuner must know after a restart.
    EngineMemo(EngineMemo),
}

impl Record {
    /// Whether this record may be dropped, and counted, when the store cannot keep up. Values can; what happened, what
    /// was decided and what was lost cannot.
    #[must_use]
    pub const fn is_droppable(&self) -> bool {
        matches!(
            self,
            Self::Host(_)
                | Self::Engine(_)
                | Self::Traced(Traced {
                    work: Work::Span(_) | Work::Signal { .. },
                    ..
                })
        )
    }

    /// Whether this record should reach the disk at once rather than with the next second's commit.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Event(_)
                | Self::RunStart(_)
                | Self::RunEnd(_)
                | Self::Decision(_)
                | Self::ConfigChange(_)
                | Self::EngineMemo(_)
        )
    }
}

/// What the tuner remembers about one engine across restarts of the daemon; private to it, replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineMemo {
    /// The engine's name in the configuration.
    pub engine: String,
    /// The tuner's own state as JSON text.
    pub state: String,
}

/// Records that were observed at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// When.
    pub at: Stamp,
    /// What, in the order it was observed.
    pub records: Vec<Record>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub const fn new(at: Stamp) -> Self {
        Self {
            at,
            records: Vec::new(),
        }
    }
}
