//! Other profilers: the agent gives way, says so, and comes back when asked.

use plimsoll_trace::wire::{Frame, LossReason, State, Tell};

use crate::daemon::{Agent, Daemon};
use crate::program::Program;

#[test]
fn a_yield_leaves_cupti_to_others_and_a_resume_takes_it_up() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 100", &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the launches", |agent| agent.launches() == 100);
    agent.tell(Tell::Yield);
    agent.read_until("the yield", |agent| agent.is(State::Yielded));
    // The word is said before the deed: once more, and it is done.
    let before = flushes(&agent);
    agent.read_until("two more flushes", |agent| flushes(agent) >= before + 2);
    program.go_on();
    program.says("launched");
    agent.tell(Tell::Resume);
    // What was allocated meanwhile nobody knows.
    agent.read_until("the resume", |agent| {
        agent.states().last().is_some_and(|(state, says)| {
            *state == State::Degraded && says.contains("some allocations were not seen")
        })
    });
    let before = flushes(&agent);
    agent.read_until("two more flushes", |agent| flushes(agent) >= before + 2);
    program.go_on();
    program.says("launched");
    agent.read_until("the launches", |agent| agent.launches() >= 200);
    assert_eq!(agent.launches(), 200);
}

#[test]
fn another_profiler_that_takes_over_is_noticed() {
    // With the first flush: nothing has come before.
    for fault in ["displaced:10", "displaced:1"] {
        let daemon = Daemon::listen();
        let mut program = Program::new("steps 100", &daemon.socket())
            .env("PLIMSOLL_SIM_CUPTI_FAULT", fault)
            .start();
        let mut agent = daemon.accept();
        // Before there are so many that they fill a buffer.
        agent.read_until("two flushes", |agent| flushes(agent) > 2);
        let began = std::time::Instant::now();
        while !agent.is(State::Displaced) {
            program.says("launched");
            program.go_on();
            agent.read();
            assert!(began.elapsed().as_secs() < 60, "{fault}: {:?}", agent.states());
        }
        agent.read_until("the loss", |agent| agent.lost(LossReason::Displaced) > 0);
    }
}

#[test]
fn launches_whose_records_cupti_refuses_are_no_other_profiler() {
    // Graphs, kernels, and the overhead that each flush leaves a record of.
    let refused = "enable-fails:51:27,enable-fails:10:27,enable-fails:17:27";
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 100", &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", refused)
        .start();
    let mut agent = daemon.accept();
    let began = std::time::Instant::now();
    while flushes(&agent) < 20 {
        program.says("launched");
        program.go_on();
        agent.read();
        assert!(began.elapsed().as_secs() < 60);
    }
    assert!(
        agent.states().iter().all(|(state, _)| *state == State::Degraded),
        "{:?}",
        agent.states()
    );
}

#[test]
fn one_that_takes_over_is_noticed_where_only_memory_is_recorded() {
    let daemon = Daemon::listen();
    let mut program = Program::new("pieces", &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "displaced:10")
        .env("PLIMSOLL_TRACE", "memory")
        .start();
    let mut agent = daemon.accept();
    let began = std::time::Instant::now();
    while !agent.is(State::Displaced) {
        program.says("taken");
        program.go_on();
        agent.read();
        assert!(began.elapsed().as_secs() < 60, "{:?}", agent.states());
    }
    agent.read_until("the loss", |agent| agent.lost(LossReason::Displaced) > 0);
    let told = agent.frames.len();
    // It comes back when it is told to, and knows that it missed something.
    agent.tell(Tell::Resume);
    agent.read_until("the return", |agent| {
        let (state, says) = agent.states().last().copied().unwrap();
        state == State::Degraded && says.contains("some allocations were not seen")
    });
    while !events(&agent.frames[told..]) {
        program.says("taken");
        program.go_on();
        agent.read();
        assert!(began.elapsed().as_secs() < 60, "{:?}", agent.states());
    }
    assert!(!agent.is(State::Displaced));
    let levels = agent.frames[told..]
        .iter()
        .filter(|frame| matches!(frame, Frame::Levels(_)));
    assert_eq!(levels.count(), 0, "what is live is not known");
}

/// How often the agent told what it costs: with each flush, and once before the first.
fn flushes(agent: &Agent) -> usize {
    agent
        .each(|frame| matches!(frame, Frame::Cost(_)).then_some(()))
        .count()
}

/// Whether there are allocations among these.
fn events(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| matches!(frame, Frame::Memory(_)))
}

