//! Things that happened, and things that were lost.

use std::borrow::Cow;

use serde_json::Value;

use crate::{DeviceId, RunId};

words! {
    /// What happened (`events.kind`). The list may grow; a word never changes its meaning.
    pub enum EventKind {
        /// A process of a run appeared.
        ProcessStart = "process_start",
        /// A process of a run is gone.
        ProcessExit = "process_exit",
        /// The engine answers its health check.
        EngineReady = "engine_ready",
        /// The engine stopped answering its health check.
        EngineUnhealthy = "engine_unhealthy",
        /// A process ran out of device memory.
        OutOfMemory = "out_of_memory",
        /// The driver reported an Xid error; its number is in `detail`.
        Xid = "xid",
        /// The device lowered its clocks.
        Throttle = "throttle",
        /// A device stopped answering or fell off the bus.
        DeviceLost = "device_lost",
        /// A lost device answers again.
        DeviceBack = "device_back",
        /// There is no usable driver.
        DriverMissing = "driver_missing",
        /// The driver answers again.
        DriverBack = "driver_back",
        /// Somebody else changed an engine's configuration file.
        HumanEdit = "human_edit",
        /// A configuration was read again and is in force.
        ConfigReloaded = "config_reloaded",
        /// A changed configuration was not valid; the former one stays in force.
        ConfigRejected = "config_rejected",
        /// The configuration names another file for an engine; the former one still holds what Plimsoll set.
        EngineFileLeft = "engine_file_left",
        /// Samples are missing for a while.
        SamplingGap = "sampling_gap",
        /// A change was taken back, and its rule rests for a while.
        RolledBack = "rolled_back",
        /// A rule failed again and again, and is not tried for a long while.
        Quarantine = "quarantine",
        /// A person suspended all acting.
        Paused = "paused",
        /// A person let rules act again; `detail` says which, if not all.
        Resumed = "resumed",
        /// An agent in an engine process began to report.
        AgentAttached = "agent_attached",
        /// Another profiler took the agent's place.
        AgentDisplaced = "agent_displaced",
        /// An agent records less than it was asked to, or nothing, and says why.
        AgentDegraded = "agent_degraded",
    }
}

/// Something that happened at the instant of its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The run it belongs to, if any.
    pub run: Option<RunId>,
    /// The device it belongs to, if any.
    pub device: Option<DeviceId>,
    /// What kind of thing happened.
    pub kind: EventKind,
    /// One sentence for people.
    pub message: String,
    /// The figures behind the sentence, as a JSON object; `Null` when there are none.
    pub detail: Value,
}

impl Event {
    /// An event of the host or the daemon itself.
    pub fn new(kind: EventKind, message: impl Into<String>) -> Self {
        Self {
            run: None,
            device: None,
            kind,
            message: message.into(),
            detail: Value::Null,
        }
    }

    /// The same event with figures.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// The same event, belonging to a device.
    #[must_use]
    pub fn on_device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// The same event, belonging to a run.
    #[must_use]
    pub fn in_run(mut self, run: Option<RunId>) -> Self {
        self.run = run;
        self
    }
}

/// Something that should have been recorded and was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose it was, when that is known.
    pub run: Option<RunId>,
    /// Who lost it, such as `nvml` or `store`.
    pub source: Cow<'static, str>,
    /// Why, as a short stable word, such as `queue_full` or `device_hung`.
    pub reason: Cow<'static, str>,
    /// How many records or calls since the last such row.
    pub count: u64,
}

impl Loss {
    /// A loss of `count` records.
    pub fn new(source: &'static str, reason: impl Into<Cow<'static, str>>, count: u64) -> Self {
        Self {
            run: None,
            source: Cow::Borrowed(source),
            reason: reason.into(),
            count,
        }
    }

    /// The same loss, belonging to a run.
    #[must_use]
    pub const fn in_run(mut self, run: Option<RunId>) -> Self {
        self.run = run;
        self
    }
}
