//! Counts and times are exact, whichever release of CUPTI, however many threads.

use plimsoll_sim_cuda::{Cuda, library_path};
use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::{Direction, Frame, LossReason, State};

use crate::daemon::{Agent, Daemon};
use crate::program::{KERNELS, MEMSET_BYTES, Program};

/// Four threads launch so often each. What was told when the program had ended.
fn launched(release: &str, launches: u64) -> Agent {
    let daemon = Daemon::listen();
    let work = format!("launch 4 {launches}");
    let mut program = Program::new(&work, &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI", release)
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    agent
}

#[test]
fn counts_and_totals_are_exact_in_every_layout() {
    for release in ["11.8", "12.0", "12.6", "13.0", "13.1", "13.5", "future"] {
        let agent = launched(release, 3_000);
        let kernels = agent.kernels();
        for (name, ns) in KERNELS {
            assert_eq!(
                kernels.get(name),
                Some(&(4_000, 4_000 * ns)),
                "{release}: {name} in {kernels:?}"
            );
        }
        assert_eq!(kernels.len(), KERNELS.len(), "{release}: {kernels:?}");
        let losses = agent.each(|frame| matches!(frame, Frame::Loss { .. }).then_some(frame));
        assert_eq!(losses.collect::<Vec<_>>(), [] as [&Frame; 0], "{release}");
    }
}

#[test]
fn a_million_launches_over_four_processes_are_all_counted_within_the_budget() {
    let daemon = Daemon::listen();
    let start = || {
        Program::new("launch 4 62500", &daemon.socket())
            .env("PLIMSOLL_BUDGET", "1%")
            .start()
    };
    let mut programs: Vec<_> = (0..4).map(|_| start()).collect();
    for _ in &programs {
        let mut agent = daemon.accept();
        agent.read_to_end();
        assert_eq!(agent.launches(), 250_000);
    }
    programs.iter_mut().for_each(crate::program::Running::ends);
}

#[test]
fn a_program_that_goes_on_making_names_is_counted_by_name() {
    let (steps, each) = (16, 2_500);
    let daemon = Daemon::listen();
    let mut program = Program::new(&format!("names {steps} {each}"), &daemon.socket()).start();
    let mut agent = daemon.accept();
    for step in 1..=steps {
        program.says("launched");
        agent.read_until("the launches", |agent| agent.launches() == 3 * step * each);
        program.go_on();
    }
    agent.read_to_end();
    program.ends();
    let kernels = agent.kernels();
    for name in 0..steps * each {
        let total = 2 * (100 + name / each);
        assert_eq!(kernels.get(&format!("made_{name}")), Some(&(2, total)), "{name}");
    }
    assert_eq!(kernels["stays"], (steps * each, steps * each * 10));
    assert_eq!(agent.lost(LossReason::NamesFull), 0);
    let most = agent.names().keys().copied().max();
    assert!(
        most.is_some_and(|most| u64::from(most) < steps * each / 2),
        "numbers are used again: {most:?}"
    );
}

#[test]
fn who_is_speaking_and_on_which_device_is_told_first() {
    let agent = launched("12.6", 10);
    let Some(Frame::Process(process)) = agent.frames.first() else {
        panic!("{:?}", agent.frames)
    };
    assert_eq!((process.tier, process.flush_ms), (TraceTier::Graph, 20));
    assert!(process.cupti.is_some());
    assert!(
        agent
            .frames
            .iter()
            .any(|frame| matches!(frame, Frame::Device { index: 0, .. }))
    );
    assert!(agent.frames.iter().any(|frame| matches!(frame, Frame::Clock(_))));
    assert_eq!(
        agent.states().last().map(|(state, _)| *state),
        Some(State::Tracing),
        "{:?}",
        agent.states()
    );
}

#[test]
fn copies_are_told_by_direction() {
    let agent = launched("13.0", 1);
    let copies = agent.each(|frame| match frame {
        Frame::Copies(copies) => Some(&copies.stats),
        _ => None,
    });
    let mut found: Vec<_> = copies
        .flatten()
        .map(|copy| (copy.direction, copy.count, copy.bytes))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            (Direction::HostToDevice, 1, 1 << 20),
            (Direction::DeviceToHost, 1, 4096)
        ]
    );
}

#[test]
fn memsets_are_gpu_time_of_their_own_name_in_every_layout() {
    // As long as a copy within the device.
    let ns = Cuda::load(&library_path().unwrap())
        .unwrap()
        .copy_duration_ns(plimsoll_sim_cuda::Direction::DeviceToDevice, MEMSET_BYTES);
    for (release, tier) in [("11.8", "graph"), ("13.3", "graph"), ("13.4", "kernels")] {
        let daemon = Daemon::listen();
        let mut program = Program::new("memsets 50", &daemon.socket())
            .env("PLIMSOLL_SIM_CUPTI", release)
            .env("PLIMSOLL_TRACE", tier)
            .with_open_window()
            .start();
        let mut agent = daemon.accept();
        agent.read_to_end();
        program.ends();
        let kernels: Vec<_> = agent.kernels().into_iter().collect();
        assert_eq!(
            kernels,
            [("[CUDA memset]".to_owned(), (100, 100 * ns))],
            "{release}"
        );
        let spans = agent.each(|frame| match frame {
            Frame::Spans(spans) => Some(spans.spans.len()),
            _ => None,
        });
        let in_window = if tier == "kernels" { 100 } else { 0 };
        assert_eq!(spans.sum::<usize>(), in_window, "{release}");
    }
}

