//! What CUPTI calls on the program's threads. Each does the least: it moves a buffer or a row of words, with no lock, no
//! allocation and no system call but the thread's clock and, when buffers pile up, one that wakes the agent's thread.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Thread;

use cupti_sys::constant::{driver_call, site};
use cupti_sys::{CallbackData, Functions};
use plimsoll_trace::wire::LossReason;

use crate::buffers::{Buffers, Owner};
use crate::calls::{ALLOCATION_CALLS, LAUNCH_CALLS, has_succeeded, numbers};
use crate::losses::Losses;
use crate::queue::Queue;
use crate::virtual_memory::Call;
use crate::{clock, exit};

/// So many full buffers wake the agent's thread before its time.
const WAKING: usize = 4;
/// So many calls in the queue do so too.
const WAKING_CALLS: usize = CALLS / 2;
const CALLS: usize = 1 << 12;
/// A kernel's record: what a buffer that is thrown away holds is counted in these.
const RECORD_BYTES: usize = 208;

/// What the hooks and the agent's thread share.
#[derive(Debug)]
pub(crate) struct Hooked {
    pub(crate) functions: Functions,
    pub(crate) buffers: Buffers,
    /// Calls of virtual memory: when, which, and its numbers.
    pub(crate) calls: Queue<5>,
    pub(crate) losses: Losses,
    /// Processor time spent in the hooks.
    pub(crate) hooks_ns: AtomicU64,
    /// Calls that must leave records, while they are watched.
    pub(crate) watched: AtomicU64,
    /// Buffers that somebody else handed out.
    pub(crate) foreign: AtomicU64,
    pub(crate) thread: OnceLock<Thread>,
}

static HOOKED: OnceLock<Hooked> = OnceLock::new();

impl Hooked {
    pub(crate) fn new(functions: Functions, buffers: Buffers) -> Self {
        Self {
            functions,
            buffers,
            calls: Queue::new(CALLS),
            losses: Losses::new(),
            hooks_ns: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            thread: OnceLock::new(),
        }
    }

    fn wake_if_piled_up(&self) {
        if self.is_piled_up() {
            self.thread.get().inspect(|thread| thread.unpark());
        }
    }

    /// Makes it what the hooks find; there is one in a process.
    pub(crate) fn publish(self) -> &'static Self {
        HOOKED.get_or_init(|| self)
    }

    /// Whether more waits for the agent's thread than should wait for its next flush.
    pub(crate) fn is_piled_up(&self) -> bool {
        self.buffers.waiting() >= WAKING || self.calls.waiting() >= WAKING_CALLS
    }

    /// The next call of virtual memory and when it was, CLOCK_MONOTONIC.
    pub(crate) fn next_call(&self) -> Option<(u64, Call)> {
        let [at_ns, call, a, b, c] = self.calls.pop()?;
        let call = match u32::try_from(call).ok()? {
            driver_call::MEM_ADDRESS_RESERVE => Call::Reserve { address: a, bytes: b },
            driver_call::MEM_ADDRESS_FREE => Call::Free { address: a },
            driver_call::MEM_CREATE => Call::Create {
                handle: a,
                bytes: b,
                device: u32::try_from(c).unwrap_or(0),
            },
            driver_call::MEM_RELEASE => Call::Release { handle: a },
            driver_call::MEM_MAP => Call::Map {
                address: a,
                bytes: b,
                handle: c,
            },
            _ => Call::Unmap { address: a, bytes: b },
        };
        Some((at_ns, call))
    }
}

/// Runs a hook: it finds what it shares, its processor time is counted, and no panic leaves it. (Time that passes would count
/// what other programs do on a busy machine.)
fn hook(work: impl FnOnce(&'static Hooked)) {
    let Some(hooked) = HOOKED.get() else { return };
    let began = clock::thread();
    // A hook that panicked did nothing; that is seen as a loss later.
    let _caught = catch_unwind(AssertUnwindSafe(|| work(hooked)));
    let spent = clock::thread().saturating_sub(began);
    hooked.hooks_ns.fetch_add(spent, Relaxed);
}

/// CUPTI needs a buffer.
pub(crate) extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    hook(|hooked| {
        let (start, bytes) = hooked.buffers.take();
        // SAFETY: CUPTI passes three places to write to.
        unsafe {
            *buffer = start;
            *size = bytes;
            *max_records = 0;
        }
    });
}

/// CUPTI brings a buffer back.
pub(crate) extern "C" fn complete(
    context: *mut c_void,
    stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    hook(|hooked| {
        match hooked.buffers.complete(buffer, valid) {
            Owner::Ours => hooked.wake_if_piled_up(),
            Owner::Discarded => {
                let records = (valid / RECORD_BYTES).max(1);
                hooked.losses.add(LossReason::NoBuffer, records as u64);
            }
            Owner::Foreign => {
                hooked.foreign.fetch_add(1, Relaxed);
            }
        }
        if exit::is_over() {
            return;
        }
        // SAFETY: the context is the one that CUPTI is calling about, so it is live.
        if let Ok(dropped) = unsafe { hooked.functions.dropped_records(context, stream) } {
            hooked.losses.add(LossReason::DroppedByCupti, dropped);
        }
    });
}

/// The program made a call that is observed.
pub(crate) extern "C" fn on_call(_user: *mut c_void, _domain: u32, call: u32, data: *const CallbackData) {
    // SAFETY: CUPTI passes its data, which live for the length of this call.
    let Some(data) = (unsafe { data.as_ref() }) else {
        return;
    };
    if LAUNCH_CALLS.contains(&call) {
        // Too many to look at the clock for each.
        if let Some(hooked) = HOOKED.get().filter(|_| data.site == site::ENTER) {
            hooked.watched.fetch_add(1, Relaxed);
        }
        return;
    }
    if ALLOCATION_CALLS.contains(&call) {
        // SAFETY: the data are those of a call of the driver's.
        if let Some(hooked) = HOOKED.get().filter(|_| unsafe { has_succeeded(data) }) {
            hooked.watched.fetch_add(1, Relaxed);
        }
        return;
    }
    hook(|hooked| {
        // SAFETY: the data are those of a call of this number.
        let Some([a, b, c]) = (unsafe { numbers(call, data) }) else {
            return;
        };
        if !hooked.calls.push([clock::monotonic(), call.into(), a, b, c]) {
            hooked.losses.lose_call();
        }
        hooked.wake_if_piled_up();
    });
}
