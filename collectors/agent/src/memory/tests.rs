use proptest::prelude::*;

use super::*;

fn event(at_ns: u64, operation: MemoryOperation, address: u64, bytes: u64) -> AllocationEvent {
    AllocationEvent {
        at_ns,
        device: 0,
        operation,
        kind: MemoryKind::Device,
        address,
        bytes: Some(bytes).filter(|bytes| *bytes > 0),
    }
}

fn levels(memory: &Memory) -> Levels {
    memory.levels().first().copied().unwrap_or_default()
}

#[test]
fn a_release_knows_what_it_releases() {
    let mut memory = Memory::default();
    memory.event(event(1, MemoryOperation::Alloc, 0x1000, 3 << 20));
    memory.settle();
    assert_eq!(
        levels(&memory),
        Levels {
            live_bytes: 3 << 20,
            segments: 1,
            rounding_bytes: 1 << 20,
            ..Levels::default()
        }
    );
    memory.event(event(2, MemoryOperation::Free, 0x1000, 0));
    memory.event(event(3, MemoryOperation::Free, 0x9000, 0));
    memory.settle();
    assert_eq!(levels(&memory), Levels::default());
    let mut told = Vec::new();
    memory.tell(|frame| {
        let Frame::Memory(events) = frame else {
            return false;
        };
        told.extend(events.iter().map(|event| event.bytes));
        true
    });
    assert_eq!(told, [Some(3 << 20), Some(3 << 20), None]);
}

#[test]
fn a_release_that_comes_before_its_allocation_still_balances() {
    let mut memory = Memory::default();
    memory.event(event(20, MemoryOperation::Free, 0x1000, 0));
    memory.settle();
    memory.event(event(10, MemoryOperation::Alloc, 0x1000, 100));
    memory.settle();
    assert_eq!(levels(&memory).live_bytes, 0);
    memory.event(event(30, MemoryOperation::Alloc, 0x1000, 200));
    memory.settle();
    assert_eq!(levels(&memory).live_bytes, 200);
}

#[test]
fn releases_that_had_to_be_forgotten_leave_the_levels_unknown() {
    let mut memory = Memory::default();
    let most = MOST as u64 / 16;
    for at in 0..most {
        memory.event(event(at, MemoryOperation::Free, 0x1000 + at, 0));
    }
    memory.settle();
    assert!(!memory.is_incomplete());
    memory.event(event(most, MemoryOperation::Free, 0x10, 0));
    memory.settle();
    assert!(memory.is_incomplete());
}

#[test]
fn pinned_and_managed_memory_are_told_but_are_no_level_of_the_device() {
    let mut memory = Memory::default();
    for (address, kind) in [(1, MemoryKind::Pinned), (2, MemoryKind::Managed)] {
        memory.event(AllocationEvent {
            kind,
            ..event(1, MemoryOperation::Alloc, address, 100)
        });
    }
    memory.settle();
    assert!(memory.levels().is_empty());
}

fn pool_record(operation: u32, size: u64, used: u64) -> MemoryPool {
    MemoryPool {
        kind: 50,
        operation,
        pool_type: pool_type::LOCAL,
        correlation: 0,
        process: 0,
        device: 1,
        min_bytes_to_keep: 0,
        address: 0x77,
        size,
        release_threshold: 0,
        timestamp: 0,
        used,
    }
}

#[test]
fn pools_are_unknown_until_they_are_observed() {
    let mut memory = Memory::default();
    memory.pool(&pool_record(pool_operation::CREATED, 64, 16));
    assert_eq!(memory.levels()[0].pool_bytes, None);
    memory.observe(true, false);
    let levels = memory.levels()[0];
    assert_eq!(
        (levels.device, levels.pool_bytes, levels.pool_used_bytes),
        (1, Some(64), Some(16))
    );
    assert_eq!(levels.reserved_bytes, None);
    memory.pool(&pool_record(pool_operation::DESTROYED, 0, 0));
    assert!(memory.levels().is_empty());
}

#[test]
fn the_newest_record_of_a_pool_counts_whenever_it_comes() {
    let mut memory = Memory::default();
    memory.observe(true, false);
    let mut tell = |operation, timestamp, size, used| {
        memory.pool(&MemoryPool {
            timestamp,
            ..pool_record(operation, size, used)
        });
        let levels = memory.levels();
        levels
            .first()
            .map(|levels| (levels.pool_bytes, levels.pool_used_bytes))
    };
    let known = |size, used| Some((Some(size), Some(used)));
    assert_eq!(tell(pool_operation::TRIMMED, 20, 32, 8), known(32, 8));
    assert_eq!(tell(pool_operation::CREATED, 10, 64, 16), known(32, 8));
    assert_eq!(tell(pool_operation::DESTROYED, 40, 0, 0), None);
    assert_eq!(tell(pool_operation::TRIMMED, 30, 32, 8), None);
    assert_eq!(tell(pool_operation::CREATED, 50, 16, 0), known(16, 0));
}

#[test]
fn there_is_an_end_to_pools_and_what_is_left_out_makes_the_rest_unknown() {
    let mut memory = Memory::default();
    let mut tell = |operation, address| {
        memory.pool(&MemoryPool {
            address,
            ..pool_record(operation, 64, 16)
        });
        memory.is_incomplete()
    };
    let most = MOST_POOLS as u64;
    assert!((0..3 * most).all(|address| !tell(pool_operation::DESTROYED, address)));
    assert!((0..most).all(|address| !tell(pool_operation::CREATED, address)));
    assert!(tell(pool_operation::CREATED, most));
    assert_eq!(memory.take_lost(), 1);
    assert!(memory.is_incomplete());
}

#[test]
fn events_that_are_refused_wait_and_beyond_the_bound_are_counted() {
    let mut memory = Memory::default();
    for number in 0..MOST as u64 + 5 {
        memory.event(event(number, MemoryOperation::Free, number, 0));
    }
    memory.settle();
    assert_eq!(memory.take_lost(), 5);
    memory.tell(|_| false);
    let mut told = 0;
    memory.tell(|frame| {
        let Frame::Memory(events) = frame else {
            return false;
        };
        told += events.len();
        true
    });
    assert_eq!(told, MOST);
}

proptest! {
    /// Whatever the order in which threads' buffers arrive, what was not released is what is live.
    #[test]
    fn what_was_not_released_is_live(
        pieces in proptest::collection::vec((1..1_u64 << 30, any::<bool>(), any::<u8>()), 1..100),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut events = Vec::new();
        let mut expected = (0, 0);
        for (number, (bytes, released, shuffle)) in (0_u64..).zip(&pieces) {
            events.push((shuffle % 7, event(number * 10, MemoryOperation::Alloc, number, *bytes)));
            if *released {
                events.push((shuffle % 5, event(number * 10 + 15, MemoryOperation::Free, number, 0)));
            } else {
                expected = (expected.0 + bytes, expected.1 + 1);
            }
        }
        events.sort_by_key(|(order, _)| *order);
        let mut memory = Memory::default();
        let (first, second) = events.split_at(cut.index(events.len()));
        for part in [first, second] {
            part.iter().for_each(|(_, event)| memory.event(*event));
            memory.settle();
        }
        let levels = levels(&memory);
        prop_assert_eq!((levels.live_bytes, levels.segments), expected);
    }
}
