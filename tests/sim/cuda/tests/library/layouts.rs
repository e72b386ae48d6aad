//! The records of each release are as long, and have their fields, where the table of the field notes says.

use plimsoll_sim_cuda::{Direction, Stream};

use crate::agent::{self, of_kind, text_at, u32_at, u64_at};
use crate::world::*;

/// Sizes of the records of kernels, copies, fills, memory, pools, overhead, synchronization and graphs.
const RELEASES: [(&str, [usize; 8]); 14] = [
    ("11.7", [176, 88, 88, 120, 72, 40, 40, 48]),
    ("11.8", [200, 88, 88, 120, 72, 40, 40, 48]),
    ("12.0", [208, 88, 88, 120, 72, 40, 40, 48]),
    ("12.2", [208, 88, 88, 120, 72, 40, 40, 48]),
    ("12.3", [208, 88, 88, 120, 72, 48, 40, 56]),
    ("12.4", [208, 88, 88, 120, 72, 56, 40, 56]),
    ("12.6", [208, 88, 88, 128, 72, 56, 40, 56]),
    ("12.8", [208, 96, 88, 128, 72, 56, 56, 56]),
    ("13.0", [216, 96, 88, 128, 80, 56, 56, 56]),
    ("13.1", [224, 96, 88, 128, 80, 56, 56, 56]),
    ("13.2", [224, 96, 88, 128, 80, 56, 56, 56]),
    ("13.3", [232, 96, 88, 128, 80, 56, 56, 56]),
    ("13.4", [248, 112, 104, 128, 80, 56, 56, 56]),
    ("future", [288, 152, 144, 168, 120, 96, 96, 96]),
];

const KINDS: [u32; 7] = [
    CONCURRENT_KERNEL,
    MEMCPY,
    MEMSET,
    MEMORY2,
    MEMORY_POOL,
    OVERHEAD,
    SYNCHRONIZATION,
];

#[test]
fn every_release_has_its_own_lengths() {
    for (release, [kernel, copy, fill, memory, pool, overhead, wait, graph]) in RELEASES {
        let world = World::new(release, "");
        let cuda = &world.cuda;
        cuda.init().unwrap();
        world.cupti.collect(&KINDS);
        let function = cuda.function("gemm", Some(1_000)).unwrap();
        for _ in 0..3 {
            cuda.launch(function, Stream::DEFAULT).unwrap();
            cuda.copy(Direction::HostToDevice, 4096, None).unwrap();
            cuda.fill(7, 4096, Stream::DEFAULT).unwrap();
            let address = cuda.alloc_async(1 << 20, Stream::DEFAULT).unwrap();
            cuda.free_async(address, Stream::DEFAULT).unwrap();
            cuda.synchronize().unwrap();
            assert_eq!(world.cupti.flush(), 0);
        }
        world.cupti.collect(&[GRAPH_TRACE]);
        let nodes = cuda.graph(&[function, function]).unwrap();
        cuda.launch_graph(nodes, Stream::DEFAULT).unwrap();
        cuda.synchronize().unwrap();
        assert_eq!(world.cupti.flush(), 0);
        let records = agent::take();
        let sizes = [
            (CONCURRENT_KERNEL, kernel),
            (MEMCPY, copy),
            (MEMSET, fill),
            (MEMORY2, memory),
            (MEMORY_POOL, pool),
            (OVERHEAD, overhead),
            (SYNCHRONIZATION, wait),
            (GRAPH_TRACE, graph),
        ];
        for (kind, size) in sizes {
            let found = of_kind(&records, kind);
            assert!(!found.is_empty(), "{release}: nothing of kind {kind}");
            for record in found {
                assert_eq!(record.len(), size, "{release}: kind {kind}");
            }
        }
    }
}

