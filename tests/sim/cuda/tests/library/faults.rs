//! Each fault does what its word says.
#![expect(unsafe_code, reason = "is called by CUPTI")]

use std::sync::atomic::Ordering::SeqCst;

use plimsoll_sim_cuda::{Cuda, Stream, fork_child};

use crate::agent::{self, of_kind, text_at, u32_at, u64_at};
use crate::world::*;

fn launch(cuda: &Cuda, name: &str, times: usize) {
    let function = cuda.function(name, Some(200)).unwrap();
    for _ in 0..times {
        cuda.launch(function, Stream::DEFAULT).unwrap();
    }
    cuda.synchronize().unwrap();
}

#[test]
fn kernels_without_times_and_kernels_that_are_dropped() {
    let world = World::new("13.0", "drops:2,zero-timestamps:3,inverted:4");
    world.cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    launch(&world.cuda, "gemm", 20);
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();
    assert_eq!(records.len(), 18);
    assert_eq!((world.cupti.dropped(), world.cupti.dropped()), (2, 0));
    let times: Vec<_> = records
        .iter()
        .map(|record| (u64_at(record, 16), u64_at(record, 24)))
        .collect();
    assert_eq!(times[..3], [(0, 0); 3]);
    assert!(times[3..7].iter().all(|(start, end)| end < start && *end > 0));
    assert!(times[7..].iter().all(|(start, end)| end - start == 200));
}

#[test]
fn names_that_are_no_text_or_too_long() {
    let world = World::new("13.0", "non-utf8-names,huge-names");
    world.cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    launch(&world.cuda, "gemm", 1);
    assert_eq!(world.cupti.flush(), 0);
    let name = text_at(&agent::take()[0], 104);
    assert_eq!(name.len(), 64 << 10);
    assert!(name.starts_with(b"gemm\xff"));
    assert!(String::from_utf8(name).is_err());
}

#[test]
fn a_kind_that_is_refused() {
    let world = World::new("13.0", "enable-fails:51:27");
    let enable = |kind: usize| world.cupti.call("cuptiActivityEnable", [kind, 0, 0, 0, 0]);
    assert_eq!((enable(51), enable(10), enable(0), enable(1000)), (27, 0, 21, 21));
}

#[test]
fn a_subscriber_is_already_there() {
    unsafe extern "C" fn never(_: *mut std::ffi::c_void, _: u32, _: u32, _: *const agent::CallData) {}
    let world = World::new("13.0", "subscribe-busy");
    assert_eq!(world.cupti.subscribe(never).0, 39);
}

#[test]
fn all_of_cupti_fails() {
    for (fault, code) in [("not-initialized", 15), ("fails:999", 999)] {
        let world = World::new("13.0", fault);
        let mut version = 0_u32;
        let place = (&raw mut version).expose_provenance();
        assert_eq!(world.cupti.call("cuptiGetVersion", [place, 0, 0, 0, 0]), code);
        assert_eq!(world.cupti.call("cuptiActivityEnable", [10, 0, 0, 0, 0]), code);
        assert_eq!(world.cupti.flush(), code);
        assert_eq!(version, 0);
        world.cuda.init().expect("the driver works all the same");
    }
}

#[test]
fn a_function_that_this_library_misses() {
    let world = World::new(
        "13.0",
        "missing-symbol:cuptiActivityFlushPeriod,missing-symbol:cuptiFinalizer",
    );
    world.cuda.init().unwrap();
    assert!(!world.cupti.has("cuptiActivityFlushPeriod"));
    assert!(world.cupti.has("cuptiActivityFlushAll"));
}

#[test]
fn a_record_that_is_cut_off() {
    let world = World::new("13.0", "bad-record-length");
    world.cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    launch(&world.cuda, "gemm", 5);
    assert_eq!(world.cupti.flush(), 0);
    let sizes: Vec<_> = agent::take().iter().map(Vec::len).collect();
    assert_eq!(sizes, [216, 216, 216, 216, 108]);
}

#[test]
fn a_record_that_is_garbage() {
    let world = World::new("13.0", "garbage-record");
    world.cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    launch(&world.cuda, "gemm", 5);
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!(agent::take().len(), 4);
    assert_eq!(agent::take_ends(), [21]);
}

