//! Collectors: the sources that Plimsoll samples, each on a thread of its own.
//!
//! A [`Collector`] is told the time and answers later, from its own thread, with a batch of records through its
//! [`Deliver`]. Nothing here knows an async runtime or a store, and nothing here decides.

mod agent;
mod host;
mod metrics;
mod nvml;
mod pace;
mod proc;
mod processes;

use std::sync::Arc;

use plimsoll_trace::{Batch, Stamp};

pub use agent::{
    AgentDesk, AgentId, AgentReport, Agents, Arrival, DeliverAgents, Peer, Progress, Rights, Room, Standing,
    Stored, has_place, lineage, peer_groups,
};
pub use host::Host;
pub use metrics::{
    DeliverMetrics, EngineMetrics, MetricName, MetricNameError, MetricsEndpoint, MetricsReport,
};
pub use nvml::{Card, Driver, Nvml, NvmlOptions, look};
pub use proc::{command_of, container_of};
pub use processes::{
    DeliverTable, EngineProcesses, Exit, ExitHint, Lookout, Match, MatchError, Pattern, ProcessId,
    ProcessTable, Processes, Watch,
};

/// Where a collector puts what it observed. Called from the collector's own threads; it must not block for long,
/// because the source is not sampled meanwhile.
pub type Deliver = Arc<dyn Fn(Batch) + Send + Sync>;

/// A source that is sampled when it is told to.
pub trait Collector: Send {
    /// The short name under which its losses and its cost are counted, such as `nvml`.
    fn name(&self) -> &'static str;

    /// Asks for a sample that will carry `at`. Never blocks: a source that is still busy with the former tick leaves
    /// this one out and counts it.
    fn tick(&mut self, at: Stamp);
}
