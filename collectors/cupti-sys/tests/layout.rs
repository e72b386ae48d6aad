//! The records against the offsets that were measured on the headers and libraries of CUPTI 11.8 to 13.5, and stepping
//! over records of every version's length.
#![expect(unsafe_code, reason = "stands in for the library's C functions")]

use std::ffi::c_void;
use std::mem::offset_of;

use cupti_sys::constant::kind;
use cupti_sys::record::{
    GraphTrace, Kernel, Memcpy, Memory, MemoryPool, Memset, Overhead, PeerCopy, Synchronization, later,
};
use cupti_sys::{Answer, CompleteBuffer, Ending, Functions, Record, Records, RequestBuffer};

macro_rules! offsets {
    ($record:ty: $($field:ident $offset:literal),+; $size:literal) => {
        $(assert_eq!(offset_of!($record, $field), $offset, concat!(stringify!($record), ".", stringify!($field)));)+
        assert_eq!(size_of::<$record>(), $size, stringify!($record));
    };
}

#[test]
fn prefixes_lie_as_measured() {
    offsets!(Kernel: kind 0, registers_per_thread 6, start 16, end 24, completed 32, device 40, context 44, stream 48,
        grid 52, block 64, static_shared 76, dynamic_shared 80, local_per_thread 84, local_total 88, correlation 92,
        grid_id 96, name 104; 112);
    offsets!(Memcpy: copy_kind 4, source_kind 5, target_kind 6, flags 7, bytes 8, start 16, end 24, device 32,
        context 36, stream 40, correlation 44; 48);
    offsets!(PeerCopy: copy_kind 4, bytes 8, start 16, end 24, device 32, context 36, stream 40, source_device 44,
        target_device 52, correlation 60; 64);
    offsets!(Memset: value 4, bytes 8, start 16, end 24, device 32, context 36, stream 40, correlation 44, flags 48,
        memory_kind 50; 56);
    offsets!(Memory: operation 4, memory_kind 8, correlation 12, address 16, bytes 24, timestamp 32,
        program_counter 40, process 48, device 52, context 56, stream 60, name 64, is_async 72, pool_type 80,
        pool_address 88, pool_release_threshold 96, pool_size 104, pool_used 112; 120);
    offsets!(MemoryPool: operation 4, pool_type 8, correlation 12, process 16, device 20, min_bytes_to_keep 24,
        address 32, size 40, release_threshold 48, timestamp 56, used 64; 72);
    offsets!(Overhead: overhead_kind 4, object_kind 8, object 12, start 24, end 32; 40);
    offsets!(Synchronization: wait 4, start 8, end 16, correlation 24, context 28, stream 32; 40);
    offsets!(GraphTrace: correlation 4, start 8, end 16, device 24, graph 28, context 32, stream 36; 40);
}

/// The sizes of each record through the versions, the shortest first.
const SIZES: [(u32, &[usize]); 9] = [
    (kind::CONCURRENT_KERNEL, &[176, 200, 208, 216, 224, 232, 248]),
    (kind::MEMCPY, &[88, 96, 112]),
    (kind::MEMCPY2, &[96]),
    (kind::MEMSET, &[88, 104]),
    (kind::MEMORY2, &[120, 128]),
    (kind::MEMORY_POOL, &[72, 80]),
    (kind::OVERHEAD, &[40, 48, 56]),
    (kind::SYNCHRONIZATION, &[40, 56]),
    (kind::GRAPH_TRACE, &[48, 56]),
];

/// Whether a record of this length can be read.
fn readable(kind: u32, bytes: &[u8]) -> bool {
    let record = Record::new(bytes);
    match kind {
        kind::CONCURRENT_KERNEL => record.view::<Kernel>().is_some(),
        kind::MEMCPY => record.view::<Memcpy>().is_some(),
        kind::MEMCPY2 => record.view::<PeerCopy>().is_some(),
        kind::MEMSET => record.view::<Memset>().is_some(),
        kind::MEMORY2 => record.view::<Memory>().is_some(),
        kind::MEMORY_POOL => record.view::<MemoryPool>().is_some(),
        kind::OVERHEAD => record.view::<Overhead>().is_some(),
        kind::SYNCHRONIZATION => record.view::<Synchronization>().is_some(),
        _ => record.view::<GraphTrace>().is_some(),
    }
}

#[test]
fn every_versions_records_are_long_enough_and_half_of_one_is_not() {
    for (kind, sizes) in SIZES {
        for size in sizes {
            assert!(readable(kind, &vec![0; *size]), "kind {kind} of {size} bytes");
        }
        assert!(!readable(kind, &[0; 39]), "kind {kind}");
    }
    assert_eq!(Record::new(&[1, 0]).kind(), 0);
}

#[test]
fn a_later_field_is_none_in_an_earlier_record() {
    let has = |size: usize, offset: usize| Record::new(&vec![7; size]).field::<8>(offset).is_some();
    // The version from which each field is there, by that version's length.
    for (offset, first_size, size_before) in [
        (later::KERNEL_GRAPH_NODE, 176, 112),
        (later::KERNEL_LOCAL_TOTAL, 200, 176),
        (later::KERNEL_DEVICE_LAUNCHED, 216, 208),
        (later::KERNEL_PRIORITY, 224, 216),
        (later::KERNEL_EXECUTION_MODEL, 232, 224),
        (later::KERNEL_SOURCE_GRAPH_NODE, 248, 232),
        (later::COPY_GRAPH_NODE, 88, 64),
        (later::MEMORY_SOURCE, 128, 120),
    ] {
        assert!(has(first_size, offset), "{offset} in {first_size}");
        assert!(!has(size_before, offset), "{offset} in {size_before}");
    }
    assert_eq!(Record::new(&[7; 8]).field::<4>(usize::MAX), None);
}

