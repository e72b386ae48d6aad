//! Functions and graphs, and what launching them leaves behind: a record that is written at once, with times to come.

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;

use crate::cuda::code;
use crate::cuda::stream::enqueue;
use crate::cuda::table::Table;
use crate::cupti::{activity, lane};
use crate::fault::KernelFault;
use crate::record::{self, Ran, Record, Shape};
use crate::release::{FUTURE, kind};
use crate::settings;

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
        Some(KernelFault::Endless) => ran.end = ran.start + (1 << 60),
        Some(KernelFault::Inverted) => (ran.start, ran.end) = (ran.end + 1, ran.start),
        None => {}
    }
    lane::write(&record(ran), end);
}
