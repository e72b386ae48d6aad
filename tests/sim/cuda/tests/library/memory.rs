//! Memory is taken on the simulated GPU, and clients hear of it by records or callbacks.
#![expect(unsafe_code, reason = "is called by CUPTI")]

use std::ffi::{CStr, c_void};
use std::sync::Mutex;

use plimsoll_sim_cuda::Stream;

use crate::agent::{self, CallData, of_kind, u32_at, u64_at};
use crate::world::*;

const MIB: u64 = 1 << 20;

#[test]
fn a_process_has_what_it_took_and_no_more_than_there_is() {
    let world = World::new("13.0", "");
    let gpu = world.add_gpu();
    let used = || gpu.processes(0).map(|process| process.used_bytes).sum::<u64>();
    let cuda = &world.cuda;
    cuda.init().unwrap();
    let context = used();
    assert!(context > 0);
    assert_eq!(gpu.processes(0).next().unwrap().pid, std::process::id());

    let first = cuda.alloc(1 << 30).unwrap();
    let small = cuda.alloc(1).unwrap();
    assert_eq!(used() - context, (1 << 30) + 2 * MIB, "whole pieces of 2 MiB");
    let refused = cuda.alloc(8 << 30).unwrap_err();
    assert!(refused.is_out_of_memory());
    assert_eq!(used() - context, (1 << 30) + 2 * MIB);
    let (free, total) = cuda.memory().unwrap();
    assert_eq!((free, total), ((8 << 30) - used(), 8 << 30));
    cuda.free(first).unwrap();
    cuda.free(small).unwrap();
    assert_eq!(used(), context);
    assert_eq!(cuda.free(first).unwrap_err().code, 1, "given back already");

    let pooled = cuda.alloc_async(40 * MIB, Stream::DEFAULT).unwrap();
    assert_eq!(used() - context, 64 * MIB, "pools take 32 MiB at once");
    cuda.free_async(pooled, Stream::DEFAULT).unwrap();
    assert_eq!(used() - context, 64 * MIB, "and keep them");
    cuda.synchronize().unwrap();
    assert_eq!(used(), context, "until somebody waits");

    let handle = cuda.create(4 * MIB).unwrap();
    let address = cuda.reserve(8 * MIB).unwrap();
    cuda.map(address, 4 * MIB, handle).unwrap();
    assert!(cuda.map(address, 4 * MIB, handle).is_err());
    cuda.release(handle).unwrap();
    assert_eq!(used() - context, 4 * MIB, "mapped memory stays");
    cuda.unmap(address, 4 * MIB).unwrap();
    assert_eq!(used(), context);
    cuda.free_reservation(address, 8 * MIB).unwrap();
}

#[test]
fn tracing_takes_memory_too() {
    let world = World::new("13.0", "");
    let gpu = world.add_gpu();
    let used = || gpu.processes(0).map(|process| process.used_bytes).sum::<u64>();
    world.cuda.init().unwrap();
    let context = used();
    world.cupti.collect(&[MEMORY2]);
    assert_eq!(used(), context, "records of memory need none");
    world.cupti.collect(&[CONCURRENT_KERNEL]);
    assert_eq!(used() - context, 3 * 3_200_000);
}

#[test]
fn every_kind_of_memory_has_records_that_balance() {
    let world = World::new("12.4", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&[MEMORY2]);
    let device = cuda.alloc(5).unwrap();
    let pinned = cuda.alloc_host(6).unwrap();
    let pooled = cuda.alloc_async(7, Stream::DEFAULT).unwrap();
    cuda.free_async(pooled, Stream::DEFAULT).unwrap();
    cuda.free_host(pinned).unwrap();
    cuda.free(device).unwrap();
    assert_eq!(world.cupti.flush(), 0);
    let records = agent::take();
    let seen: Vec<_> = of_kind(&records, MEMORY2)
        .into_iter()
        .map(|record| {
            (
                u32_at(record, 4),
                u32_at(record, 8),
                u64_at(record, 16),
                u64_at(record, 24),
            )
        })
        .collect();
    let (alloc, release) = (1, 2);
    assert_eq!(
        seen,
        [
            (alloc, 3, device, 5),
            (alloc, 2, pinned, 6),
            (alloc, 3, pooled, 7),
            (release, 3, pooled, 7),
            (release, 2, pinned, 6),
            (release, 3, device, 5)
        ]
    );
}

