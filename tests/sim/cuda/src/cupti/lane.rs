//! Where records are written: one lane a thread, or one for all. A lane has the buffer that is being filled.
#![expect(
    unsafe_code,
    reason = "records are written into memory that a client handed out"
)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cupti::activity;
use crate::cupti::delivery;
use crate::record::{LONGEST, Record};
use crate::settings;

/// A buffer of a client with the records in it.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) memory: *mut u8,
    pub(crate) size: usize,
    pub(crate) used: usize,
    /// 0 for as many as fit.
    most_records: usize,
    records: usize,
    /// When the last of its records will be complete.
    pub(crate) complete_at: u64,
}

// SAFETY: the memory is the client's, who has handed it out and does not touch it before it is given back.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A buffer that a client handed out, if records can be written into it.
    pub(crate) fn new(memory: *mut u8, size: usize, most_records: usize) -> Option<Self> {
        let usable = !memory.is_null() && memory.addr().is_multiple_of(8) && size >= LONGEST;
        usable.then_some(Self {
            memory,
            size,
            used: 0,
            most_records,
            records: 0,
            complete_at: 0,
        })
    }

    fn has_room(&self, size: usize) -> bool {
        self.size - self.used >= size && (self.most_records == 0 || self.records < self.most_records)
    }

    fn push(&mut self, record: &Record, size: usize, complete_at: u64) {
        let bytes = &record.bytes()[..size];
        // SAFETY: `has_room` was asked, so the client's memory goes on for `size` bytes behind `used`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.add(self.used), size) };
        self.used += size;
        self.records += 1;
        self.complete_at = self.complete_at.max(complete_at);
    }
}

/// One writer's place. Its lock is held while a buffer is asked for, as CUPTI holds one of its own.
#[derive(Debug, Default)]
pub(crate) struct Lane(Mutex<Option<Buffer>>);

static LANES: Mutex<Vec<Arc<Lane>>> = Mutex::new(Vec::new());
static SHARED: OnceLock<Arc<Lane>> = OnceLock::new();
/// Records for which there was no buffer, since somebody last asked.
pub(crate) static DROPPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: OnceLock<Arc<Lane>> = const { OnceLock::new() };
}

/// Writes a record that is complete at an instant. Kinds that the release does not know are not written.
#[inline]
pub(crate) fn write(record: &Record, complete_at: u64) {
    let size = settings::get().sizes.get(record.kind());
    if size == 0 {
        return;
    }
    if activity::per_thread() {
        let own = OWN.try_with(|own| own.get_or_init(adopt).append(record, size, complete_at));
        // A thread whose end has begun has no place of its own any more.
        if own.is_ok() {
            return;
        }
    }
    SHARED.get_or_init(listed).append(record, size, complete_at);
}

/// The lane of a thread that has ended, or a new one.
fn adopt() -> Arc<Lane> {
    let lanes = all();
    let orphan = lanes.iter().find(|lane| Arc::strong_count(lane) == 1);
    let orphan = orphan.cloned();
    drop(lanes);
    orphan.unwrap_or_else(listed)
}

fn listed() -> Arc<Lane> {
    let lane = Arc::new(Lane::default());
    all().push(Arc::clone(&lane));
    lane
}

pub(crate) fn all() -> MutexGuard<'static, Vec<Arc<Lane>>> {
    LANES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Option<Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: &Record, size: usize, complete_at: u64) {
        let mut lane = self.lock();
        if !lane.as_ref().is_some_and(|buffer| buffer.has_room(size)) {
            if let Some(full) = lane.take() {
                delivery::retire(full);
            }
            *lane = delivery::request();
        }
        match lane.as_mut() {
            Some(buffer) => buffer.push(record, size, complete_at),
            None => {
                DROPPED.fetch_add(1, Relaxed);
            }
        }
    }

    /// Takes the buffer if `wanted` says so.
    pub(crate) fn take_if(&self, wanted: impl FnOnce(&Buffer) -> bool) -> Option<Buffer> {
        self.lock().take_if(|buffer| wanted(buffer))
    }
}
