//! The thread: takes orders, scans, and sleeps on the roots' exit watches.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_trace::Stamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::DeliverTable;
use super::engine::{WatchedEngine, World};
use super::exit::ExitWatch;
use super::list::{Needs, ProcessList};
use super::matcher::Watch;
use super::ports::Ports;
use super::snapshot::Own;
use super::systemd::Systemd;
use super::table::{Exit, ProcessTable};
use crate::proc;

/// How long the thread pauses when it cannot even sleep.
const PAUSE: Duration = Duration::from_secs(1);

/// What the thread is to do next.
#[derive(Debug)]
pub(super) struct Orders {
    next: Mutex<Next>,
    /// Written to when something was put into `next`.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
pub(super) struct Next {
    /// A scan, with the stamp that its table carries. A tick that finds the thread busy replaces the one before:
    /// a table is a state, so none is lost by that.
    pub(super) scan: Option<Stamp>,
    pub(super) watches: Option<Vec<Watch>>,
    pub(super) stop: bool,
}

impl Orders {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            next: Mutex::default(),
            wake,
        })
    }

    /// Puts in an order and wakes the thread.
    pub(super) fn give(&self, order: impl FnOnce(&mut Next)) {
        order(&mut self.next.lock().unwrap_or_else(PoisonError::into_inner));
        // It fails only when 2^64 orders wait, and then the thread is awake.
        if let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "the process watcher is awake already");
        }
    }

    fn take(&self) -> Next {
        let mut count = [0; 8];
        match rustix::io::read(&self.wake, &mut count) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::debug!(%error, "the process watcher's wake-up cannot be read"),
        }
        std::mem::take(&mut self.next.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread's own state.
pub(super) struct Watcher {
    engines: Vec<WatchedEngine>,
    list: ProcessList,
    ports: Ports,
    own: Own,
    systemd: Option<Systemd>,
    /// Whether the last scan failed, so that a lasting failure is logged once.
    is_blind: bool,
}

impl Watcher {
    pub(super) fn new(watches: Vec<Watch>) -> Self {
        let own = Own {
            pid: std::process::id(),
            executable: proc::executable(std::process::id()).ok(),
        };
        let mut watcher = Self {
            engines: Vec::new(),
            list: ProcessList::default(),
            ports: Ports::default(),
            own,
            systemd: Systemd::find(),
            is_blind: false,
        };
        watcher.set_watches(watches);
        watcher
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self, orders: &Orders, deliver: &DeliverTable) {
        loop {
            let events = self.sleep(orders);
            let next = orders.take();
            if next.stop {
                return;
            }
            let systemd = self.systemd.as_ref();
            let ended = self.engines.iter_mut().zip(events);
            let mut exits: Vec<Exit> = ended
                .filter_map(|(engine, events)| engine.look(events, systemd))
                .collect();
            if let Some(watches) = next.watches {
                self.set_watches(watches);
            }
            let scanned = next.scan.filter(|at| self.scan(*at, &mut exits));
            if scanned.is_some() || !exits.is_empty() {
                let at = scanned.unwrap_or_else(Stamp::now);
                let engines = self.engines.iter().map(WatchedEngine::processes).collect();
                deliver(ProcessTable { at, engines, exits });
            }
        }
    }

    /// Sleeps until there is an order or a root ends; answers what is reported of each engine's root.
    fn sleep(&self, orders: &Orders) -> Vec<PollFlags> {
        let watches: Vec<_> = self
            .engines
            .iter()
            .map(|e| e.exit_watch().and_then(ExitWatch::poll))
            .collect();
        let mut fds = vec![PollFd::new(&orders.wake, PollFlags::IN)];
        fds.extend(
            watches
                .iter()
                .flatten()
                .map(|(pidfd, events)| PollFd::new(pidfd, *events)),
        );
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                // Such as want of memory. Without a pause it would be tried again as fast as it fails.
                tracing::warn!(%error, "the ends of engines' processes cannot be watched at the moment");
                std::thread::sleep(PAUSE);
            }
        }
        let mut reported = fds.iter().skip(1).map(PollFd::revents);
        watches
            .iter()
            .map(|watch| {
                watch
                    .as_ref()
                    .and_then(|_| reported.next())
                    .unwrap_or(PollFlags::empty())
            })
            .collect()
    }

    /// Whether it succeeded. If not, everything stays as it was: nobody is taken for dead.
    fn scan(&mut self, at: Stamp, exits: &mut Vec<Exit>) -> bool {
        if self.engines.is_empty() {
            // Nobody is looked for, which is known without looking.
            return true;
        }
        if let Err(error) = self.list.scan(at) {
            if !std::mem::replace(&mut self.is_blind, true) {
                tracing::warn!(%error, "/proc cannot be listed: engines' processes are unknown until it can");
            }
            return false;
        }
        self.is_blind = false;
        let snapshot = self.list.snapshot();
        let wanted = self
            .engines
            .iter()
            .filter_map(WatchedEngine::wanted_port)
            .collect();
        let world = World {
            at,
            snapshot,
            holders: &self.ports.holders(&wanted, snapshot, at),
            own: &self.own,
            systemd: self.systemd.as_ref(),
        };
        exits.extend(self.engines.iter_mut().filter_map(|engine| engine.update(world)));
        true
    }

    fn set_watches(&mut self, watches: Vec<Watch>) {
        self.list.set_needs(Needs::of(&watches));
        let mut former = std::mem::take(&mut self.engines);
        self.engines = watches
            .into_iter()
            .map(
                |watch| match former.iter().position(|engine| engine.watch == watch) {
                    Some(same) => former.swap_remove(same),
                    None => WatchedEngine::new(watch),
                },
            )
            .collect();
    }
}
