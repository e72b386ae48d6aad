//! What good agents tell.

use std::sync::atomic::Ordering;

use plimsoll_collectors::AgentReport;
use plimsoll_trace::wire::{
    AllocationEvent, Clock, Copies, CopyStats, Cost, Direction, Frame, Levels, LossReason, MAX_NAME,
    MemoryKind, MemoryOperation, Span, Spans, State,
};
use plimsoll_trace::{EventKind, Level, Record, RunId, Stamp, TraceTier, Traced, Work};

use crate::world::{World, clock_now, kernels};

const UUID: &str = "GPU-abababab-abab-abab-abab-abababababab";

fn unix_now() -> u64 {
    u64::try_from(Stamp::now().unix_ns).unwrap()
}

fn works(world: &World) -> Vec<Traced> {
    let traced = |record| match record {
        Record::Traced(traced) => Some(traced),
        _ => None,
    };
    world.records().into_iter().filter_map(traced).collect()
}

#[test]
fn everything_that_is_told_becomes_a_record() {
    let world = World::new();
    let mut agent = world.agent(7);
    agent.introduce(&["_Z3foov", "gemm"]);
    let now = unix_now();
    agent.tell(&kernels(0, 10, 1_000_000));
    agent.tell(&Frame::Copies(Copies {
        start_ns: now - 1_000,
        end_ns: now,
        stats: vec![CopyStats {
            device: 0,
            direction: Direction::DeviceToHost,
            count: 2,
            bytes: 64,
            total_ns: 500,
        }],
    }));
    agent.tell(&Frame::Memory(vec![AllocationEvent {
        at_ns: now - 5,
        device: 0,
        operation: MemoryOperation::Alloc,
        kind: MemoryKind::Device,
        address: 0x1000,
        bytes: Some(4_096),
    }]));
    agent.tell(&Frame::Levels(Levels {
        live_bytes: 4_096,
        segments: 1,
        pool_bytes: Some(100),
        pool_used_bytes: Some(75),
        at_ns: Some(now - 60_000_000_000),
        ..Levels::default()
    }));
    agent.tell(&Frame::Spans(Spans {
        spans: vec![Span {
            name: 1,
            device: 0,
            stream: 9,
            start_ns: now - 100,
            end_ns: now - 50,
        }],
    }));
    agent.tell(&Frame::Loss {
        reason: LossReason::DroppedByCupti,
        count: 12,
    });
    agent.tell(&Frame::Cost(Cost {
        wall_ns: 1_000_000_000,
        thread_ns: 3_000_000,
        hooks_ns: 1_000_000,
        traced_ns: 500_000_000,
        device_bytes: Some(9 << 20),
        tier: TraceTier::Graph,
    }));
    agent.tell(&Frame::State {
        state: State::Displaced,
        message: "torch.profiler".into(),
    });
    world.flush();
    assert_eq!(world.total("_Z3foov"), (10, 10_000_000));
    assert_eq!(world.lost("dropped_by_cupti"), 12);
    let of_run = |record: &Record| matches!(record, Record::Loss(loss) if loss.run == Some(RunId(7)));
    assert!(world.records().iter().any(of_run), "a loss is its run's");
    let works = works(&world);
    assert!(
        works
            .iter()
            .all(|work| work.run == Some(RunId(7)) && work.pid == std::process::id())
    );
    for traced in &works {
        let has_device = !matches!(traced.work, Work::Signal { .. });
        assert_eq!(traced.device.as_deref(), has_device.then_some(UUID), "{traced:?}");
    }
    let signal = |name: &str| {
        works.iter().find_map(|traced| match &traced.work {
            Work::Signal { signal, value } if &**signal == name => Some(*value),
            _ => None,
        })
    };
    assert_eq!(signal("kernel.busy_ratio"), Some(0.01));
    assert_eq!(signal("kernel.launches_per_sec"), Some(10.0));
    assert_eq!(signal("agent.cost_ratio"), Some(0.004));
    assert_eq!(signal("agent.duty_ratio"), Some(0.5));
    assert_eq!(signal("agent.device_bytes"), Some(f64::from(9 << 20)));
    let at = i64::try_from(now).unwrap();
    for (what, found) in [
        (
            "the span",
            works.iter().any(|traced| matches!(&traced.work, Work::Span(span)
                if &*span.name == "gemm" && (span.start_ns, span.end_ns, span.stream) == (at - 100, at - 50, 9))),
        ),
        (
            "the allocation",
            works
                .iter()
                .any(|traced| matches!(&traced.work, Work::Allocation(a) if a.at_ns == at - 5 && a.bytes == Some(4_096))),
        ),
        (
            "the pools' level",
            works.iter().any(|traced| matches!(&traced.work, Work::Allocator(sample)
                if sample.level == Level::Pools && sample.slack_ratio() == Some(0.25)
                    && sample.at_ns == Some(at - 60_000_000_000))),
        ),
    ] {
        assert!(found, "{what}: {works:?}");
    }
    let events: Vec<(EventKind, String)> = world
        .records()
        .into_iter()
        .filter_map(|record| match record {
            Record::Event(event) => Some((event.kind, event.message)),
            _ => None,
        })
        .collect();
    assert_eq!(events[0].0, EventKind::AgentAttached);
    assert!(events[0].1.contains("rank 3: tier graph"), "{events:?}");
    assert_eq!(events[1].0, EventKind::AgentDisplaced);
    assert!(
        events[1].1.ends_with("by another profiler: torch.profiler"),
        "{events:?}"
    );
    world.wait("the introduction", |reports| {
        reports.iter().find_map(|report| match report {
            AgentReport::Introduced { run, process } => Some((*run, process.tier)),
            _ => None,
        })
    });
}

