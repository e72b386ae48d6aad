//! CUPTI goes wrong in all its ways: each is counted or said, and none reaches the program.

use plimsoll_trace::wire::{Frame, LossReason, MAX_NAME, State};

use crate::daemon::{Agent, Daemon};
use crate::program::Program;

fn with_fault(fault: &str, work: &str) -> Agent {
    with_fault_of("13.0", fault, work)
}

fn with_fault_of(release: &str, fault: &str, work: &str) -> Agent {
    let daemon = Daemon::listen();
    let mut program = Program::new(work, &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", fault)
        .env("PLIMSOLL_SIM_CUPTI", release)
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    agent
}

#[test]
fn records_without_valid_times_are_losses_and_not_kernels() {
    let agent = with_fault("drops:5,zero-timestamps:7,inverted:11", "launch 1 300");
    assert_eq!(agent.launches(), 300 - 5 - 7 - 11);
    assert_eq!(agent.lost(LossReason::DroppedByCupti), 5);
    // They may have been allocations.
    let states = agent.states();
    assert!(
        states
            .iter()
            .any(|(_, says)| says.contains("some allocations were not seen")),
        "{states:?}"
    );
    assert_eq!(agent.lost(LossReason::ZeroTimestamp), 7);
    assert_eq!(agent.lost(LossReason::InvertedTimestamp), 11);
}

#[test]
fn kernels_are_given_up_when_their_times_are_wrong_too_often() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 5000", &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "zero-timestamps:5000")
        // All of them in one period.
        .env("PLIMSOLL_FLUSH", "2s")
        .start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("that they are given up", |agent| {
        agent
            .states()
            .iter()
            .any(|(state, says)| *state == State::Degraded && says.contains("no kernels"))
    });
    assert_eq!(agent.lost(LossReason::ZeroTimestamp), 5_000);
    program.go_on();
    program.says("launched");
    program.close_input();
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.launches(), 0);
}

#[test]
fn wrong_times_are_given_up_also_when_few_come_at_once() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 400", &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "zero-timestamps:1000000")
        .start();
    let mut agent = daemon.accept();
    let (mut launched, mut is_given_up) = (0, false);
    while !is_given_up {
        launched += 400;
        assert!(launched <= 4_000, "{:?}", agent.states());
        program.says("launched");
        agent.read_until("the losses", |agent| {
            is_given_up_by(agent) || agent.lost(LossReason::ZeroTimestamp) == launched
        });
        is_given_up = is_given_up_by(&agent);
        program.go_on();
    }
}

fn is_given_up_by(agent: &Agent) -> bool {
    agent.states().iter().any(|(_, says)| says.contains("no kernels"))
}

#[test]
fn an_end_that_nobody_lives_to_see_spoils_no_name() {
    let agent = with_fault("endless:3", "launch 1 300");
    assert_eq!(agent.launches(), 297);
    assert_eq!(agent.lost(LossReason::InvertedTimestamp), 3);
    assert!(agent.kernels().values().all(|(_, total)| *total < 1 << 40));
}

