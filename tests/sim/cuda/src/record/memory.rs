//! Memory taken and given back, and pools.

use super::{Record, context};
use crate::release::kind;

/// Kinds of memory (`CUpti_ActivityMemoryKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Pageable = 1,
    Pinned = 2,
    Device = 3,
    Managed = 5,
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
