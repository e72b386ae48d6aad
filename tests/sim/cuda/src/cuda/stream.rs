//! Streams. Each does one thing after the other in real time; when a thing is put in, it is known when it will be done.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use crate::clock;
use crate::cuda::{code, device};
use crate::cupti::{activity, lane};
use crate::record::{self, Ran, Record};
use crate::release::kind;

/// How far the host may be ahead of a stream; a real one takes about 1000 launches before it makes the host wait.
const BACKLOG_NS: u64 = 50_000_000;

const STREAMS: usize = 4096;
/// CUPTI's number of the stream that is there from the start.
const DEFAULT_STREAM: u32 = 7;
/// Handles 1 and 2 are names of default streams; those of other streams begin here.
const FIRST_STREAM: usize = 16;

/// When each stream will be done, ns.
static STREAM_ENDS: [AtomicU64; STREAMS] = [const { AtomicU64::new(0) }; STREAMS];
static NEXT_STREAM: AtomicU32 = AtomicU32::new(16);

/// A stream by its handle, and its number.
fn stream(handle: usize) -> Result<(&'static AtomicU64, u32), u32> {
    let number = if handle < FIRST_STREAM {
        DEFAULT_STREAM as usize
    } else {
        handle
    };
    let ends = STREAM_ENDS.get(number).ok_or(code::INVALID_HANDLE)?;
    Ok((ends, u32::try_from(number).unwrap_or(0)))
}

pub(crate) fn create() -> Result<usize, u32> {
    let handle = NEXT_STREAM.fetch_add(1, Relaxed) as usize;
    if handle < STREAMS {
        Ok(handle)
    } else {
        Err(code::OUT_OF_MEMORY)
    }
}

/// Puts something in that takes so long.
#[inline]
pub(crate) fn enqueue(handle: usize, correlation: u32, duration_ns: u64) -> Result<Ran, u32> {
    let (ends, stream) = stream(handle)?;
    let now = clock::now();
    let begin = |end: u64| end.max(now);
    let before = ends
        .fetch_update(Relaxed, Relaxed, |end| Some(begin(end) + duration_ns))
        .unwrap_or(0);
    let start = begin(before);
    let ahead = start - now;
    if ahead > BACKLOG_NS {
        std::thread::sleep(Duration::from_nanos(ahead - BACKLOG_NS));
    }
    Ok(Ran {
        device: device::current(),
        stream,
        correlation,
        start,
        end: start + duration_ns,
    })
}

/// Waits until a stream is done, or all.
pub(crate) fn synchronize(handle: Option<usize>, correlation: u32) -> Result<(), u32> {
    let (end, stream) = match handle {
        Some(handle) => {
            let (ends, stream) = stream(handle)?;
            (ends.load(Relaxed), stream)
        }
        None => {
            let last = STREAM_ENDS.iter().map(|end| end.load(Relaxed)).max();
            (last.unwrap_or(0), 0)
        }
    };
    let start = clock::now();
    if end > start {
        std::thread::sleep(Duration::from_nanos(end - start));
    }
    if activity::is_enabled(kind::SYNCHRONIZATION) {
        let ran = Ran {
            device: device::current(),
            stream,
            correlation,
            start,
            end: clock::now().max(start),
        };
        lane::write(
            &record::synchronization(if handle.is_some() { 3 } else { 4 }, ran.shown()),
            ran.end,
        );
    }
    Ok(())
}

/// Waits for a stream as a blocking call does inside, without a record.
pub(crate) fn wait(handle: usize) -> Result<(), u32> {
    let (ends, _) = stream(handle)?;
    let ahead = ends.load(Relaxed).saturating_sub(clock::now());
    if ahead > 0 {
        std::thread::sleep(Duration::from_nanos(ahead));
    }
    Ok(())
}

/// Puts in something of a kind that is not a kernel.
pub(crate) fn run(
    handle: usize,
    correlation: u32,
    duration_ns: u64,
    kind: u32,
    record: impl FnOnce(Ran) -> Record,
) -> Result<(), u32> {
    let ran = enqueue(handle, correlation, duration_ns)?;
    if activity::is_enabled(kind) {
        lane::write(&record(ran.shown()), ran.end);
    }
    Ok(())
}