#[test]
fn a_graph_is_one_kernel_in_tier_graph_and_its_nodes_in_tier_kernels() {
    let graphs = |tier: &str| {
        let daemon = Daemon::listen();
        let mut program = Program::new("graphs 50", &daemon.socket())
            .env("PLIMSOLL_TRACE", tier)
            .with_open_window()
            .start();
        let mut agent = daemon.accept();
        agent.read_to_end();
        program.ends();
        agent
    };
    let total: u64 = KERNELS.iter().map(|(_, ns)| ns).sum();
    let whole = graphs("graph").kernels();
    let sums: Vec<_> = whole
        .iter()
        .map(|(name, sum)| (name.starts_with("CUDA graph "), *sum))
        .collect();
    assert_eq!(sums, [(true, (50, 50 * total))], "{whole:?}");

    let agent = graphs("kernels");
    let nodes = agent.kernels();
    for (name, ns) in KERNELS {
        assert_eq!(nodes.get(name), Some(&(50, 50 * ns)), "{nodes:?}");
    }
    let spans = agent.each(|frame| match frame {
        Frame::Spans(spans) => Some(spans.spans.iter()),
        _ => None,
    });
    let spans: Vec<_> = spans.flatten().collect();
    assert_eq!(spans.len(), 150);
    assert_eq!(
        spans.iter().map(|span| span.end_ns - span.start_ns).sum::<u64>(),
        50 * total
    );
}

#[test]
fn tier_memory_records_no_kernels_and_its_cost_is_told() {
    let daemon = Daemon::listen();
    let mut program = Program::new("launch 1 100", &daemon.socket())
        .env("PLIMSOLL_TRACE", "memory")
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.launches(), 0);
    let costs: Vec<_> = agent
        .each(|frame| match frame {
            Frame::Cost(cost) => Some(*cost),
            _ => None,
        })
        .collect();
    assert!(
        costs
            .iter()
            .all(|cost| cost.tier == TraceTier::Memory && cost.traced_ns == 0)
    );
    assert!(costs.iter().map(|cost| cost.thread_ns).sum::<u64>() > 0);
    assert_eq!(costs[0].device_bytes, Some(64_000_000));
}

#[test]
fn a_budget_that_is_spent_ends_the_recording_of_kernels_and_nothing_else() {
    let daemon = Daemon::listen();
    // The start alone costs more than this pays in a day.
    let mut program = Program::new("steps 100", &daemon.socket())
        .env("PLIMSOLL_BUDGET", "0.0000001")
        .start();
    let mut agent = daemon.accept();
    program.says("launched");
    let rests = |agent: &Agent| {
        let costs = agent.each(|frame| match frame {
            Frame::Cost(cost) => Some(cost.wall_ns > 0 && cost.traced_ns == 0),
            _ => None,
        });
        costs.last() == Some(true)
    };
    agent.read_until("the rest", rests);
    let before = agent.launches();
    program.go_on();
    program.says("launched");
    program.close_input();
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.launches(), before);
}

#[test]
fn between_windows_nothing_is_recorded_and_periods_are_those_of_the_windows() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 50", &daemon.socket())
        .env("PLIMSOLL_TRACE", "kernels")
        .env("PLIMSOLL_WINDOW", "30ms")
        .env("PLIMSOLL_WINDOW_EVERY", "300ms")
        .start();
    let mut agent = daemon.accept();
    let periods = |agent: &Agent| {
        let periods = agent.each(|frame| match frame {
            Frame::Kernels(kernels) if !kernels.stats.is_empty() => Some(kernels.start_ns),
            _ => None,
        });
        periods.collect::<std::collections::BTreeSet<_>>().len()
    };
    let began = std::time::Instant::now();
    while periods(&agent) < 3 {
        program.says("launched");
        program.go_on();
        agent.read();
        assert!(began.elapsed().as_secs() < 60, "{:?}", agent.frames);
    }
    program.kill();
    agent.read_to_end();
    let (wall, traced) = agent
        .each(|frame| match frame {
            Frame::Cost(cost) => Some((cost.wall_ns, cost.traced_ns)),
            _ => None,
        })
        .fold((0, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
    assert!(0 < traced && traced < wall, "{traced} of {wall}");
    let recorded = agent.each(|frame| match frame {
        Frame::Kernels(kernels) => Some(kernels.end_ns - kernels.start_ns),
        _ => None,
    });
    assert!(recorded.sum::<u64>() < wall);
}
