//! Virtual memory: addresses reserved, physical memory made, and one mapped to the other (`cuMemAddressReserve`,
//! `cuMemCreate`, `cuMemMap`). No activity record tells of these; the calls themselves are observed.

use std::collections::{BTreeMap, HashMap};

use plimsoll_trace::wire::{AllocationEvent, MemoryKind, MemoryOperation};

/// So many of each at most.
const MOST: usize = 1 << 16;

/// One call that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Addresses were reserved.
    Reserve { address: u64, bytes: u64 },
    /// And given back.
    Free { address: u64 },
    /// Physical memory was made on a device.
    Create { handle: u64, bytes: u64, device: u32 },
    /// Its handle was let go. The memory goes with its last mapping.
    Release { handle: u64 },
    /// It was mapped.
    Map { address: u64, bytes: u64, handle: u64 },
    /// What is mapped in a range was unmapped.
    Unmap { address: u64, bytes: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Physical {
    handle: u64,
    bytes: u64,
    device: u32,
    is_held: bool,
    mappings: u32,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    bytes: u64,
    /// A number of [`VirtualMemory::physical`].
    physical: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    bytes: u64,
    /// Known with the first mapping.
    device: Option<u32>,
}

/// What is reserved, made and mapped.
#[derive(Debug, Default)]
pub(crate) struct VirtualMemory {
    pub(crate) is_observed: bool,
    reservations: BTreeMap<u64, Reservation>,
    mappings: BTreeMap<u64, Mapping>,
    /// By a number of our own: a handle is given out again while the memory it stood for is still mapped.
    physical: HashMap<u64, Physical>,
    handles: HashMap<u64, u64>,
    next: u64,
    lost: u64,
    is_incomplete: bool,
}

impl VirtualMemory {
    /// Takes a call in. Physical memory that came or went is an event; the addresses of such events are handles.
    pub(crate) fn call(&mut self, at_ns: u64, call: Call, mut event: impl FnMut(AllocationEvent)) {
        let physical = |operation, physical: Physical| AllocationEvent {
            at_ns,
            device: physical.device,
            operation,
            kind: MemoryKind::Physical,
            address: physical.handle,
            bytes: Some(physical.bytes),
        };
        match call {
            Call::Reserve { address, bytes } if self.reservations.len() < MOST => {
                let device = None;
                self.reservations.insert(address, Reservation { bytes, device });
            }
            Call::Create {
                handle,
                bytes,
                device,
            } if self.physical.len() < MOST => {
                let made = Physical {
                    handle,
                    bytes,
                    device,
                    is_held: true,
                    mappings: 0,
                };
                self.next += 1;
                self.physical.insert(self.next, made);
                self.handles.insert(handle, self.next);
                event(physical(MemoryOperation::Alloc, made));
            }
            Call::Map {
                address,
                bytes,
                handle,
            } if self.mappings.len() < MOST => {
                self.map(address, bytes, handle);
            }
            // More of one kind than anybody has: the figures are too low from here on.
            Call::Reserve { .. } | Call::Create { .. } | Call::Map { .. } => {
                self.lost += 1;
                self.is_incomplete = true;
            }
            Call::Free { address } => {
                self.reservations.remove(&address);
            }
            Call::Release { handle } => {
                if let Some(number) = self.handles.remove(&handle)
                    && let Some(held) = self.physical.get_mut(&number)
                {
                    held.is_held = false;
                    if let Some(gone) = self.take_if_gone(number) {
                        event(physical(MemoryOperation::Free, gone));
                    }
                }
            }
            Call::Unmap { address, bytes } => {
                let end = address.saturating_add(bytes);
                while let Some((at, mapping)) =
                    self.mappings.range(address..end).next().map(|(at, m)| (*at, *m))
                {
                    self.mappings.remove(&at);
                    let Some(number) = mapping.physical else { continue };
                    if let Some(mapped) = self.physical.get_mut(&number) {
                        mapped.mappings = mapped.mappings.saturating_sub(1);
                    }
                    if let Some(gone) = self.take_if_gone(number) {
                        event(physical(MemoryOperation::Free, gone));
                    }
                }
            }
        }
    }

    fn map(&mut self, address: u64, bytes: u64, handle: u64) {
        let physical = self.handles.get(&handle).copied();
        self.mappings.insert(address, Mapping { bytes, physical });
        let Some(mapped) = physical.and_then(|number| self.physical.get_mut(&number)) else {
            return;
        };
        mapped.mappings += 1;
        if let Some((_, reservation)) = self.reservations.range_mut(..=address).next_back() {
            reservation.device.get_or_insert(mapped.device);
        }
    }

    /// How many calls there was no room for since this was last asked.
    pub(crate) const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }

    /// Whether a call was not counted in, ever.
    pub(crate) const fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    fn take_if_gone(&mut self, number: u64) -> Option<Physical> {
        let physical = self.physical.get(&number)?;
        let is_gone = !physical.is_held && physical.mappings == 0;
        is_gone.then(|| self.physical.remove(&number)).flatten()
    }

    /// The devices that anything was made on, some of them more than once.
    pub(crate) fn devices(&self) -> impl Iterator<Item = u32> {
        self.physical.values().map(|physical| physical.device)
    }

    /// The sizes of what was made on a device and is still there.
    pub(crate) fn physical(&self, device: u32) -> impl Iterator<Item = u64> {
        let here = move |physical: &&Physical| physical.device == device;
        self.physical.values().filter(here).map(|physical| physical.bytes)
    }

    /// Addresses reserved for a device, bytes. Before anything is mapped into them they are the first device's.
    pub(crate) fn reserved(&self, device: u32) -> u64 {
        let here = |reservation: &&Reservation| reservation.device.unwrap_or(0) == device;
        let bytes = self
            .reservations
            .values()
            .filter(here)
            .map(|reservation| reservation.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Memory of a device that is mapped, bytes.
    pub(crate) fn mapped(&self, device: u32) -> u64 {
        let here = |mapping: &&Mapping| {
            let physical = mapping.physical.and_then(|number| self.physical.get(&number));
            physical.is_some_and(|physical| physical.device == device)
        };
        self.mappings
            .values()
            .filter(here)
            .map(|mapping| mapping.bytes)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the calls and returns the events as (operation, handle, bytes).
    fn take(memory: &mut VirtualMemory, calls: &[Call]) -> Vec<(MemoryOperation, u64, Option<u64>)> {
        let mut events = Vec::new();
        for call in calls {
            memory.call(1, *call, |event| {
                events.push((event.operation, event.address, event.bytes))
            });
        }
        events
    }

    const CREATE: Call = Call::Create {
        handle: 7,
        bytes: 20,
        device: 1,
    };
    const MAP: Call = Call::Map {
        address: 100,
        bytes: 20,
        handle: 7,
    };
    const UNMAP: Call = Call::Unmap {
        address: 100,
        bytes: 20,
    };

    #[test]
    fn physical_memory_goes_with_its_last_mapping() {
        let mut memory = VirtualMemory::default();
        let reserve = Call::Reserve {
            address: 100,
            bytes: 1_000,
        };
        let release = Call::Release { handle: 7 };
        let events = take(&mut memory, &[reserve, CREATE, MAP, release]);
        assert_eq!(events, [(MemoryOperation::Alloc, 7, Some(20))]);
        assert_eq!(
            (memory.reserved(1), memory.mapped(1), memory.reserved(0)),
            (1_000, 20, 0)
        );
        assert_eq!(memory.physical(1).sum::<u64>(), 20);
        assert_eq!(
            take(&mut memory, &[UNMAP]),
            [(MemoryOperation::Free, 7, Some(20))]
        );
        assert_eq!((memory.mapped(1), memory.physical(1).count()), (0, 0));
        take(&mut memory, &[Call::Free { address: 100 }]);
        assert_eq!(memory.reserved(1), 0);
    }

    #[test]
    fn a_handle_that_is_held_outlives_its_mappings() {
        let mut memory = VirtualMemory::default();
        assert_eq!(take(&mut memory, &[CREATE, MAP, UNMAP]).len(), 1);
        assert_eq!(memory.physical(1).sum::<u64>(), 20);
        assert_eq!(
            take(&mut memory, &[Call::Release { handle: 7 }]),
            [(MemoryOperation::Free, 7, Some(20))]
        );
    }

    #[test]
    fn one_unmap_may_cover_many_mappings() {
        let mut memory = VirtualMemory::default();
        for piece in 0..3 {
            let handle = 10 + piece;
            let bytes = 20;
            let map = Call::Map {
                address: 100 + 20 * piece,
                bytes,
                handle,
            };
            take(
                &mut memory,
                &[
                    Call::Create {
                        handle,
                        bytes,
                        device: 0,
                    },
                    map,
                    Call::Release { handle },
                ],
            );
        }
        assert_eq!(memory.mapped(0), 60);
        assert_eq!(
            take(
                &mut memory,
                &[Call::Unmap {
                    address: 100,
                    bytes: 60
                }]
            )
            .len(),
            3
        );
        assert_eq!(memory.physical(0).count(), 0);
    }

    #[test]
    fn calls_about_what_was_made_before_are_no_harm() {
        let mut memory = VirtualMemory::default();
        let calls = [MAP, Call::Release { handle: 7 }, UNMAP, Call::Free { address: 1 }];
        assert_eq!(take(&mut memory, &calls), []);
        assert_eq!((memory.mapped(0), memory.reserved(0)), (0, 0));
    }
}
