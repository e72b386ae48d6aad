use proptest::prelude::*;

use super::*;
use crate::TraceTier;
use crate::wire::{Direction, LossReason, State};

fn stats() -> impl Strategy<Value = KernelStats> {
    (
        any::<u32>(),
        0..8_u32,
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        proptest::collection::btree_map(any::<u8>(), any::<u64>(), 0..20),
    )
        .prop_map(|(name, device, count, total_ns, a, b, buckets)| KernelStats {
            name,
            device,
            count,
            total_ns,
            min_ns: a.min(b),
            max_ns: a.max(b),
            buckets: buckets.into_iter().collect(),
        })
}

fn round_trip(frame: &Frame) {
    let mut bytes = Vec::new();
    let kind = frame.encode(&mut bytes);
    assert_eq!(Frame::decode(kind, &bytes).as_ref(), Ok(&Some(frame.clone())));
    // Cut anywhere, it is an error and nothing worse; longer, it is a newer agent's.
    for end in 0..bytes.len() {
        drop(Frame::decode(kind, &bytes[..end]));
    }
    bytes.push(1);
    assert_eq!(Frame::decode(kind, &bytes).as_ref(), Ok(&Some(frame.clone())));
}

#[test]
fn every_kind_round_trips() {
    let process = Process {
        pid: 7,
        tier: TraceTier::Graph,
        cupti: Some(18),
        flush_ms: 1000,
        rank: Some(0),
        local_rank: None,
        visible_devices: "0,1".into(),
        exe: "/usr/bin/python3".into(),
        budget_ppm: Some(10_000),
    };
    let event = AllocationEvent {
        at_ns: 5,
        device: 1,
        operation: MemoryOperation::Free,
        kind: MemoryKind::Pinned,
        address: u64::MAX - 1,
        bytes: None,
    };
    let copy = CopyStats {
        device: 0,
        direction: Direction::PeerToPeer,
        count: 1,
        bytes: 1 << 40,
        total_ns: 9,
    };
    let span = Span {
        name: 1,
        device: 2,
        stream: 3,
        start_ns: 4,
        end_ns: 5,
    };
    let cost = Cost {
        wall_ns: 1,
        thread_ns: 2,
        hooks_ns: 3,
        traced_ns: 4,
        device_bytes: Some(0),
        tier: TraceTier::Memory,
    };
    let frames = [
        Frame::Process(process),
        Frame::Name {
            id: 3,
            name: b"_Z3fooPf\xff".to_vec(),
        },
        Frame::Device {
            index: 1,
            uuid: [9; 16],
        },
        Frame::Clock(Clock {
            cupti_ns: 1,
            monotonic_ns: 2,
            realtime_ns: u64::MAX,
        }),
        Frame::Copies(Copies {
            start_ns: 0,
            end_ns: 1,
            stats: vec![copy],
        }),
        Frame::Memory(vec![event]),
        Frame::Levels(Levels {
            live_bytes: 3,
            pool_bytes: Some(0),
            at_ns: Some(7),
            ..Levels::default()
        }),
        Frame::Spans(Spans { spans: vec![span] }),
        Frame::Loss {
            reason: LossReason::RingFull,
            count: 3,
        },
        Frame::Cost(cost),
        Frame::State {
            state: State::Displaced,
            message: "torch.profiler".into(),
        },
        Frame::Finished,
    ];
    frames.iter().for_each(round_trip);
}

#[test]
fn what_is_newer_is_skipped_and_what_is_hostile_is_refused() {
    assert_eq!(Frame::decode(999, b"anything"), Ok(None));
    // A claim of 2^60 events.
    let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(Frame::decode(7, &claim), Err(Malformed("more items than bytes")));
    assert_eq!(
        Frame::decode(4, &[0xff; 11]),
        Err(Malformed("a number of more than 64 bits"))
    );
}

#[test]
fn two_hundred_names_cost_less_than_sixteen_kilobytes_a_second() {
    let stats = |name: u32| KernelStats {
        name,
        device: 7,
        count: 100_000,
        total_ns: 999_000_000,
        min_ns: 3_000,
        max_ns: 900_000,
        buckets: (40..50).map(|bucket| (bucket, 10_000)).collect(),
    };
    let kernels = Kernels {
        start_ns: 1 << 60,
        end_ns: (1 << 60) + 1_000_000_000,
        stats: (0..200).map(stats).collect(),
    };
    let mut bytes = Vec::new();
    Frame::Kernels(kernels).encode(&mut bytes);
    assert!(bytes.len() <= 200 * 64, "{} bytes", bytes.len());
}

proptest! {
    #[test]
    fn kernels_round_trip(start in 0..u64::MAX / 2, length in 0..u64::MAX / 2, stats in proptest::collection::vec(stats(), 0..20)) {
        round_trip(&Frame::Kernels(Kernels { start_ns: start, end_ns: start + length, stats }));
    }

    #[test]
    fn no_bytes_are_too_strange(kind in 0..16_u16, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some(frame)) = Frame::decode(kind, &bytes) {
            round_trip(&frame);
        }
    }
}