#[test]
fn all_lengths_are_stepped_over_and_read() {
    for round in 0..7 {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (kind, sizes) in SIZES {
            let size = *sizes.get(round).or(sizes.last()).unwrap();
            let mut record = vec![0; size];
            record[..4].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&record);
            expected.push((kind, size));
        }
        let functions = functions(next_of_sizes);
        let mut stepping = Stepping::begin(&expected, &mut bytes);
        let mut records = stepping.records(&functions);
        let found: Vec<_> = records
            .by_ref()
            .map(|record| (record.kind(), record.len()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(records.ending(), Ending::Complete);
    }
}

#[test]
fn stepping_never_leaves_the_buffer() {
    let mut bytes = vec![0; 256];
    for (next, ending) in [
        (next_backwards as Next, Ending::Broken(Answer::SUCCESS)),
        (next_far_ahead, Ending::Broken(Answer::SUCCESS)),
        (next_refuses, Ending::Broken(Answer::INVALID_KIND)),
    ] {
        let functions = functions(next);
        // SAFETY: the bytes are a buffer of this length, and nobody else has them.
        let mut records = unsafe { Records::of(&functions, bytes.as_mut_ptr(), bytes.len()) };
        assert_eq!(records.by_ref().map(Record::len).sum::<usize>(), 256);
        assert_eq!(records.ending(), ending);
    }
}

type Next = unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> Answer;

unsafe extern "C" fn next_backwards(start: *mut u8, _: usize, record: *mut *mut u8) -> Answer {
    // SAFETY: called with a place to write to.
    unsafe { *record = start };
    Answer::SUCCESS
}

unsafe extern "C" fn next_far_ahead(start: *mut u8, valid: usize, record: *mut *mut u8) -> Answer {
    // SAFETY: as above.
    unsafe {
        *record = if (*record).is_null() {
            start
        } else {
            start.wrapping_add(valid)
        }
    };
    Answer::SUCCESS
}

unsafe extern "C" fn next_refuses(start: *mut u8, _: usize, record: *mut *mut u8) -> Answer {
    // SAFETY: as above.
    if unsafe { (*record).is_null() } {
        // SAFETY: as above.
        unsafe { *record = start };
        Answer::SUCCESS
    } else {
        Answer::INVALID_KIND
    }
}

thread_local! {
    static LENGTHS: std::cell::RefCell<Vec<(u32, usize)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Steps as the library does: it knows how long the records of its version are.
unsafe extern "C" fn next_of_sizes(start: *mut u8, valid: usize, record: *mut *mut u8) -> Answer {
    // SAFETY: called with a place to read from and write to, and a record of the buffer in it.
    unsafe {
        if (*record).is_null() {
            *record = start;
            return Answer::SUCCESS;
        }
        let kind = (*record).cast::<u32>().read_unaligned();
        let length =
            LENGTHS.with_borrow(|known| known.iter().find(|(of, _)| *of == kind).map(|(_, size)| *size));
        let Some(length) = length else {
            return Answer::INVALID_KIND;
        };
        let next = (*record).wrapping_add(length);
        if next >= start.wrapping_add(valid) {
            return Answer::MAX_LIMIT_REACHED;
        }
        *record = next;
        Answer::SUCCESS
    }
}

/// A buffer whose records have these lengths.
struct Stepping<'a>(&'a mut [u8]);

impl<'a> Stepping<'a> {
    fn begin(lengths: &[(u32, usize)], bytes: &'a mut [u8]) -> Self {
        LENGTHS.set(lengths.to_vec());
        Self(bytes)
    }

    fn records<'b>(&'b mut self, functions: &'b Functions) -> Records<'b> {
        // SAFETY: the bytes are borrowed for as long as the records.
        unsafe { Records::of(functions, self.0.as_mut_ptr(), self.0.len()) }
    }
}

fn functions(get_next_record: Next) -> Functions {
    unsafe extern "C" fn register(_: RequestBuffer, _: CompleteBuffer) -> Answer {
        Answer::UNKNOWN
    }
    unsafe extern "C" fn number(_: u32) -> Answer {
        Answer::UNKNOWN
    }
    unsafe extern "C" fn dropped(_: *mut c_void, _: u32, _: *mut usize) -> Answer {
        Answer::UNKNOWN
    }
    unsafe extern "C" fn attribute(_: u32, _: *mut usize, _: *mut c_void) -> Answer {
        Answer::UNKNOWN
    }
    unsafe extern "C" fn timestamp(_: *mut u64) -> Answer {
        Answer::UNKNOWN
    }
    Functions {
        register_callbacks: register,
        enable: number,
        disable: number,
        flush_all: number,
        get_next_record,
        get_num_dropped_records: dropped,
        set_attribute: attribute,
        get_timestamp: timestamp,
        get_attribute: None,
        get_version: None,
        subscribe: None,
        unsubscribe: None,
        enable_callback: None,
        get_result_string: None,
    }
}
