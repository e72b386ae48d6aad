//! The agents in engines' processes: connections are taken over from the daemon's socket, rings are read.
//!
//! One thread attends to all of them. It sleeps on their sockets, so that the end of a process is known at once, and
//! reads the rings about once a second. A ring is read only when it is known which run its process belongs to
//! ([`AgentDesk::bind`]), and only as fast as the store takes records: until then the ring itself keeps them.

mod accounts;
mod clock;
mod dictionary;
mod figures;
mod greeting;
mod holding;
mod memory;
mod orders;
mod peer;
mod quota;
mod receipts;
mod refused;
mod session;
mod sessions;
mod standing;
mod translate;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use plimsoll_trace::wire::{Process, Tell};
use plimsoll_trace::{Batch, RunId, Stamp};

use crate::Collector;
use crate::pace::Pace;
use crate::processes::{Lookout, ProcessId};
use orders::{Order, Orders};
use sessions::Sessions;

pub use peer::{Peer, Rights, has_place, lineage, peer_groups};
pub use standing::Standing;

/// The number of one agent's connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub u64);

/// What is told about agents.
#[derive(Debug)]
pub enum AgentReport {
    /// One connected. Its ring is read once it is bound to a run.
    Arrived(Arrival),
    /// One said who it is.
    Introduced {
        /// The run that it is bound to.
        run: RunId,
        /// What it said.
        process: Process,
    },
    /// How agents stand of which something is new.
    Standings(Vec<(AgentId, Standing)>),
    /// What agents told, with their runs filled in.
    Work(Batch),
    /// One hung up, and all that it ever wrote is delivered.
    Left(AgentId),
}

/// An agent that connected.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its connection.
    pub agent: AgentId,
    /// Its process, as the socket says.
    pub pid: Option<u32>,
    /// Its user, as the socket says.
    pub uid: u32,
    /// The process and its ancestors, nearest first; empty when it is gone already.
    pub lineage: Vec<ProcessId>,
    /// Which of them is the program that this process is a part of: the outermost one in line with the same executable.
    pub root: Option<ProcessId>,
    /// Tells when the root ends, and how.
    pub lookout: Option<Lookout>,
    /// The root's executable, when it may be known.
    pub executable: Option<String>,
    /// The root's command line.
    pub command: Option<String>,
}

/// Where reports go. Called from the thread, which waits until the report has been taken in. Says whether it was; after
/// one that was not, no ring is read any more.
pub type DeliverAgents = Arc<dyn Fn(AgentReport) -> bool + Send + Sync>;

/// How many records may be delivered now.
pub type Room = Arc<dyn Fn() -> usize + Send + Sync>;

/// How far the store has come, in deliveries since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many it has taken in.
    pub taken_in: u64,
    /// So many are durable, or counted as lost.
    pub stored: u64,
}

/// Asks how far the store has come.
pub type Stored = Arc<dyn Fn() -> Progress + Send + Sync>;

/// The agents' collector. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Agents {
    desk: AgentDesk,
    thread: Option<JoinHandle<()>>,
    /// Agents write once a second; looking more often finds nothing and costs a waking each time.
    pace: Pace,
}

/// Where connections and orders for the agents' collector are handed in, from anywhere.
#[derive(Clone, Debug)]
pub struct AgentDesk(Arc<Orders>);

impl Agents {
    /// Starts the thread `plimsoll-agents`.
    ///
    /// # Errors
    /// The operating system refuses another thread or file descriptor.
    pub fn spawn(deliver: DeliverAgents, room: Room, stored: Stored) -> io::Result<Self> {
        let desk = AgentDesk(Arc::new(Orders::new()?));
        let thread = std::thread::Builder::new()
            .name("plimsoll-agents".to_owned())
            .spawn({
                let orders = Arc::clone(&desk.0);
                move || Sessions::new(deliver, room, stored).run(&orders)
            })?;
        Ok(Self {
            desk,
            thread: Some(thread),
            pace: Pace::default(),
        })
    }

    /// Where connections are handed in.
    #[must_use]
    pub fn desk(&self) -> AgentDesk {
        self.desk.clone()
    }
}

impl AgentDesk {
    /// Takes over a connection whose first byte can begin an agent's hello. The first byte has not been taken off it.
    pub fn take(&self, stream: UnixStream, peer: Peer) {
        self.0.give(Order::Take(stream, peer));
    }

    /// Closes a connection of somebody who may not be an agent here, and counts it.
    pub fn refuse(&self, peer: Peer) {
        self.0.give(Order::Refuse(peer));
    }

    /// Says to which run an agent's records belong.
    pub fn bind(&self, agent: AgentId, run: RunId) {
        self.0.give(Order::Bind(agent, run));
    }

    /// Says something to agents. One that has hung up does not hear it.
    pub fn tell(&self, agents: Vec<AgentId>, tell: Tell) {
        self.0.give(Order::Tell(agents, tell));
    }

    /// Calls `done` once everything that agents have written by now is delivered. Agents that are not bound are waited
    /// for. With `last`, records whose names have not come are delivered without.
    pub fn flush(&self, last: bool, done: impl FnOnce() + Send + 'static) {
        self.0.give(Order::Flush {
            last,
            done: Box::new(done),
        });
    }
}

impl Collector for Agents {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn tick(&mut self, at: Stamp) {
        if self.pace.is_due(at) {
            self.desk.0.give(Order::Tick(at));
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.desk.0.give(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the agents' collector ended by a panic");
        }
    }
}
