//! What the agents' thread is told, on its way there.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use plimsoll_trace::wire::Tell;
use plimsoll_trace::{RunId, Stamp};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::AgentId;
use super::peer::Peer;

/// Orders that wait. Ticks and connections beyond are left out; a connection is closed by that.
const MOST_ORDERS: usize = 4_096;

/// What the thread is to do.
pub(super) enum Order {
    Take(UnixStream, Peer),
    Refuse(Peer),
    Bind(AgentId, RunId),
    Tell(Vec<AgentId>, Tell),
    Tick(Stamp),
    Flush {
        last: bool,
        done: Box<dyn FnOnce() + Send>,
    },
    Stop,
}

/// Orders on their way.
pub(super) struct Orders {
    next: Mutex<Vec<Order>>,
    /// Written to when something was put into `next`.
    wake: OwnedFd,
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
    pub(super) fn give(&self, order: Order) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let may_be_left_out = matches!(order, Order::Take(..) | Order::Refuse(_) | Order::Tick(_));
        if next.len() >= MOST_ORDERS && may_be_left_out {
            return;
        }
        next.push(order);
        drop(next);
        // It fails only when 2^64 orders wait, and then the thread is awake.
        if let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "the agents' thread is awake already");
        }
    }

    /// What can be waited on until something was put in.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// All that was put in.
    pub(super) fn take(&self) -> Vec<Order> {
        let mut count = [0; 8];
        match rustix::io::read(&self.wake, &mut count) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::debug!(%error, "the wake-up of the agents' thread cannot be read"),
        }
        std::mem::take(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}