#[test]
fn processes_of_one_run_share_a_device_s_time() {
    let world = World::new();
    let mut agents = [world.agent(7), world.agent(7)];
    for (agent, each_ns) in agents.iter_mut().zip([250_000_000, 500_000_000]) {
        agent.introduce(&["k"]);
        agent.tell(&kernels(0, 1, each_ns));
    }
    world.flush();
    let busy = |traced: Traced| match traced.work {
        Work::Signal { signal, value } if &*signal == "kernel.busy_ratio" => Some(value),
        _ => None,
    };
    assert_eq!(works(&world).into_iter().filter_map(busy).next_back(), Some(0.75));
}

#[test]
fn nothing_is_read_before_the_run_is_known() {
    let mut world = World::new();
    let mut agent = crate::world::FakeAgent::connect(&world.desk());
    let id = world.arrived(1)[0];
    agent.introduce(&["k"]);
    agent.tell(&kernels(0, 5, 10));
    world.tick();
    // The order after the tick is carried out after it.
    drop(crate::world::FakeAgent::connect(&world.desk()));
    world.arrived(2);
    assert!(world.records().is_empty(), "{:?}", world.records());
    world.desk().bind(id, RunId(1));
    for other in world.arrived(2) {
        world.desk().bind(other, RunId(1));
    }
    world.flush();
    assert_eq!(world.total("k"), (5, 50));
}

#[test]
fn a_name_may_come_after_its_kernel() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.tell(&kernels(0, 5, 10));
    agent.tell(&kernels(1, 1, 1));
    world.flush();
    assert_eq!(world.total("late"), (0, 0));
    agent.introduce(&["late"]);
    agent.tell(&kernels(0, 2, 10));
    world.flush();
    assert_eq!(world.total("late"), (7, 70));
    // One that never comes is no reason to lose what it did.
    drop(agent.stream);
    world.wait("the end", |reports| {
        reports
            .iter()
            .any(|report| matches!(report, AgentReport::Left(_)))
            .then_some(())
    });
    assert_eq!(world.total("(unnamed kernel 1)"), (1, 1));
}

#[test]
fn a_number_that_stands_for_another_name_counts_for_each_what_it_did() {
    let world = World::new();
    let mut agent = world.agent(1);
    // Nothing is known of the device yet, so this is held, and nobody knows whether it ever will.
    agent.tell(&Frame::Name {
        id: 0,
        name: b"old".to_vec(),
    });
    agent.tell(&kernels(0, 5, 10));
    agent.tell(&Frame::Name {
        id: 0,
        name: b"new".to_vec(),
    });
    agent.tell(&kernels(0, 1, 10));
    agent.introduce(&["newer"]);
    agent.tell(&kernels(0, 2, 10));
    world.flush();
    let totals = ["old", "new", "newer"].map(|name| world.total(name).0);
    assert_eq!(totals, [5, 1, 2]);
}

#[test]
fn a_store_that_is_busy_gets_no_more_than_it_has_room_for() {
    let world = World::new();
    world.room.store(10, Ordering::Relaxed);
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    for _ in 0..300 {
        assert!(agent.tell(&kernels(0, 1, 7)));
    }
    world.flush();
    assert_eq!(world.total("k"), (300, 2_100));
    let most = world.wait("batches", |reports| {
        let works = reports.iter().map(|report| match report {
            AgentReport::Work(batch) => batch
                .records
                .iter()
                .filter(|record| matches!(record, Record::Traced(traced) if !matches!(traced.work, Work::Signal { .. })))
                .count(),
            _ => 0,
        });
        works.max()
    });
    assert!(most <= 10, "{most}");
}