#[test]
fn a_resume_of_what_was_never_left_changes_nothing() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 100", &daemon.socket()).start();
    let mut agent = daemon.accept();
    for round in 1..=10 {
        program.says("launched");
        agent.tell(Tell::Resume);
        agent.read_until("the launches", |agent| agent.launches() == 100 * round);
        program.go_on();
    }
    assert!(
        agent.states().iter().all(|(state, _)| *state == State::Tracing),
        "{:?}",
        agent.states()
    );
}

#[test]
fn a_framework_s_own_profiler_gets_the_subscription_and_is_noticed() {
    const EXPANDABLE: (&str, &str) = ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True");
    for (work, variable, answer) in [
        ("framework 1", ("PLIMSOLL_VMM", "auto"), 0),
        ("framework 1", ("PLIMSOLL_VMM", "on"), 39),
        ("framework 1", EXPANDABLE, 39),
        ("framework 0", ("PLIMSOLL_VMM", "auto"), 39),
    ] {
        let daemon = Daemon::listen();
        let mut program = Program::new(work, &daemon.socket())
            .env(variable.0, variable.1)
            .start();
        let mut agent = daemon.accept();
        program.says("launched");
        agent.read_until("the launch", |agent| agent.launches() == 1);
        let is_left = agent
            .states()
            .iter()
            .any(|(_, says)| says.contains("left to torch.profiler"));
        assert_eq!(is_left, answer == 0, "{work} {variable:?}: {:?}", agent.states());
        program.go_on();
        assert_eq!(
            program.says("answers"),
            format!("{answer} 0"),
            "{work} {variable:?}"
        );
        program.says("registered");
        if answer == 0 {
            agent.read_until("that it is displaced", |agent| agent.is(State::Displaced));
        }
        program.go_on();
        program.ends();
    }
}

#[test]
fn who_keeps_the_subscription_after_a_resume_has_not_come_again() {
    let daemon = Daemon::listen();
    let mut program = Program::new("framework 1", &daemon.socket())
        // So that the resume comes before five flushes brought nothing; one that comes later finds the same.
        .env("PLIMSOLL_FLUSH", "100ms")
        .start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the launch", |agent| agent.launches() == 1);
    program.go_on();
    program.says("registered");
    agent.tell(Tell::Resume);
    // What the other was told of, nobody counted.
    agent.read_until("the resume", |agent| {
        let (state, says) = agent.states().last().copied().unwrap();
        state == State::Degraded && says.contains("some allocations were not seen")
    });
    let before = flushes(&agent);
    agent.read_until("a dozen flushes", |agent| flushes(agent) > before + 12);
    assert!(!agent.is(State::Displaced), "{:?}", agent.states());
}

#[test]
fn a_window_of_single_kernels_opens_when_asked() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 10", &daemon.socket())
        .env("PLIMSOLL_WINDOW", "60s")
        .start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the launches", |agent| agent.launches() == 10);
    let spans = |agent: &Agent| {
        let spans = agent.each(|frame| match frame {
            Frame::Spans(spans) => Some(spans.spans.len()),
            _ => None,
        });
        spans.sum::<usize>()
    };
    assert_eq!(spans(&agent), 0);
    agent.tell(Tell::Window);
    let began = std::time::Instant::now();
    while spans(&agent) == 0 {
        program.go_on();
        program.says("launched");
        agent.read();
        assert!(began.elapsed().as_secs() < 60);
    }
}

#[test]
fn a_library_whose_place_was_taken_is_started_too() {
    let daemon = Daemon::listen();
    // The same library under another name is another one, with a ring of its own.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.so");
    std::fs::copy(plimsoll_agent::library_path().unwrap(), &other).unwrap();
    let mut program = Program::new("launch 1 100", &daemon.socket())
        .env("PLIMSOLL_CHAIN", &other)
        .start();
    let mut agents = [daemon.accept(), daemon.accept()];
    program.ends();
    agents.iter_mut().for_each(Agent::read_to_end);
    let leaves = |agent: &Agent| {
        let states = agent.states();
        states
            .iter()
            .any(|(_, says)| says.contains("left to the library of PLIMSOLL_CHAIN"))
    };
    assert!(agents.iter().all(leaves));
    // CUPTI gives its records to the last one that asked.
    let launches: u64 = agents.iter().map(Agent::launches).sum();
    assert_eq!(launches, 100);
}

#[test]
fn a_library_to_be_started_that_is_none_is_no_trouble() {
    let daemon = Daemon::listen();
    for chained in ["/nowhere/other.so", "libc.so.6"] {
        let mut program = Program::new("launch 1 100", &daemon.socket())
            .env("PLIMSOLL_CHAIN", chained)
            .start();
        let mut agent = daemon.accept();
        agent.read_to_end();
        program.ends();
        assert_eq!(agent.launches(), 100);
    }
}
