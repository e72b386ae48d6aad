//! Which processes belong to an engine, and how they end.
//!
//! A thread of its own looks through `/proc` at most once a second, and sleeps on a pidfd of every engine's root, so
//! that the end of a root is told at once. Matching and selecting are pure ([`snapshot`]); reading is not.

mod engine;
mod exit;
mod list;
mod matcher;
mod pid_file;
mod ports;
mod snapshot;
mod systemd;
mod table;
mod watcher;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use plimsoll_trace::Stamp;

use crate::Collector;
use crate::pace::Pace;
use watcher::{Orders, Watcher};

pub use exit::Lookout;
pub use matcher::{Match, MatchError, Pattern, Watch};
pub use table::{EngineProcesses, Exit, ExitHint, ProcessId, ProcessTable};

/// Where process tables go. Called from the collector's own thread.
pub type DeliverTable = Arc<dyn Fn(ProcessTable) + Send + Sync>;

/// Finds the processes of engines. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Processes {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
    pace: Pace,
}

impl Processes {
    /// Starts the thread `plimsoll-procs`. It delivers a table for each scan, which is for at most one tick a second,
    /// and one at once when a root ends.
    ///
    /// # Errors
    /// The operating system refuses another thread or file descriptor.
    pub fn spawn(watches: Vec<Watch>, deliver: DeliverTable) -> io::Result<Self> {
        let orders = Arc::new(Orders::new()?);
        let thread = std::thread::Builder::new()
            .name("plimsoll-procs".to_owned())
            .spawn({
                let orders = Arc::clone(&orders);
                move || Watcher::new(watches).run(&orders, &deliver)
            })?;
        Ok(Self {
            orders,
            thread: Some(thread),
            pace: Pace::default(),
        })
    }

    /// Looks for other engines from the next tick on. Engines whose watch stays the same keep their roots; nothing is
    /// told any more about those that are gone.
    pub fn set_watches(&mut self, watches: Vec<Watch>) {
        self.orders.give(|next| next.watches = Some(watches));
        self.pace.hurry();
    }
}

impl Collector for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn tick(&mut self, at: Stamp) {
        if self.pace.is_due(at) {
            self.orders.give(|next| next.scan = Some(at));
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.orders.give(|next| next.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the process watcher's thread ended by a panic");
        }
    }
}
