//! Connections and rings that are not what they should be. Each is refused and counted, and harms nobody else.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use plimsoll_trace::wire::ring::{HEADER_WORDS, Writer};
use plimsoll_trace::wire::{
    AllocationEvent, Frame, Hello, KernelStats, Kernels, LossReason, MemoryKind, MemoryOperation, VERSION,
};
use plimsoll_trace::{Record, Stamp, Work};
use rustix::fs::SealFlags;

use crate::world::{RING_BYTES, Ring, World, connection, kernels, own, send};

/// Waits until the collector has closed a connection.
fn closed(mut stream: &UnixStream) {
    // A connection that was closed with something unread is reset.
    let end = stream.read(&mut [0; 16]);
    assert!(
        matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn what_is_no_hello_is_refused_and_counted() {
    let world = World::new();
    let good = Ring::sealed();
    Writer::create(good.words).unwrap();
    let hello = good.hello();
    let newer = Hello {
        version: VERSION + 1,
        ..hello
    };
    let lying = Hello {
        bytes: hello.bytes + 8,
        ..hello
    };
    let unsealed = Ring::new(RING_BYTES, SealFlags::GROW);
    Writer::create(unsealed.words).unwrap();
    let blank = Ring::sealed();
    let boasting = Ring::sealed();
    Writer::create(boasting.words).unwrap();
    boasting.words[2].store(1 << 40, Ordering::Relaxed);
    let later = Ring::sealed();
    Writer::create(later.words).unwrap();
    later.words[1].store(u64::from(VERSION) + 1, Ordering::Relaxed);
    let tiny = Ring::new(8, SealFlags::SHRINK);
    let read_only = Ring::new(
        RING_BYTES,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE,
    );
    let file = tempfile::tempfile().unwrap();
    file.set_len(RING_BYTES as u64).unwrap();
    let (pipe, _end) = std::io::pipe().unwrap();
    let ring = good.descriptor.as_fd();
    let cases = [
        ("a foreign hello", b"PLIMSOLL????????".to_vec(), vec![ring]),
        ("a newer version", newer.to_bytes().to_vec(), vec![ring]),
        ("no descriptor", hello.to_bytes().to_vec(), vec![]),
        ("two descriptors", hello.to_bytes().to_vec(), vec![ring, ring]),
        ("a lying size", lying.to_bytes().to_vec(), vec![ring]),
        (
            "memory that may shrink",
            unsealed.hello().to_bytes().to_vec(),
            vec![unsealed.descriptor.as_fd()],
        ),
        (
            "memory without a ring",
            blank.hello().to_bytes().to_vec(),
            vec![blank.descriptor.as_fd()],
        ),
        (
            "a ring that says more",
            boasting.hello().to_bytes().to_vec(),
            vec![boasting.descriptor.as_fd()],
        ),
        (
            "a newer ring",
            later.hello().to_bytes().to_vec(),
            vec![later.descriptor.as_fd()],
        ),
        (
            "a ring without a header",
            tiny.hello().to_bytes().to_vec(),
            vec![tiny.descriptor.as_fd()],
        ),
        (
            "memory that cannot be written",
            read_only.hello().to_bytes().to_vec(),
            vec![read_only.descriptor.as_fd()],
        ),
        ("a file", hello.to_bytes().to_vec(), vec![file.as_fd()]),
        ("a pipe", hello.to_bytes().to_vec(), vec![pipe.as_fd()]),
    ];
    let count = cases.len() as u64;
    for (what, bytes, descriptors) in cases {
        let stream = connection(&world.desk());
        send(&stream, &bytes, &descriptors);
        closed(&stream);
        println!("{what}: refused");
    }
    // Hung up in the middle, and silent in the middle.
    drop(connection(&world.desk()));
    let stream = connection(&world.desk());
    send(&stream, &hello.to_bytes()[..5], &[ring]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    closed(&stream);
    let silent = connection(&world.desk());
    send(&silent, &hello.to_bytes()[..15], &[ring]);
    closed(&silent);
    world.wait_lost("refused", count + 3);
    let told = world.records().into_iter().filter_map(|record| match record {
        plimsoll_trace::Record::Event(event) => Some(event.message),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    assert_eq!(told.len(), 1, "one a minute: {told:?}");
    assert!(
        told[0].ends_with("is not taken: not an agent's hello"),
        "{told:?}"
    );
    // And a good one is taken as ever, its hello in pieces.
    let stream = connection(&world.desk());
    send(&stream, &hello.to_bytes()[..1], &[ring]);
    (&stream).write_all(&hello.to_bytes()[1..]).unwrap();
    world.arrived(1);
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let world = World::new();
    let (mut read, write) = std::io::pipe().unwrap();
    let stream = connection(&world.desk());
    let ring = Ring::sealed();
    Writer::create(ring.words).unwrap();
    let hello = ring.hello().to_bytes();
    let many = vec![write.as_fd(); 250];
    send(&stream, &hello[..8], &many);
    send(&stream, &hello[8..], &many);
    closed(&stream);
    world.wait_lost("refused", 1);
    // Behind a good hello they are not even received.
    let agent = world.agent(1);
    send(&agent.stream, b"and these", &many);
    drop(stream);
    drop(write);
    // All copies are closed, so the pipe ends.
    assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_ring_of_garbage_is_skipped_and_counted() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    world.flush();
    let words = agent.ring.words;
    // Positions that make no sense, lengths that make no sense, and bytes that are no frame.
    words[8].store(u64::MAX, Ordering::Relaxed);
    world.flush();
    assert_eq!(world.lost("malformed"), 1);
    words[HEADER_WORDS..]
        .iter()
        .for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    words[16].store(0, Ordering::Relaxed);
    words[8].store(100, Ordering::Relaxed);
    world.flush();
    assert_eq!(world.lost("malformed"), 2);
    words[HEADER_WORDS..]
        .iter()
        .for_each(|word| word.store(0x8_0000_0003, Ordering::Relaxed));
    words[16].store(0, Ordering::Relaxed);
    words[8].store(100, Ordering::Relaxed);
    world.flush();
    assert_eq!(world.lost("malformed"), 52);
    // A header that is gone ends it; the next agent is served as ever.
    words[0].store(0, Ordering::Relaxed);
    world.flush();
    assert_eq!(world.lost("malformed"), 53);
    let mut other = world.agent(2);
    other.introduce(&["k"]);
    other.tell(&kernels(0, 4, 5));
    world.flush();
    assert_eq!(world.total("k"), (4, 20));
}

#[test]
fn no_other_user_takes_the_places_of_all() {
    let world = World::new();
    let ring = Ring::sealed();
    Writer::create(ring.words).unwrap();
    let connect = |uid| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        world
            .desk()
            .take(theirs, plimsoll_collectors::Peer { uid, ..own() });
        send(&ours, &ring.hello().to_bytes(), &[ring.descriptor.as_fd()]);
        ours
    };
    let _many: Vec<UnixStream> = (0..128).map(|_| connect(4_000)).collect();
    world.arrived(128);
    closed(&connect(4_000));
    let _other = connect(4_001);
    world.arrived(129);
    let _own = connect(own().uid);
    world.arrived(130);
}

#[test]
fn there_are_only_so_many_agents() {
    let world = World::new();
    let ring = Ring::sealed();
    Writer::create(ring.words).unwrap();
    let connect = || {
        let stream = connection(&world.desk());
        send(&stream, &ring.hello().to_bytes(), &[ring.descriptor.as_fd()]);
        stream
    };
    let streams: Vec<UnixStream> = (0..256).map(|_| connect()).collect();
    world.arrived(256);
    closed(&connect());
    for agent in world.arrived(256) {
        world.desk().bind(agent, plimsoll_trace::RunId(1));
    }
    drop(streams);
    world.wait("all have left", |reports| {
        let left = |report: &&_| matches!(report, plimsoll_collectors::AgentReport::Left(_));
        (reports.iter().filter(left).count() == 256).then_some(())
    });
    drop(connect());
    world.arrived(257);
}

/// A ring of so many frames that say nothing, all of it waiting.
fn full_of_nothing(world: &World, frames: usize) -> (UnixStream, Ring) {
    let ring = Ring::new((HEADER_WORDS + frames) * 8, SealFlags::SHRINK | SealFlags::GROW);
    Writer::create(ring.words).unwrap();
    // Kernels without a byte of them.
    ring.words[HEADER_WORDS..]
        .iter()
        .for_each(|word| word.store(5 << 32, Ordering::Relaxed));
    ring.words[8].store(frames as u64, Ordering::Relaxed);
    let stream = connection(&world.desk());
    send(&stream, &ring.hello().to_bytes(), &[ring.descriptor.as_fd()]);
    let id = *world.arrived(2).last().unwrap();
    world.desk().bind(id, plimsoll_trace::RunId(2));
    (stream, ring)
}

#[test]
fn a_ring_that_never_ends_holds_up_neither_others_nor_the_end() {
    let world = World::new();
    let mut good = world.agent(1);
    good.introduce(&["k"]);
    let (_stream, ring) = full_of_nothing(&world, 4 << 20);
    let (words, is_over) = (ring.words, Arc::new(AtomicBool::new(false)));
    let refills = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                let read = words[16].load(Ordering::Relaxed);
                words[8].store(read + (4 << 20), Ordering::Relaxed);
                std::thread::yield_now();
            }
        }
    });
    for _ in 0..3 {
        good.tell(&kernels(0, 4, 5));
        world.flush();
    }
    assert_eq!(world.total("k"), (12, 60));
    drop(world);
    is_over.store(true, Ordering::Relaxed);
    refills.join().unwrap();
}