#[test]
fn another_client_takes_over() {
    let world = World::new("13.0", "displaced:2");
    world.cuda.init().unwrap();
    agent::BUFFER_BYTES.store(4 << 10, SeqCst);
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    launch(&world.cuda, "gemm", 1);
    assert_eq!(world.cupti.flush(), 0);
    assert_eq!(agent::take().len(), 1);
    launch(&world.cuda, "gemm", 1);
    assert_eq!(world.cupti.flush(), 0);
    for _ in 0..3 {
        launch(&world.cuda, "gemm", 100);
        assert_eq!(world.cupti.flush(), 0);
    }
    assert_eq!(
        agent::count(),
        0,
        "from the second flush on the other one gets everything"
    );
    world.cupti.collect(&[]);
    launch(&world.cuda, "gemm", 3);
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();
    assert_eq!(
        of_kind(&records, CONCURRENT_KERNEL).len(),
        3,
        "who registers last has it"
    );
    assert!(
        records
            .iter()
            .all(|record| u32_at(record, 0) == CONCURRENT_KERNEL)
    );
}

#[test]
fn a_clock_that_is_set() {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let world = World::new("13.0", "clock-step:2:-3600000");
    world.cuda.init().unwrap();
    world.cupti.collect(&[CONCURRENT_KERNEL, MEMORY2]);
    let timestamp = || {
        let mut now = 0_u64;
        let place = (&raw mut now).expose_provenance();
        assert_eq!(world.cupti.call("cuptiGetTimestamp", [place, 0, 0, 0, 0]), 0);
        now
    };
    let begin = timestamp();
    launch(&world.cuda, "gemm", 1);
    assert_eq!(world.cupti.flush(), 0);
    assert!(u64_at(&agent::take()[0], 16) >= begin);
    assert_eq!(world.cupti.flush(), 0);
    // No test takes an hour.
    assert!(timestamp() < begin);
    let device_goes_on = std::time::Instant::now();
    launch(&world.cuda, "gemm", 1);
    assert!(device_goes_on.elapsed().as_secs() < 1_800);
    world.cuda.alloc(1).unwrap();
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();
    let kernel = of_kind(&records, CONCURRENT_KERNEL)[0];
    assert_eq!(u64_at(kernel, 24) - u64_at(kernel, 16), 200);
    let memory = of_kind(&records, MEMORY2)[0];
    assert!(
        [u64_at(kernel, 16), u64_at(memory, 32)]
            .into_iter()
            .all(|at| at < begin && at + HOUR_NS > begin)
    );
}

#[test]
fn a_flush_that_takes_its_time() {
    let world = World::new("13.0", "slow-flush:30");
    let begin = std::time::Instant::now();
    assert_eq!(world.cupti.flush(), 0);
    assert!(begin.elapsed().as_millis() >= 30);
}

#[test]
fn what_ends_the_process() {
    let world = World::new("13.1", "crash-on-version");
    let ended = fork_child(|| {
        let mut version = 0_u32;
        world.cupti.call(
            "cuptiGetVersion",
            [(&raw mut version).expose_provenance(), 0, 0, 0, 0],
        );
    });
    assert_eq!(ended.unwrap(), None, "a signal");
    drop(world);

    let world = World::new("12.4", "refusal-crashes");
    let ended = fork_child(|| {
        world.cuda.init().unwrap();
        agent::REFUSES.store(true, SeqCst);
        world.cupti.collect(&[CONCURRENT_KERNEL]);
        launch(&world.cuda, "gemm", 1);
    });
    assert_eq!(ended.unwrap(), None, "a signal");
}

#[test]
fn results_have_names() {
    let world = World::new("13.0", "");
    let name = |code: usize| {
        let mut text: *const std::ffi::c_char = std::ptr::null();
        let place = (&raw mut text).expose_provenance();
        (
            world.cupti.call("cuptiGetResultString", [code, place, 0, 0, 0]),
            text.is_null(),
        )
    };
    assert_eq!(name(39), (0, false));
    assert_eq!(name(4711), (1, true));
}
