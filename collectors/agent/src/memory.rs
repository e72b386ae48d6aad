//! What is allocated: the live pieces by address, and the events on the way to the daemon.
//!
//! The figures are those of this level alone. What is free inside a pool or a reservation is said where the driver says it;
//! holes between addresses are no fragmentation and are not looked at.

use std::collections::{BTreeMap, HashMap};

use cupti_sys::constant::{memory_kind, memory_operation, pool_operation, pool_type};
use cupti_sys::record::{Memory as MemoryRecord, MemoryPool};
use plimsoll_trace::wire::{AllocationEvent, Frame, Levels, MemoryKind, MemoryOperation};

use crate::virtual_memory::VirtualMemory;

/// So many live pieces, and so many events between two flushes, at most.
const MOST: usize = 1 << 17;
/// So many pools at most, destroyed ones included. Programs have one for each device.
const MOST_POOLS: usize = 1 << 12;
/// Events in one frame: each takes 37 bytes at most.
const EVENTS_IN_FRAME: usize = 1_700;
/// The driver gives device memory out in pages of this size.
const PAGE: u64 = 2 << 20;

#[derive(Clone, Copy, Debug)]
struct Piece {
    device: u32,
    kind: MemoryKind,
    bytes: u64,
}

/// What the newest record of a pool says. Records come in the order of their buffers, not of their times; so a pool that was
/// destroyed is remembered, or an older record that comes late would bring it back.
#[derive(Clone, Copy, Debug)]
struct Pool {
    at_ns: u64,
    size: u64,
    used: u64,
    is_destroyed: bool,
}

/// All that is known about a process's device memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    live: HashMap<u64, Piece>,
    /// Releases that came before their allocation did, by address: their records were in another thread's buffer.
    early: HashMap<u64, u64>,
    pools: BTreeMap<(u32, u64), Pool>,
    pub(crate) virtual_memory: VirtualMemory,
    levels: BTreeMap<u32, Levels>,
    /// What came since the last flush, in no order.
    arrived: Vec<AllocationEvent>,
    /// What is not told yet, in order.
    waiting: Vec<AllocationEvent>,
    lost: u64,
    /// Something that was taken or given back is not counted in: what is live is not known any more.
    is_incomplete: bool,
    knows_pools: bool,
}

impl Memory {
    /// Whether CUPTI records pools and whether the calls of virtual memory are observed. Where not, those figures are
    /// unknown.
    pub(crate) const fn observe(&mut self, pools: bool, virtual_memory: bool) {
        self.knows_pools = pools;
        self.virtual_memory.is_observed = virtual_memory;
    }

    /// Takes a record of an allocation or a release.
    pub(crate) fn record(&mut self, record: &MemoryRecord) {
        let operation = match record.operation {
            memory_operation::ALLOCATION => MemoryOperation::Alloc,
            memory_operation::RELEASE => MemoryOperation::Free,
            _ => return,
        };
        let kind = match record.memory_kind {
            memory_kind::DEVICE | memory_kind::ARRAY | memory_kind::DEVICE_STATIC
                if record.is_async != 0 || record.pool_type != 0 =>
            {
                MemoryKind::Pool
            }
            memory_kind::DEVICE | memory_kind::ARRAY | memory_kind::DEVICE_STATIC => MemoryKind::Device,
            memory_kind::MANAGED | memory_kind::MANAGED_STATIC => MemoryKind::Managed,
            memory_kind::PINNED => MemoryKind::Pinned,
            _ => return,
        };
        if record.pool_type == pool_type::LOCAL {
            let pool = Pool {
                at_ns: record.timestamp,
                size: record.pool_size,
                used: record.pool_used,
                is_destroyed: false,
            };
            self.update_pool((record.device, record.pool_address), pool);
        }
        self.event(AllocationEvent {
            at_ns: record.timestamp,
            device: record.device,
            operation,
            kind,
            address: record.address,
            bytes: Some(record.bytes).filter(|bytes| *bytes > 0),
        });
    }

    /// Takes a record of a pool.
    pub(crate) fn pool(&mut self, record: &MemoryPool) {
        let is_destroyed = record.operation == pool_operation::DESTROYED;
        if is_destroyed || record.pool_type == pool_type::LOCAL {
            let pool = Pool {
                at_ns: record.timestamp,
                size: record.size,
                used: record.used,
                is_destroyed,
            };
            self.update_pool((record.device, record.address), pool);
        }
    }

    /// The newest record of a pool is the one that counts, whenever it comes.
    fn update_pool(&mut self, key: (u32, u64), pool: Pool) {
        if self.pools.len() >= MOST_POOLS && !self.pools.contains_key(&key) {
            self.pools.retain(|_, pool| !pool.is_destroyed);
            if self.pools.len() >= MOST_POOLS {
                return self.lose();
            }
        }
        let known = self.pools.entry(key).or_insert(pool);
        if known.at_ns <= pool.at_ns {
            *known = pool;
        }
    }

    /// One that is not counted in.
    const fn lose(&mut self) {
        self.lost += 1;
        self.is_incomplete = true;
    }

