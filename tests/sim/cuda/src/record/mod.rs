//! The records as CUPTI lays them out, at the offsets of its headers. A record is made at its longest and written as long as
//! the chosen release has it: fields of later releases fall away by themselves.

mod memory;
mod work;

use crate::clock;
use crate::release::kind;

pub(crate) use self::memory::{Allocation, Memory, PoolView, memory_pool, memory2};
pub(crate) use self::work::{
    Copy, Shape, copy, flush_overhead, graph, kernel, memset, peer_copy, synchronization, unheard_of,
};

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

/// The one context of each device.
pub(crate) const fn context(device: u32) -> u32 {
    device + 1
}