/// A call as a subscriber heard of it: name, site, result, and the first two parameters.
type Heard = (String, u32, u32, u64, u64);

static CALLS: Mutex<Vec<Heard>> = Mutex::new(Vec::new());

unsafe extern "C" fn heard(_: *mut c_void, domain: u32, id: u32, call: *const CallData) {
    assert_eq!(domain, 1);
    // SAFETY: CUPTI gives a call with its name, parameters and result.
    let (name, site, result, params) = unsafe {
        let call = &*call;
        let name = CStr::from_ptr(call.name).to_str().unwrap().to_owned();
        (name, call.site, *call.result, call.params)
    };
    // SAFETY: all calls that the test asks for have at least one parameter of 8 bytes.
    let mut first = unsafe { params.read() };
    if matches!(id, 547 | 549) {
        // SAFETY: these two have a pointer to a number first, which is written when they return.
        first = unsafe { *params.cast::<*const u64>().read() };
    }
    let mut second = 0;
    if id != 550 {
        // SAFETY: all but the release have a second one.
        second = unsafe { params.add(1).read() };
    }
    CALLS.lock().unwrap().push((name, site, result, first, second));
}

#[test]
fn virtual_memory_is_heard_of_by_callbacks_alone() {
    let world = World::new("12.4", "");
    let cuda = &world.cuda;
    cuda.init().unwrap();
    world.cupti.collect(&[MEMORY2, MEMORY_POOL]);
    let (code, subscriber) = world.cupti.subscribe(heard);
    assert_eq!(code, 0);
    assert_eq!(world.cupti.subscribe(heard).0, 39, "there is one at most");
    for id in 547..=552 {
        assert_eq!(
            world.cupti.call("cuptiEnableCallback", [1, subscriber, 1, id, 0]),
            0
        );
    }
    let address = cuda.reserve(4 * MIB).unwrap();
    let handle = cuda.create(2 * MIB).unwrap();
    cuda.map(address, 2 * MIB, handle).unwrap();
    cuda.unmap(address, 2 * MIB).unwrap();
    cuda.release(handle).unwrap();
    cuda.free_reservation(address, 4 * MIB).unwrap();
    assert!(cuda.release(handle).is_err());
    let _not_asked_for = cuda.alloc(1).unwrap();
    assert_eq!(world.cupti.flush(), 0);
    let calls = std::mem::take(&mut *CALLS.lock().unwrap());
    let exits: Vec<_> = calls
        .iter()
        .filter(|call| call.1 == 1)
        .map(|(name, _, result, first, second)| (name.as_str(), *result, *first, *second))
        .collect();
    assert_eq!(
        exits,
        [
            ("cuMemAddressReserve", 0, address, 4 * MIB),
            ("cuMemCreate", 0, handle, 2 * MIB),
            ("cuMemMap", 0, address, 2 * MIB),
            ("cuMemUnmap", 0, address, 2 * MIB),
            ("cuMemRelease", 0, handle, 0),
            ("cuMemAddressFree", 0, address, 4 * MIB),
            ("cuMemRelease", 1, handle, 0),
        ]
    );
    assert_eq!(
        calls.len(),
        2 * exits.len(),
        "each call is heard of before and after"
    );
    assert_eq!(agent::take().len(), 1, "only cuMemAlloc has a record");

    assert_eq!(world.cupti.call("cuptiUnsubscribe", [subscriber, 0, 0, 0, 0]), 0);
    cuda.reserve(2 * MIB).unwrap();
    assert!(CALLS.lock().unwrap().is_empty());
}
