//! The records as CUPTI lays them out, at the offsets of its headers. A record is made at its longest and written as long as
//! the chosen release has it: fields of later releases fall away by themselves.

use crate::clock;
use crate::release::kind;

/// The longest record of any release.
pub(crate) const LONGEST: usize = 296;

/// One record.
#[repr(C, align(8))]
pub(crate) struct Record([u8; LONGEST]);

impl Record {
    #[inline]
    fn new(kind: u32) -> Self {
        let mut record = Self([0; LONGEST]);
        record.u32::<0>(kind);
        record
    }

    #[inline]
    fn u8<const AT: usize>(&mut self, value: u8) {
        self.0[AT] = value;
    }

    #[inline]
    fn u16<const AT: usize>(&mut self, value: u16) {
        self.0[AT..AT + 2].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn u32<const AT: usize>(&mut self, value: u32) {
        self.0[AT..AT + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn u64<const AT: usize>(&mut self, value: u64) {
        self.0[AT..AT + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Its first bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8; LONGEST] {
        &self.0
    }

    pub(crate) fn kind(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// Where the times of a record are: start and end, or one alone; `None` for kinds without.
pub(crate) const fn end_offset(kind: u32) -> Option<usize> {
    match kind {
        kind::KERNEL | kind::CONCURRENT_KERNEL | kind::MEMCPY | kind::MEMCPY2 | kind::MEMSET => Some(24),
        kind::GRAPH_TRACE | kind::SYNCHRONIZATION => Some(16),
        kind::OVERHEAD => Some(32),
        _ => None,
    }
}

/// Where and when something ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) device: u32,
    pub(crate) stream: u32,
    pub(crate) correlation: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Ran {
    /// With times as CUPTI shows them.
    #[inline]
    pub(crate) fn shown(self) -> Self {
        Self {
            start: clock::shown(self.start),
            end: clock::shown(self.end),
            ..self
        }
    }
}

/// How a kernel was launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
}

/// The one context of each device.
pub(crate) const fn context(device: u32) -> u32 {
    device + 1
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

/// Kinds of memory (`CUpti_ActivityMemoryKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Pageable = 1,
    Pinned = 2,
    Device = 3,
    Managed = 5,
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

/// What a stream-ordered pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct PoolView {
    pub(crate) address: u64,
    pub(crate) release_threshold: u64,
    pub(crate) size: u64,
    pub(crate) utilized: u64,
}

/// Memory taken (1) or given back (2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocation {
    pub(crate) operation: u32,
    pub(crate) memory: Memory,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) device: u32,
    pub(crate) stream: u32,
    pub(crate) correlation: u32,
    pub(crate) at: u64,
    pub(crate) pool: Option<PoolView>,
}

pub(crate) fn memory2(allocation: &Allocation) -> Record {
    let mut record = Record::new(kind::MEMORY2);
    record.u32::<4>(allocation.operation);
    record.u32::<8>(allocation.memory as u32);
    record.u32::<12>(allocation.correlation);
    record.u64::<16>(allocation.address);
    record.u64::<24>(allocation.bytes);
    record.u64::<32>(allocation.at);
    record.u32::<48>(std::process::id());
    record.u32::<52>(allocation.device);
    record.u32::<56>(context(allocation.device));
    record.u32::<60>(allocation.stream);
    record.u32::<72>(allocation.pool.is_some().into());
    if let Some(pool) = allocation.pool {
        record.u32::<80>(1);
        record.u64::<88>(pool.address);
        record.u64::<96>(pool.release_threshold);
        record.u64::<104>(pool.size);
        record.u64::<112>(pool.utilized);
    }
    record
}

/// A pool was created (1), destroyed (2) or trimmed (3).
pub(crate) fn memory_pool(
    operation: u32,
    device: u32,
    correlation: u32,
    at: u64,
    keep: u64,
    pool: PoolView,
) -> Record {
    let mut record = Record::new(kind::MEMORY_POOL);
    record.u32::<4>(operation);
    record.u32::<8>(1);
    record.u32::<12>(correlation);
    record.u32::<16>(std::process::id());
    record.u32::<20>(device);
    record.u64::<24>(keep);
    record.u64::<32>(pool.address);
    record.u64::<40>(pool.size);
    record.u64::<48>(pool.release_threshold);
    record.u64::<56>(at);
    record.u64::<64>(pool.utilized);
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
