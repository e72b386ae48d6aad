//! The end of the process, and its children.
//!
//! At exit, records that are still in CUPTI's buffers are brought in: the agent's thread does it, and the exiting thread
//! waits for it, but not for long. After a fork the child has no agent: it holds nothing open and does nothing at exit.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::clock;
use crate::descriptor;

/// This process is the child of the agent's.
static IS_CHILD: AtomicBool = AtomicBool::new(false);
/// Until when the exiting thread waits, CLOCK_MONOTONIC; 0 while the process does not end.
static WAITS_UNTIL: AtomicU64 = AtomicU64::new(0);
/// The exiting thread waits no more: what CUPTI and the driver have is being taken down.
static IS_OVER: AtomicBool = AtomicBool::new(false);
static AGENT: OnceLock<(Thread, Duration)> = OnceLock::new();
static IS_DONE: Mutex<bool> = Mutex::new(false);
static DONE: Condvar = Condvar::new();

/// From here on the end of the process is noticed. `thread` is the agent's; the exiting thread waits for it no longer than
/// `patience`.
pub(crate) fn attend(thread: Thread, patience: Duration) {
    if AGENT.set((thread, patience)).is_err() {
        return;
    }
    // SAFETY: registers functions of this library, which stays loaded. Without room for one more, what is not flushed at
    // exit is lost, and a child leaves the parent's descriptors open until it calls exec.
    unsafe {
        libc::atexit(at_exit);
        libc::pthread_atfork(None, None, Some(in_child));
    }
}

/// Whether the process is about to end.
pub(crate) fn is_ending() -> bool {
    waits_until() != 0
}

/// Until when the exiting thread waits, CLOCK_MONOTONIC; 0 while the process does not end.
pub(crate) fn waits_until() -> u64 {
    WAITS_UNTIL.load(Acquire)
}

/// Whether the exiting thread has waited long enough. From here on CUPTI is not called any more.
pub(crate) fn is_over() -> bool {
    IS_OVER.load(Acquire)
}

/// All is written: the process may end.
pub(crate) fn done() {
    *IS_DONE.lock().unwrap_or_else(PoisonError::into_inner) = true;
    DONE.notify_all();
}

extern "C" fn at_exit() {
    let Some((thread, patience)) = AGENT.get().filter(|_| !IS_CHILD.load(Acquire)) else {
        return;
    };
    let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    WAITS_UNTIL.store(clock::monotonic().saturating_add(patience_ns), Release);
    thread.unpark();
    let done = IS_DONE.lock().unwrap_or_else(PoisonError::into_inner);
    drop(DONE.wait_timeout_while(done, *patience, |done| !*done));
    IS_OVER.store(true, Release);
}

/// Only what may be done between fork and exec.
extern "C" fn in_child() {
    IS_CHILD.store(true, Release);
    descriptor::close_all();
}