#[test]
fn what_is_beyond_an_agent_s_share_stays_in_its_ring() {
    let world = World::new();
    let mut good = world.agent(1);
    good.introduce(&["k"]);
    let began = Instant::now();
    let (stream, _ring) = full_of_nothing(&world, 1 << 20);
    world.flush();
    good.tell(&kernels(0, 4, 5));
    world.flush();
    assert_eq!(world.total("k"), (4, 20));
    let most = 600_000 + 30_000 * (began.elapsed().as_secs() + 1);
    let read = world.lost("malformed");
    assert!((100_000..most).contains(&read), "{read} of at most {most}");
    // What it leaves behind is not lost.
    drop(stream);
    world.wait("its end", |reports| {
        let left = |report: &_| matches!(report, plimsoll_collectors::AgentReport::Left(_));
        reports.iter().any(left).then_some(())
    });
    assert_eq!(world.lost("malformed"), 1 << 20);
}

#[test]
fn frames_that_wait_for_their_names_are_few() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    let stats = KernelStats {
        name: 99,
        count: 168,
        total_ns: 168,
        min_ns: 1,
        max_ns: 1,
        buckets: (0..168).map(|bucket| (bucket, 1)).collect(),
        ..KernelStats::default()
    };
    let Frame::Kernels(frame) = kernels(0, 1, 1) else {
        unreachable!()
    };
    let frame = Frame::Kernels(Kernels {
        stats: vec![stats; 180],
        ..frame
    });
    for _ in 0..120 {
        if !agent.tell(&frame) {
            world.flush();
            assert!(agent.tell(&frame));
        }
    }
    world.flush();
    // Rather without their names than without a bound.
    assert!(world.total("(unnamed kernel 99)").0 > 0);
}