#[test]
fn what_the_ring_refused_is_the_agent_s_to_tell_again() {
    let world = World::new();
    let mut agent = crate::world::FakeAgent::connect(&world.desk());
    let id = world.arrived(1)[0];
    agent.introduce(&["k"]);
    let (mut accepted, mut refused) = (0, 0);
    while refused < 3 {
        if agent.tell(&kernels(0, 1, 1)) {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    world.desk().bind(id, RunId(1));
    world.flush();
    assert_eq!((world.total("k").0, world.lost("ring_full")), (accepted, 0));
    agent.tell(&kernels(0, 1, 1));
    world.flush();
    assert_eq!((world.total("k").0, world.lost("ring_full")), (accepted + 1, 0));
}

#[test]
fn clocks_that_step_or_say_nonsense_cost_no_count() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    let now = unix_now();
    agent.tell(&Frame::Clock(Clock {
        cupti_ns: now,
        monotonic_ns: 1,
        realtime_ns: now + 60_000_000_000,
    }));
    agent.tell(&kernels(0, 1, 1));
    agent.tell(&Frame::Clock(Clock {
        cupti_ns: 0,
        monotonic_ns: 1,
        realtime_ns: u64::MAX,
    }));
    agent.tell(&kernels(0, 1, 1));
    agent.tell(&Frame::Spans(Spans {
        spans: vec![Span {
            name: 0,
            device: 0,
            stream: 0,
            start_ns: now,
            end_ns: now,
        }],
    }));
    world.flush();
    assert_eq!(world.total("k"), (2, 2));
    assert_eq!(world.lost("clock_stepped"), 2);
    assert_eq!(world.lost("invalid_time"), 2);
    let latest = Stamp::now().unix_ns + 3_600_000_000_000;
    for traced in works(&world) {
        match traced.work {
            Work::Kernels(window) => assert!(window.end_ns <= latest && window.start_ns <= window.end_ns),
            Work::Span(span) => panic!("a span without a time: {span:?}"),
            _ => {}
        }
    }
}

#[test]
fn figures_that_nobody_can_mean_are_losses() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    let count = |count, total_ns, buckets| {
        let Frame::Kernels(mut frame) = kernels(0, 1, 1) else {
            unreachable!()
        };
        (
            frame.stats[0].count,
            frame.stats[0].total_ns,
            frame.stats[0].buckets,
        ) = (count, total_ns, buckets);
        Frame::Kernels(frame)
    };
    for frame in [
        count(0, 0, vec![]),
        count(u64::MAX, 1, vec![]),
        count(1, u64::MAX, vec![]),
        count(1, 1, vec![(255, 1)]),
        count(1, 1, vec![(1, 2)]),
        // More durations than launches, though none of the buckets has more.
        count(2, 2, vec![(1, 1), (2, 2)]),
        // A sum beyond so many of the longest.
        count(2, 3, vec![(1, 2)]),
        // More than the process can have done since it began.
        count(1 << 40, 1, vec![(1, 1)]),
    ] {
        agent.tell(&frame);
    }
    // A name that is longer than any that travels.
    let mut name = Vec::new();
    let kind = Frame::Name { id: 5, name: vec![] }.encode(&mut name);
    name = vec![5, 0x81, 0x20];
    name.extend(vec![b'x'; MAX_NAME + 1]);
    agent.writer.append(kind, &name);
    agent.writer.append(999, b"of a newer agent");
    agent.writer.append(5, b"");
    agent.tell(&clock_now());
    agent.tell(&kernels(0, 1, 1));
    world.flush();
    assert_eq!(world.total("k"), (1, 1));
    assert_eq!(world.lost("malformed"), 10);
}

#[test]
fn a_name_that_changes_waits_for_the_records_that_were_held_with_the_old_one() {
    let world = World::new();
    let mut agent = world.agent(1);
    // Each frame is small, and its records are many; all are held, because nothing is known of the device.
    agent.tell(&Frame::Name {
        id: 0,
        name: b"old".to_vec(),
    });
    let Frame::Kernels(mut frame) = kernels(0, 1, 1) else {
        unreachable!()
    };
    frame.stats = vec![frame.stats[0].clone(); 1_000];
    let frame = Frame::Kernels(frame);
    for _ in 0..20 {
        if !agent.tell(&frame) {
            world.flush();
            assert!(agent.tell(&frame));
        }
    }
    world.flush();
    // So few are taken at a time that the rest must wait.
    world.room.store(100, Ordering::Relaxed);
    agent.introduce(&["new"]);
    agent.tell(&kernels(0, 1, 1));
    world.flush();
    let totals = ["old", "new"].map(|name| world.total(name).0);
    assert_eq!(totals, [20_000, 1]);
}
