//! When buffers come back.

use std::sync::atomic::Ordering::SeqCst;

use plimsoll_sim_cuda::Stream;

use crate::agent::{self, u64_at};
use crate::world::*;

/// Longer than any test takes.
const FOREVER_NS: u64 = 3_600_000_000_000;

#[test]
fn a_flush_gives_back_what_is_complete_and_keeps_the_rest() {
    let world = World::new("13.0", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    let short = cuda.function("short", Some(1_000)).unwrap();
    cuda.launch(short, Stream::DEFAULT).unwrap();
    cuda.synchronize().unwrap();
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!(agent::take().len(), 1);

    let endless = cuda.function("endless", Some(FOREVER_NS)).unwrap();
    let (first, second) = (cuda.stream().unwrap(), cuda.stream().unwrap());
    cuda.launch(short, first).unwrap();
    cuda.launch(endless, second).unwrap();
    cuda.synchronize_stream(first).unwrap();
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!(agent::count(), 0, "one record of the buffer is not complete");

    assert_eq!(world.cupti.flush_forced(), 0);
    let records = agent::take();
    assert_eq!(records.len(), 2);
    assert_eq!(u64_at(&records[0], 24) - u64_at(&records[0], 16), 1_000);
    assert_ne!(u64_at(&records[1], 16), 0, "it has begun");
    assert_eq!(u64_at(&records[1], 24), 0, "and not ended");
    assert_eq!(world.cupti.flush_forced(), 0);
    assert_eq!(agent::count(), 0, "what is handed out is gone");
}

#[test]
fn full_buffers_come_back_by_themselves() {
    let world = World::new("12.0", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    agent::BUFFER_BYTES.store(2080, SeqCst);
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    let function = cuda.function("gemm", Some(100)).unwrap();
    for _ in 0..25 {
        cuda.launch(function, Stream::DEFAULT).unwrap();
    }
    eventually("two buffers of ten records each are full", || {
        agent::count() == 20
    });
    cuda.synchronize().unwrap();
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!(agent::count(), 25);
    assert_eq!(agent::take_ends(), [12; 3]);
}

#[test]
fn records_without_a_buffer_are_counted_as_dropped() {
    let world = World::new("13.0", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    agent::REFUSES.store(true, SeqCst);
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    let function = cuda.function("gemm", Some(100)).unwrap();
    for _ in 0..3 {
        cuda.launch(function, Stream::DEFAULT).unwrap();
    }
    assert_eq!(world.cupti.dropped(), 3);
    assert_eq!(world.cupti.dropped(), 0, "asking resets");
    agent::REFUSES.store(false, SeqCst);
    cuda.launch(function, Stream::DEFAULT).unwrap();
    cuda.synchronize().unwrap();
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!((agent::count(), world.cupti.dropped()), (1, 0));
}

#[test]
fn buffers_are_zeroed_unless_the_client_says_that_they_are() {
    for (attribute, expected) in [(0_u8, 0), (1, u64::MAX)] {
        let world = World::new("13.0", "");
        let cuda = &world.cuda;
        cuda.init().unwrap();
        let size_of_flag = 1_usize;
        let (size, value) = (
            (&raw const size_of_flag).expose_provenance(),
            (&raw const attribute).expose_provenance(),
        );
        assert_eq!(
            world
                .cupti
                .call("cuptiActivitySetAttribute", [5, size, value, 0, 0]),
            0
        );
        agent::FILLED_WITH_ONES.store(true, SeqCst);
        agent::LAST_WORD.store(1, SeqCst);
        world.cupti.collect(&[CONCURRENT_KERNEL]);
        let function = cuda.function("gemm", Some(100)).unwrap();
        cuda.launch(function, Stream::DEFAULT).unwrap();
        cuda.synchronize().unwrap();
        assert_eq!(world.cupti.flush(), 0);
        assert_eq!(agent::LAST_WORD.load(SeqCst), expected);
    }
}

#[test]
fn attributes_are_kept_and_strange_ones_refused() {
    let world = World::new("12.0", "");
    let get = |attribute: usize, room: usize| {
        let (mut size, mut value) = (room, 0_usize);
        let places = [
            (&raw mut size).expose_provenance(),
            (&raw mut value).expose_provenance(),
        ];
        let code = world.cupti.call(
            "cuptiActivityGetAttribute",
            [attribute, places[0], places[1], 0, 0],
        );
        (code, value)
    };
    let set = |attribute: usize, size: usize, value: usize| {
        let places = [
            (&raw const size).expose_provenance(),
            (&raw const value).expose_provenance(),
        ];
        world.cupti.call(
            "cuptiActivitySetAttribute",
            [attribute, places[0], places[1], 0, 0],
        )
    };
    assert_eq!(get(0, 8), (0, 3_200_000));
    assert_eq!(get(2, 8), (0, 250));
    assert_eq!(set(2, 8, 20), 0);
    assert_eq!(get(2, 8), (0, 20));
    assert_eq!(get(2, 4).0, 1, "no room for the answer");
    assert_eq!(set(2, 4, 20), 1);
    assert_eq!(set(8, 1, 1), 0);
    assert_eq!(get(8, 1), (0, 1));
    assert_eq!(get(9, 1).0, 1, "12.0 has no buffers per thread to choose");
    assert_eq!(set(1000, 8, 1), 1);
}
