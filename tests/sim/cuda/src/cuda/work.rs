//! Streams, functions and graphs, and what the device does with them. A stream does one thing after the other in real time;
//! when a thing is put in, it is known when it will be done, and the record is written at once with both times.

use std::cell::Cell;
use std::ffi::CString;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::time::Duration;

use crate::clock;
use crate::cuda::{code, device};
use crate::cupti::{activity, lane};
use crate::fault::KernelFault;
use crate::record::{self, Ran, Record, Shape};
use crate::release::{FUTURE, kind};
use crate::settings;

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

pub(crate) fn create_stream() -> Result<usize, u32> {
    let handle = NEXT_STREAM.fetch_add(1, Relaxed) as usize;
    if handle < STREAMS {
        Ok(handle)
    } else {
        Err(code::OUT_OF_MEMORY)
    }
}

/// Puts something in that takes so long.
#[inline]
fn enqueue(handle: usize, correlation: u32, duration_ns: u64) -> Result<Ran, u32> {
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

thread_local! {
    /// Numbers of calls that this thread may still give.
    static CORRELATIONS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Numbers that a thread takes at once.
const CORRELATIONS_AT_ONCE: u32 = 1024;

/// The next call's number.
#[inline]
pub(crate) fn next_correlation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let next = || NEXT.fetch_add(CORRELATIONS_AT_ONCE, Relaxed);
    CORRELATIONS
        .try_with(|cell| {
            let (mut number, mut end) = cell.get();
            if number == end {
                number = next();
                end = number.wrapping_add(CORRELATIONS_AT_ONCE);
            }
            cell.set((number.wrapping_add(1), end));
            number
        })
        .unwrap_or_else(|_| next())
}

/// Things that are made once and never given back, each with a handle that is its place plus one.
struct Table<T, const ROOM: usize> {
    places: [AtomicPtr<T>; ROOM],
    taken: AtomicU32,
}

impl<T: Sync, const ROOM: usize> Table<T, ROOM> {
    const fn new() -> Self {
        Self {
            places: [const { AtomicPtr::new(std::ptr::null_mut()) }; ROOM],
            taken: AtomicU32::new(0),
        }
    }

    fn add(&self, thing: T) -> Result<usize, u32> {
        let place = self.taken.fetch_add(1, Relaxed) as usize;
        let cell = self.places.get(place).ok_or(code::OUT_OF_MEMORY)?;
        cell.store(Box::into_raw(Box::new(thing)), Release);
        Ok(place + 1)
    }

    #[inline]
    #[expect(unsafe_code, reason = "what is in the table is never given back")]
    fn get(&self, handle: usize) -> Result<&'static T, u32> {
        let cell = self
            .places
            .get(handle.wrapping_sub(1))
            .ok_or(code::INVALID_HANDLE)?;
        // SAFETY: null, or made by `add` of a box that nobody frees, and published with Release.
        unsafe { cell.load(Acquire).as_ref() }.ok_or(code::INVALID_HANDLE)
    }
}

/// A kernel.
struct Function {
    name: CString,
    duration_ns: u64,
}

struct Graph {
    nodes: Vec<&'static Function>,
    duration_ns: u64,
}

static FUNCTIONS: Table<Function, 65_536> = Table::new();
static GRAPHS: Table<Graph, 4096> = Table::new();

/// How long kernels of this name take when nobody says otherwise: 1 to 16 us, by the name alone.
pub(crate) fn usual_duration_ns(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    1_000 + hash % 15_000
}

/// Makes a function of a name.
pub(crate) fn add_function(name: &[u8], duration_ns: u64) -> Result<usize, u32> {
    const HUGE: usize = 64 << 10;
    let faults = &settings::get().faults;
    let mut shown = name.to_vec();
    if faults.non_utf8_names {
        shown.push(0xFF);
    }
    if faults.huge_names && shown.len() < HUGE {
        shown.resize(HUGE, b'_');
    }
    let name = CString::new(shown).map_err(|_| code::INVALID_VALUE)?;
    FUNCTIONS.add(Function { name, duration_ns })
}

/// Makes a graph that launches these functions one after the other.
pub(crate) fn add_graph(nodes: &[usize]) -> Result<usize, u32> {
    let nodes = nodes.iter().map(|node| FUNCTIONS.get(*node));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    GRAPHS.add(Graph {
        duration_ns: nodes.iter().map(|function| function.duration_ns).sum(),
        nodes,
    })
}

#[inline]
pub(crate) fn launch(function: usize, shape: &Shape, stream: usize, correlation: u32) -> Result<(), u32> {
    let function = FUNCTIONS.get(function)?;
    let ran = enqueue(stream, correlation, function.duration_ns)?;
    write_kernel(ran, shape, function, None);
    Ok(())
}

pub(crate) fn launch_graph(handle: usize, stream: usize, correlation: u32) -> Result<(), u32> {
    const SHAPE: Shape = Shape {
        grid: [108, 1, 1],
        block: [256, 1, 1],
        shared_bytes: 0,
    };
    let graph = GRAPHS.get(handle)?;
    let id = u32::try_from(handle).unwrap_or(0);
    // The nodes follow each other without a gap: the host takes no part in it.
    let whole = enqueue(stream, correlation, graph.duration_ns)?;
    if activity::is_enabled(kind::GRAPH_TRACE) {
        write_faulty(whole, |ran| record::graph(ran, id));
    }
    if activity::graph_level() {
        return Ok(());
    }
    let mut start = whole.start;
    for (place, function) in graph.nodes.iter().enumerate() {
        let end = start + function.duration_ns;
        let node = (u64::from(id) << 32) | place as u64;
        write_kernel(Ran { start, end, ..whole }, &SHAPE, function, Some((id, node)));
        start = end;
    }
    Ok(())
}

#[inline]
fn write_kernel(ran: Ran, shape: &Shape, function: &Function, node: Option<(u32, u64)>) {
    let Some(kind) = activity::kernels() else { return };
    let name = function.name.as_ptr().expose_provenance() as u64;
    write_faulty(ran, |ran| record::kernel(kind, ran, shape, name, node));
    if settings::get().release == FUTURE && ran.correlation.is_multiple_of(8) {
        lane::write(&record::unheard_of(), ran.end);
    }
}

#[inline]
fn write_faulty(ran: Ran, record: impl FnOnce(Ran) -> Record) {
    let end = ran.end;
    let mut ran = ran.shown();
    let fault = settings::get().faults.of_kernels.as_ref();
    match fault.and_then(|faults| faults.next()) {
        Some(KernelFault::Dropped) => {
            lane::DROPPED.fetch_add(1, Relaxed);
            return;
        }
        Some(KernelFault::ZeroTimestamps) => (ran.start, ran.end) = (0, 0),
        Some(KernelFault::Inverted) => (ran.start, ran.end) = (ran.end + 1, ran.start),
        None => {}
    }
    lane::write(&record(ran), end);
}