#[test]
fn fields_are_where_the_headers_have_them() {
    let world = World::new("12.4", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&KINDS);
    let function = cuda.function("_Z4gemmPf", Some(1_500)).unwrap();
    let stream = cuda.stream().unwrap();
    cuda.launch(function, stream).unwrap();
    cuda.copy(Direction::DeviceToHost, 1 << 20, Some(stream)).unwrap();
    let plain = cuda.alloc(3 << 20).unwrap();
    let pooled = cuda.alloc_async(5 << 20, stream).unwrap();
    cuda.free(plain).unwrap();
    cuda.synchronize().unwrap();
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();

    let kernel = of_kind(&records, CONCURRENT_KERNEL)[0];
    assert_eq!(u64_at(kernel, 24) - u64_at(kernel, 16), 1_500);
    assert_eq!(u32_at(kernel, 40), 0);
    assert_eq!(u32_at(kernel, 44), 1);
    let stream_number = u32_at(kernel, 48);
    assert_eq!([u32_at(kernel, 52), u32_at(kernel, 64)], [108, 256]);
    assert_eq!(text_at(kernel, 104), b"_Z4gemmPf");

    let copy = of_kind(&records, MEMCPY)[0];
    assert_eq!(copy[4], 2);
    assert_eq!(u64_at(copy, 8), 1 << 20);
    assert_eq!(
        u64_at(copy, 24) - u64_at(copy, 16),
        cuda.copy_duration_ns(Direction::DeviceToHost, 1 << 20)
    );
    assert_eq!(u32_at(copy, 40), stream_number);
    assert!(
        u64_at(copy, 16) >= u64_at(kernel, 24),
        "one thing after the other"
    );
    assert_ne!(u32_at(copy, 44), u32_at(kernel, 92));

    let memory = of_kind(&records, MEMORY2);
    assert_eq!(memory.len(), 3);
    assert_eq!(
        [u32_at(memory[0], 4), u32_at(memory[0], 8), u32_at(memory[0], 72)],
        [1, 3, 0]
    );
    assert_eq!([u64_at(memory[0], 16), u64_at(memory[0], 24)], [plain, 3 << 20]);
    assert_eq!(u32_at(memory[0], 48), std::process::id());
    assert_eq!([u64_at(memory[1], 16), u64_at(memory[1], 24)], [pooled, 5 << 20]);
    assert_eq!([u32_at(memory[1], 72), u32_at(memory[1], 80)], [1, 1]);
    assert_eq!(
        [u64_at(memory[1], 104), u64_at(memory[1], 112)],
        [32 << 20, 5 << 20]
    );
    assert_eq!((u32_at(memory[2], 4), u64_at(memory[2], 16)), (2, plain));
    let pool = of_kind(&records, MEMORY_POOL)[0];
    assert_eq!(u32_at(pool, 4), 1);
    assert_eq!(u64_at(pool, 32), u64_at(memory[1], 88));
}

#[test]
fn a_graph_is_its_nodes_until_graphs_are_traced_and_one_record_from_then_on() {
    let world = World::new("13.0", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    let nodes =
        [("first", 2_000), ("second", 3_000)].map(|(name, ns)| cuda.function(name, Some(ns)).unwrap());
    let graph = cuda.graph(&nodes).unwrap();
    let launch = || {
        cuda.launch_graph(graph, Stream::DEFAULT).unwrap();
        cuda.synchronize().unwrap();
        assert_eq!(world.cupti.flush(), 0);
        agent::take()
    };
    let records = launch();
    assert_eq!(records.len(), 2);
    assert_eq!(u32_at(&records[0], 92), u32_at(&records[1], 92), "one call");
    assert_ne!(u64_at(&records[0], 144), u64_at(&records[1], 144));
    let id = u32_at(&records[0], 156);
    assert_ne!(id, 0);

    world.cupti.collect(&[GRAPH_TRACE]);
    let records = launch();
    assert_eq!(records.len(), 1);
    assert_eq!(
        [u32_at(&records[0], 0), u32_at(&records[0], 28)],
        [GRAPH_TRACE, id]
    );
    assert_eq!(u64_at(&records[0], 16) - u64_at(&records[0], 8), 5_000);

    let disabled = world
        .cupti
        .call("cuptiActivityDisable", [GRAPH_TRACE as usize, 0, 0, 0, 0]);
    assert_eq!(disabled, 0);
    assert!(launch().is_empty(), "the nodes do not come back");
}

#[test]
fn a_release_of_the_future_has_kinds_that_nobody_knows_between_those_that_all_know() {
    let world = World::new("future", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    let function = cuda.function("gemm", Some(100)).unwrap();
    for _ in 0..64 {
        cuda.launch(function, Stream::DEFAULT).unwrap();
    }
    cuda.synchronize().unwrap();
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();
    assert_eq!(of_kind(&records, CONCURRENT_KERNEL).len(), 64);
    let unknown: Vec<_> = records
        .iter()
        .filter(|record| u32_at(record, 0) > GRAPH_TRACE)
        .collect();
    assert_eq!(unknown.len(), 8);
}
