//! The consumer at saturation: full buffers, one after the other.
#![expect(unsafe_code, reason = "stands in for the library that steps through records")]

use std::ffi::{CString, c_void};
use std::hint::black_box;
use std::time::Instant;

use cupti_sys::{Answer, CompleteBuffer, Functions, Records, RequestBuffer};
use plimsoll_agent::measured::Measured;

use crate::Row;
use crate::floor::Floor;

const BUFFER: usize = 1 << 20;
/// As many as are in use at once: the lowest free one is always the next.
const BUFFERS: usize = 4;
const NAMES: usize = 200;
const ROUNDS: usize = 40;
/// A kernel's record in CUPTI 13.4 and 13.5.
const RECORD: usize = 248;

pub(crate) fn rows() -> Vec<Row> {
    let functions = functions();
    let names: Vec<CString> = (0..NAMES)
        .map(|number| {
            let name = format!("_ZN7cutlass13device_kernelINS_4gemm6kernel{number:04}GemmUniversalIN4cute5tupleIJiiiiEEEEEEvT_");
            CString::new(name).unwrap()
        })
        .collect();
    let mut buffers: Vec<Vec<u64>> = (0..BUFFERS).map(|number| fill(&names, number)).collect();
    let records = BUFFER / RECORD * BUFFERS;
    let valid = BUFFER / RECORD * RECORD;
    let mut measure = |read: &mut dyn FnMut(*mut u8, usize)| {
        // The median of rounds: another process on the machine makes single ones slow.
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let began = Instant::now();
                for buffer in &mut buffers {
                    read(buffer.as_mut_ptr().cast(), valid);
                }
                #[expect(clippy::cast_precision_loss, reason = "a few thousand records")]
                let each = began.elapsed().as_nanos() as f64 / records as f64;
                each
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[ROUNDS / 2]
    };

    let stepped = measure(&mut |start, valid| {
        // SAFETY: the buffer is this function's own.
        for record in unsafe { Records::of(&functions, start, valid) } {
            black_box(record);
        }
    });
    let mut floor = Floor::new();
    let least = measure(&mut |start, valid| floor.read(&functions, start, valid));
    assert_eq!(floor.count(), (records * ROUNDS) as u64);

    let mut agent = Measured::default();
    // SAFETY: the buffer is this function's own.
    let summed = measure(&mut |start, valid| unsafe { agent.read(&functions, start, valid) });
    let mut counted = 0;
    let mut wire = Vec::new();
    let mut bytes = 0;
    agent.tell(1, |frame| {
        frame.encode(&mut wire);
        if let plimsoll_trace::wire::Frame::Kernels(kernels) = frame {
            bytes += wire.len();
            counted += kernels.stats.iter().map(|stats| stats.count).sum::<u64>();
        }
        true
    });
    assert_eq!((counted, agent.lost()), ((records * ROUNDS) as u64, 0));

    let mut windowed = Measured::default();
    let spans = measure(&mut |start, valid| {
        windowed.open_window(0, u64::MAX);
        // SAFETY: as above.
        unsafe { windowed.read(&functions, start, valid) };
        windowed.tell(1, |frame| {
            frame.encode(&mut wire);
            true
        });
    });
    let mut spare = vec![0_u64; BUFFER / 8];
    let zeroed = measure(&mut |_, _| black_box(&mut spare).fill(0));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
    let bytes = bytes as f64;
    let row = |what, agent, floor, goal, unit| Row {
        what,
        agent,
        floor,
        goal,
        unit,
    };
    vec![
        row("stepping alone", stepped, None, "", "ns per record"),
        row(
            "adding up, at saturation",
            summed,
            Some(least),
            "25, twice the least",
            "ns per record",
        ),
        row(
            "adding up and telling each",
            spans,
            Some(least),
            "40",
            "ns per record",
        ),
        row("zeroing the buffer", zeroed, None, "", "ns per record"),
        row("200 names, a period on the wire", bytes, None, "16000", "bytes"),
    ]
}

/// A buffer of kernels in the order in which an engine launches them: layer after layer.
fn fill(names: &[CString], seed: usize) -> Vec<u64> {
    let mut words = vec![0_u64; BUFFER / 8];
    let mut state = seed as u64 * 2 + 1;
    for (at, record) in words.chunks_exact_mut(RECORD / 8).enumerate() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let start = 1_700_000_000_000_000_000 + at as u64 * 3_000;
        record[0] = 10;
        record[2] = start;
        record[3] = start + 2_000 + (state >> 52);
        record[13] = names[(at * 7 + seed) % names.len()].as_ptr().expose_provenance() as u64;
    }
    words
}

/// Steps as the library does: reads the kind, looks its length up.
// SAFETY: whoever calls passes a buffer with so many valid bytes, and a place that holds a record of it or null.
unsafe extern "C" fn next(start: *mut u8, valid: usize, record: *mut *mut u8) -> Answer {
    static LENGTHS: [u16; 64] = {
        let mut lengths = [0; 64];
        lengths[10] = 248;
        lengths[1] = 112;
        lengths
    };
    // SAFETY: called with a place to write to and a record of the buffer in it, or null.
    unsafe {
        let current = *record;
        if current.is_null() {
            *record = start;
            return Answer::SUCCESS;
        }
        let kind = current.cast::<u32>().read_unaligned() as usize;
        let next = current.wrapping_add(LENGTHS[kind & 63].into());
        if next >= start.wrapping_add(valid) {
            return Answer::MAX_LIMIT_REACHED;
        }
        *record = next;
        Answer::SUCCESS
    }
}

fn functions() -> Functions {
    // SAFETY, of all five: they touch nothing that they are given, and are unsafe only to have CUPTI's type.
    unsafe extern "C" fn register(_: RequestBuffer, _: CompleteBuffer) -> Answer {
        Answer::SUCCESS
    }
    unsafe extern "C" fn number(_: u32) -> Answer {
        Answer::SUCCESS
    }
    unsafe extern "C" fn dropped(_: *mut c_void, _: u32, _: *mut usize) -> Answer {
        Answer::SUCCESS
    }
    unsafe extern "C" fn attribute(_: u32, _: *mut usize, _: *mut c_void) -> Answer {
        Answer::SUCCESS
    }
    unsafe extern "C" fn timestamp(_: *mut u64) -> Answer {
        Answer::SUCCESS
    }
    Functions {
        register_callbacks: register,
        enable: number,
        disable: number,
        flush_all: number,
        get_next_record: black_box(next as _),
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