    /// Takes an event of any source.
    pub(crate) fn event(&mut self, event: AllocationEvent) {
        if self.arrived.len() < MOST {
            self.arrived.push(event);
        } else {
            self.lose();
        }
    }

    /// Puts what arrived in its order and counts it in.
    pub(crate) fn settle(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        // A piece is released before its address is given out again, and nobody says which was first within a ns.
        arrived.sort_by_key(|event| (event.at_ns, event.operation == MemoryOperation::Alloc));
        for event in arrived.drain(..) {
            let event = match event.operation {
                MemoryOperation::Alloc => self.taken(event),
                MemoryOperation::Free => self.given_back(event),
            };
            if self.waiting.len() < MOST {
                self.waiting.push(event);
            } else {
                self.lost += 1;
            }
        }
        self.arrived = arrived;
    }

    fn taken(&mut self, event: AllocationEvent) -> AllocationEvent {
        let released = self.early.remove(&event.address);
        if released.is_some_and(|at| at >= event.at_ns) || event.kind == MemoryKind::Physical {
            return event;
        }
        if self.live.len() >= MOST && !self.live.contains_key(&event.address) {
            self.lose();
            return event;
        }
        let piece = Piece {
            device: event.device,
            kind: event.kind,
            bytes: event.bytes.unwrap_or(0),
        };
        // Two at one address: the release between them was not seen.
        if let Some(before) = self.live.insert(event.address, piece) {
            self.count(before, false);
        }
        self.count(piece, true);
        event
    }

    fn given_back(&mut self, mut event: AllocationEvent) -> AllocationEvent {
        if event.kind == MemoryKind::Physical {
            return event;
        }
        match self.live.remove(&event.address) {
            Some(piece) => {
                self.count(piece, false);
                event.bytes = Some(piece.bytes);
                (event.kind, event.device) = (piece.kind, piece.device);
            }
            None if self.early.len() < MOST / 16 => {
                self.early.insert(event.address, event.at_ns);
            }
            // Too many whose allocation nobody saw. One that comes yet would count as live for ever.
            None => {
                self.early.clear();
                self.is_incomplete = true;
            }
        }
        event
    }

    /// Device and pool memory; what the host holds is no level of the device's.
    fn count(&mut self, piece: Piece, taken: bool) {
        if !matches!(piece.kind, MemoryKind::Device | MemoryKind::Pool) {
            return;
        }
        let levels = self.levels.entry(piece.device).or_default();
        // Pieces of a pool share its pages.
        let rounding = match piece.kind {
            MemoryKind::Device => rounding(piece.bytes),
            _ => 0,
        };
        let add = |value: &mut u64, by: u64| {
            *value = if taken {
                value.saturating_add(by)
            } else {
                value.saturating_sub(by)
            };
        };
        add(&mut levels.live_bytes, piece.bytes);
        add(&mut levels.segments, 1);
        add(&mut levels.rounding_bytes, rounding);
    }

    /// How much is allocated now, for each device that anything is known of.
    pub(crate) fn levels(&self) -> Vec<Levels> {
        let mut devices = self.levels.clone();
        for ((device, _), _) in self.pools.iter().filter(|(_, pool)| !pool.is_destroyed) {
            devices.entry(*device).or_default();
        }
        self.virtual_memory.devices().for_each(|device| {
            devices.entry(device).or_default();
        });
        let full = |(device, mut levels): (u32, Levels)| {
            levels.device = device;
            for bytes in self.virtual_memory.physical(device) {
                levels.live_bytes += bytes;
                levels.segments += 1;
                levels.rounding_bytes += rounding(bytes);
            }
            if self.knows_pools {
                let pools = || {
                    self.pools
                        .range((device, 0)..=(device, u64::MAX))
                        .map(|(_, pool)| pool)
                        .filter(|pool| !pool.is_destroyed)
                };
                levels.pool_bytes = Some(pools().map(|pool| pool.size).sum());
                levels.pool_used_bytes = Some(pools().map(|pool| pool.used).sum());
            }
            if self.virtual_memory.is_observed {
                levels.reserved_bytes = Some(self.virtual_memory.reserved(device));
                levels.mapped_bytes = Some(self.virtual_memory.mapped(device));
            }
            levels
        };
        devices.into_iter().map(full).collect()
    }

    /// Hands the events to `tell`; what it refuses waits.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(&Frame) -> bool) {
        let mut told = 0;
        for events in self.waiting.chunks(EVENTS_IN_FRAME) {
            if !tell(&Frame::Memory(events.to_vec())) {
                break;
            }
            told += events.len();
        }
        self.waiting.drain(..told);
        if self.waiting.is_empty() && self.waiting.capacity() > 1 << 12 {
            self.waiting = Vec::new();
        }
    }

    /// How many events there was no room for since this was last asked.
    pub(crate) const fn take_lost(&mut self) -> u64 {
        let lost = self.lost + self.virtual_memory.take_lost();
        self.lost = 0;
        lost
    }

    /// Whether something was not counted in, so that the levels are not what is there.
    pub(crate) const fn is_incomplete(&self) -> bool {
        self.is_incomplete || self.virtual_memory.is_incomplete()
    }
}

const fn rounding(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE) - bytes
}

#[cfg(test)]
mod tests;
