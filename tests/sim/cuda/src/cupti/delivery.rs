//! How buffers come and go: asked for on the application's thread, given back by CUPTI's own thread once they are full and
//! complete, or by whoever flushes.
#![expect(
    unsafe_code,
    reason = "a client's callbacks are called, and its buffers read before they go back"
)]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::cupti::activity;
use crate::cupti::crash;
use crate::cupti::lane::{self, Buffer};
use crate::cupti::rival;
use crate::record;
use crate::release::kind;
use crate::settings;

/// `CUpti_BuffersCallbackRequestFunc`.
pub(crate) type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
/// `CUpti_BuffersCallbackCompleteFunc`.
pub(crate) type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

static CALLBACKS: Mutex<Option<(Requested, Completed)>> = Mutex::new(None);
static RETIRED: Mutex<VecDeque<Buffer>> = Mutex::new(VecDeque::new());
static SOMETHING_RETIRED: Condvar = Condvar::new();
/// Held while buffers are given back, so that a flush ends after everything that it is about is given back.
static DELIVERING: Mutex<()> = Mutex::new(());
static FLUSHES: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last caller wins, also over buffers that are on their way.
pub(crate) fn register(requested: Requested, completed: Completed) {
    *lock(&CALLBACKS) = Some((requested, completed));
}

pub(crate) fn unregister() {
    *lock(&CALLBACKS) = None;
}

/// Asks the client for a buffer.
pub(crate) fn request() -> Option<Buffer> {
    let (requested, _) = (*lock(&CALLBACKS))?;
    let (mut memory, mut size, mut most_records) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the client registered this function for this use; all three places are writable.
    unsafe { requested(&raw mut memory, &raw mut size, &raw mut most_records) };
    if memory.is_null() && settings::get().faults.refusal_crashes {
        crash();
    }
    let buffer = Buffer::new(memory, size, most_records)?;
    if !activity::buffers_are_zeroed() {
        // SAFETY: the client says that the memory is `size` bytes long.
        unsafe { memory.write_bytes(0, size) };
    }
    Some(buffer)
}

/// Takes a full buffer, to give it back once all in it is complete.
pub(crate) fn retire(buffer: Buffer) {
    static WORKER: Once = Once::new();
    lock(&RETIRED).push_back(buffer);
    WORKER.call_once(|| {
        let thread = std::thread::Builder::new().name("cupti".to_owned());
        // Without it full buffers wait for a flush.
        let _started = thread.spawn(work);
    });
    SOMETHING_RETIRED.notify_one();
}

/// CUPTI's own thread.
fn work() {
    loop {
        let mut retired = lock(&RETIRED);
        loop {
            let now = clock::now();
            let due = retired.iter().map(|buffer| buffer.complete_at).min();
            retired = match due {
                Some(due) if due <= now => break,
                Some(due) => {
                    let wait = Duration::from_nanos(due - now);
                    let waited = SOMETHING_RETIRED.wait_timeout(retired, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => SOMETHING_RETIRED
                    .wait(retired)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        drop(retired);
        let _delivering = lock(&DELIVERING);
        give_back_retired(false);
    }
}

/// `cuptiActivityFlushAll`: gives back each buffer in which all is complete, full or not; if `forced`, all buffers, and what
/// is not complete in them has no end.
pub(crate) fn flush(forced: bool) {
    let faults = &settings::get().faults;
    std::thread::sleep(faults.slow_flush);
    let began = clock::now();
    let flushes = FLUSHES.fetch_add(1, AcqRel) + 1;
    if faults.displaced_after == Some(flushes) {
        rival::register();
    }
    if let Some((_, by_ns)) = faults.clock_step.filter(|(after, _)| *after == flushes) {
        clock::step(by_ns);
    }
    let delivering = lock(&DELIVERING);
    give_back_retired(forced);
    let lanes = lane::all().clone();
    for lane in lanes {
        let now = clock::now();
        let wanted = |buffer: &Buffer| forced || (buffer.used > 0 && buffer.complete_at <= now);
        if let Some(buffer) = lane.take_if(wanted) {
            give_back(buffer);
        }
    }
    drop(delivering);
    if activity::is_enabled(kind::OVERHEAD) {
        let ended = clock::now();
        let overhead = record::flush_overhead(clock::shown(began), clock::shown(ended));
        lane::write(&overhead, ended);
    }
}

fn give_back_retired(forced: bool) {
    loop {
        let mut retired = lock(&RETIRED);
        let now = clock::now();
        let next = retired
            .iter()
            .position(|buffer| forced || buffer.complete_at <= now);
        let Some(buffer) = next.and_then(|place| retired.remove(place)) else {
            return;
        };
        drop(retired);
        give_back(buffer);
    }
}

fn give_back(buffer: Buffer) {
    let Some((_, completed)) = *lock(&CALLBACKS) else {
        return;
    };
    let now = clock::now();
    // SAFETY: the client handed out `size` bytes, of which `used` were written, and touches none until it has them back.
    let records = unsafe { std::slice::from_raw_parts_mut(buffer.memory, buffer.used) };
    if buffer.complete_at > now {
        cut_short(records, clock::shown(now));
    }
    let valid = damage(records);
    // SAFETY: the client registered this function for this use, and the buffer is its own.
    unsafe { completed(std::ptr::null_mut(), 0, buffer.memory, buffer.size, valid) };
}

/// What has not ended has no end, and what has not begun no start.
fn cut_short(records: &mut [u8], now: u64) {
    for (at, _) in offsets(records) {
        let record = &mut records[at..];
        let Some(end_at) = record::end_offset(kind_of(record)) else {
            continue;
        };
        for at in [end_at, end_at - 8] {
            let Some(time) = record.get_mut(at..at + 8) else {
                continue;
            };
            if word(time) > now {
                time.fill(0);
            }
        }
    }
}

/// Applies the faults of buffers. Returns how many bytes are said to be valid.
fn damage(records: &mut [u8]) -> usize {
    let faults = &settings::get().faults;
    let last = offsets(records).last().copied();
    match last {
        Some((at, size)) if faults.bad_record_length => at + size / 2,
        Some((at, _)) if faults.garbage_record => {
            records[at..at + 4].copy_from_slice(&0xBAD_C0DE_u32.to_le_bytes());
            records.len()
        }
        _ => records.len(),
    }
}

/// Where each record begins, and its size.
fn offsets(records: &[u8]) -> Vec<(usize, usize)> {
    let sizes = &settings::get().sizes;
    let mut at = 0;
    let mut found = Vec::new();
    while at + 4 <= records.len() {
        let size = sizes.get(kind_of(&records[at..]));
        if size == 0 {
            break;
        }
        found.push((at, size));
        at += size;
    }
    found
}

fn kind_of(record: &[u8]) -> u32 {
    record.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
