//! What ran on the device, and what CUPTI and the host did beside it.

use super::{Memory, Ran, Record, context};
use crate::release::kind;

/// How a kernel was launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
}

/// A kernel; `node` is its graph and its place in it.
#[inline]
pub(crate) fn kernel(kind: u32, ran: Ran, shape: &Shape, name: u64, node: Option<(u32, u64)>) -> Record {
    let mut record = Record::new(kind);
    record.u16::<6>(32);
    record.u64::<16>(ran.start);
    record.u64::<24>(ran.end);
    record.u64::<32>(ran.end);
    record.u32::<40>(ran.device);
    record.u32::<44>(context(ran.device));
    record.u32::<48>(ran.stream);
    record.u32::<52>(shape.grid[0]);
    record.u32::<56>(shape.grid[1]);
    record.u32::<60>(shape.grid[2]);
    record.u32::<64>(shape.block[0]);
    record.u32::<68>(shape.block[1]);
    record.u32::<72>(shape.block[2]);
    record.u32::<80>(shape.shared_bytes);
    record.u32::<92>(ran.correlation);
    record.u64::<96>(u64::from(ran.correlation));
    record.u64::<104>(name);
    if let Some((graph, node)) = node {
        record.u64::<144>(node);
        record.u32::<156>(graph);
    }
    record.u32::<168>(1);
    record
}

/// From where to where a copy goes (`CUpti_ActivityMemcpyKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    HostToDevice = 1,
    DeviceToHost = 2,
    DeviceToDevice = 8,
}

pub(crate) fn copy(ran: Ran, direction: Copy, bytes: u64, is_async: bool) -> Record {
    let (from, to) = match direction {
        Copy::HostToDevice => (Memory::Pageable, Memory::Device),
        Copy::DeviceToHost => (Memory::Device, Memory::Pageable),
        Copy::DeviceToDevice => (Memory::Device, Memory::Device),
    };
    let mut record = Record::new(kind::MEMCPY);
    record.u8::<4>(direction as u8);
    record.u8::<5>(from as u8);
    record.u8::<6>(to as u8);
    record.u8::<7>(is_async.into());
    record.u64::<8>(bytes);
    record.u64::<16>(ran.start);
    record.u64::<24>(ran.end);
    record.u32::<32>(ran.device);
    record.u32::<36>(context(ran.device));
    record.u32::<40>(ran.stream);
    record.u32::<44>(ran.correlation);
    record
}

pub(crate) fn peer_copy(ran: Ran, to_device: u32, bytes: u64) -> Record {
    let mut record = Record::new(kind::MEMCPY2);
    // 10 is peer to peer.
    record.u8::<4>(10);
    record.u8::<5>(Memory::Device as u8);
    record.u8::<6>(Memory::Device as u8);
    record.u64::<8>(bytes);
    record.u64::<16>(ran.start);
    record.u64::<24>(ran.end);
    record.u32::<32>(ran.device);
    record.u32::<36>(context(ran.device));
    record.u32::<40>(ran.stream);
    record.u32::<44>(ran.device);
    record.u32::<52>(to_device);
    record.u32::<60>(ran.correlation);
    record
}

pub(crate) fn memset(ran: Ran, value: u32, bytes: u64) -> Record {
    let mut record = Record::new(kind::MEMSET);
    record.u32::<4>(value);
    record.u64::<8>(bytes);
    record.u64::<16>(ran.start);
    record.u64::<24>(ran.end);
    record.u32::<32>(ran.device);
    record.u32::<36>(context(ran.device));
    record.u32::<40>(ran.stream);
    record.u32::<44>(ran.correlation);
    record.u16::<50>(Memory::Device as u16);
    record
}

/// Time that CUPTI took for a flush of buffers.
pub(crate) fn flush_overhead(start: u64, end: u64) -> Record {
    let mut record = Record::new(kind::OVERHEAD);
    record.u32::<4>(1 << 16);
    record.u32::<8>(1);
    record.u32::<12>(std::process::id());
    record.u64::<24>(start);
    record.u64::<32>(end);
    record
}

/// Somebody waited for a stream (3) or a context (4).
pub(crate) fn synchronization(what: u32, ran: Ran) -> Record {
    let mut record = Record::new(kind::SYNCHRONIZATION);
    record.u32::<4>(what);
    record.u64::<8>(ran.start);
    record.u64::<16>(ran.end);
    record.u32::<24>(ran.correlation);
    record.u32::<28>(context(ran.device));
    record.u32::<32>(ran.stream);
    record
}

pub(crate) fn graph(ran: Ran, graph: u32) -> Record {
    let mut record = Record::new(kind::GRAPH_TRACE);
    record.u32::<4>(ran.correlation);
    record.u64::<8>(ran.start);
    record.u64::<16>(ran.end);
    record.u32::<24>(ran.device);
    record.u32::<28>(graph);
    record.u32::<32>(context(ran.device));
    record.u32::<36>(ran.stream);
    record
}

/// A record of a kind that no client knows.
pub(crate) fn unheard_of() -> Record {
    let mut record = Record::new(kind::UNHEARD_OF);
    record.u64::<8>(u64::MAX);
    record.u64::<16>(u64::MAX);
    record
}
