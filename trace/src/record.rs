//! Records and batches: the one currency of the pipeline.

use std::sync::Arc;

use crate::{
    ConfigChange, Decision, DeviceId, DeviceInfo, DeviceSample, EngineSample, Event, HostSample, Loss,
    ProcessSample, RunEnd, RunId, RunStart, Stamp, Traced, Work,
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
    /// Where a ladder stood before an evaluation, where its former evaluation does not say so.
    LadderMark(LadderMark),
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

words! {
    /// What a [`LadderMark`] says (`ladder_marks.kind`).
    pub enum MarkKind {
        /// The first evaluation of an engine by a daemon began with this state.
        Start = "start",
        /// Something besides evaluation changed the state, the rules or what belongs to the engine: an action ended, a
        /// person spoke, the configuration was edited. The evaluation of this instant began with this state.
        Change = "change",
        /// What the evaluation of this instant came to was given up, and this is the state instead.
        Instead = "instead",
        /// From this instant until the next mark the rules were not evaluated.
        Held = "held",
    }
}

/// Where a ladder stood. Between two marks its state follows from the rules and the samples alone, so that a recording
/// with marks can be replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct LadderMark {
    /// The engine's name in the configuration.
    pub engine: String,
    /// The evaluation that it speaks of, ns since the Unix epoch.
    pub at_ns: i64,
    /// What it says.
    pub kind: MarkKind,
    /// The SHA-256 of `rules`.
    pub rules_hash: String,
    /// The rules as the configuration had them, as JSON text.
    pub rules: Arc<str>,
    /// How long a value stood for the present, ns.
    pub max_age_ns: i64,
    /// The engine's run then.
    pub run: Option<RunId>,
    /// The devices that it ran on.
    pub devices: Vec<DeviceId>,
    /// The state of the ladder, as the tuner writes it.
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