#[test]
fn losses_that_nobody_can_mean_are_not_added_up() {
    let world = World::new();
    let mut agent = world.agent(1);
    for _ in 0..2 {
        agent.tell(&Frame::Loss {
            reason: LossReason::DroppedByCupti,
            count: u64::MAX / 2,
        });
    }
    world.flush();
    assert_eq!((world.lost("dropped_by_cupti"), world.lost("malformed")), (0, 2));
    for _ in 0..3 {
        agent.ring.words[17].store(u64::MAX, Ordering::Relaxed);
        agent.ring.words[24].store(0, Ordering::Relaxed);
        world.flush();
    }
    assert!(world.lost("ring_full") <= 1 << 40);
}

#[test]
fn who_connects_again_goes_on_with_the_same_account() {
    let world = World::new();
    for run in 1..=8 {
        let mut agent = world.agent(run);
        agent.introduce(&["k"]);
        // More than half of what a young process is believed to have launched.
        agent.tell(&kernels(0, 4_000_000_000, 1));
        let event = AllocationEvent {
            at_ns: u64::try_from(Stamp::now().unix_ns).unwrap(),
            device: 0,
            operation: MemoryOperation::Alloc,
            kind: MemoryKind::Device,
            address: 1,
            bytes: Some(1 << 54),
        };
        agent.tell(&Frame::Memory(vec![event; 512]));
        world.flush();
    }
    let launched = world.total("k").0;
    assert!((4_000_000_000..32_000_000_000).contains(&launched), "{launched}");
    let bytes = world.records().into_iter().filter_map(|record| match record {
        Record::Traced(traced) => match traced.work {
            Work::Allocation(allocation) => Some(allocation.bytes),
            _ => None,
        },
        _ => None,
    });
    let bytes: Vec<Option<u64>> = bytes.collect();
    assert_eq!(bytes.len(), 8 * 512, "none is left out");
    assert_eq!(
        bytes.iter().flatten().sum::<u64>(),
        1 << 58,
        "sums fit into 64 bits"
    );
}