#[test]
fn names_that_are_enormous_or_no_text_are_names() {
    let agent = with_fault("huge-names,non-utf8-names", "launch 1 300");
    assert_eq!(agent.launches(), 300);
    let names = agent.each(|frame| match frame {
        Frame::Name { name, .. } => Some(name),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 3 && names.iter().all(|name| name.len() == MAX_NAME));
    assert_eq!(agent.kernels().values().map(|(count, _)| count).sum::<u64>(), 300);
}

#[test]
fn a_buffer_that_is_cut_off_or_ends_in_garbage_is_read_up_to_there() {
    for fault in ["bad-record-length", "garbage-record"] {
        // Half a record of a later release is as long as all that is read of it.
        let agent = with_fault_of("11.8", fault, "launch 1 300");
        let lost = agent.lost(LossReason::BadRecord);
        assert!(lost > 0, "{fault}");
        assert!(
            agent.launches() + lost >= 300,
            "{fault}: {} and {lost}",
            agent.launches()
        );
        assert!(agent.launches() <= 300);
    }
}

#[test]
fn a_kind_that_is_refused_is_said_and_the_others_come() {
    let agent = with_fault("enable-fails:50:21", "launch 1 300");
    assert_eq!(agent.launches(), 300);
    let states = agent.states();
    assert!(
        states
            .iter()
            .any(|(state, says)| *state == State::Degraded
                && says.contains("no memory pools: CUPTI answers 21")),
        "{states:?}"
    );
}

#[test]
fn a_cupti_that_cannot_start_leaves_the_program_alone_and_says_why() {
    for fault in ["not-initialized", "fails:999"] {
        let agent = with_fault(fault, "launch 1 300");
        let (state, says) = agent.states().last().copied().unwrap();
        assert_eq!(state, State::Off, "{says}");
        assert!(says.contains("CUPTI answers"), "{says}");
    }
    let agent = with_fault("missing-symbol:cuptiActivityFlushAll", "launch 1 300");
    let (state, says) = agent.states().last().copied().unwrap();
    assert!(
        state == State::Off && says.contains("has no function cuptiActivityFlushAll"),
        "{says}"
    );
}

#[test]
fn a_library_that_is_not_there_is_said() {
    let daemon = Daemon::listen();
    let mut program = Program::new("launch 1 10", &daemon.socket())
        .env("PLIMSOLL_CUPTI_LIBRARY", "/nowhere/libcupti.so.12")
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    let (state, says) = agent.states().last().copied().unwrap();
    assert!(
        state == State::Off && says.contains("/nowhere/libcupti.so.12 cannot be loaded"),
        "{says}"
    );
}

#[test]
fn what_makes_no_sense_in_the_environment_is_said() {
    let daemon = Daemon::listen();
    let mut program = Program::new("launch 1 10", &daemon.socket())
        .env("PLIMSOLL_VMM", "perhaps")
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    let states = agent.states();
    assert!(
        states
            .iter()
            .any(|(_, says)| says.contains("PLIMSOLL_VMM=perhaps")),
        "{states:?}"
    );
}

#[test]
fn a_clock_that_steps_loses_no_count_and_is_seen() {
    for (fault, ahead) in [("clock-step:3:3600000", true), ("clock-step:3:-3600000", false)] {
        let daemon = Daemon::listen();
        let mut program = Program::new("steps 100", &daemon.socket())
            .env("PLIMSOLL_SIM_CUPTI_FAULT", fault)
            .start();
        let mut agent = daemon.accept();
        let offsets = |agent: &Agent| {
            let clocks = agent.each(|frame| match frame {
                Frame::Clock(clock) => Some(i128::from(clock.cupti_ns) - i128::from(clock.monotonic_ns)),
                _ => None,
            });
            clocks.map(|offset| offset / 1_000_000_000).collect::<Vec<_>>()
        };
        program.says("launched");
        agent.read_until("the step", |agent| {
            let offsets = offsets(agent);
            let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
                return false;
            };
            let step = last - first;
            if ahead { step > 3_000 } else { step < -3_000 }
        });
        program.go_on();
        program.says("launched");
        program.close_input();
        agent.read_to_end();
        program.ends();
        let lost = agent.lost(LossReason::ZeroTimestamp) + agent.lost(LossReason::InvertedTimestamp);
        assert_eq!(agent.launches() + lost, 200, "{fault}: {lost} lost");
        let mut periods = agent.each(|frame| match frame {
            Frame::Kernels(kernels) => Some(kernels.end_ns - kernels.start_ns),
            _ => None,
        });
        assert!(
            periods.all(|period| period < 3_000_000_000_000),
            "no period has the length of the step"
        );
    }
}

#[test]
fn a_buffer_is_never_refused() {
    let agent = with_fault("refusal-crashes", "launch 4 60000");
    assert_eq!(agent.launches(), 240_000);
}
