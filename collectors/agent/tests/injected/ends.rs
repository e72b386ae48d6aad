//! How processes end, fork and close: nothing of it is the agent's affair, and nothing is lost that could be told.

use std::time::Instant;

use plimsoll_trace::wire::{Frame, LossReason};

use crate::daemon::Daemon;
use crate::program::{KERNELS, Program};

#[test]
fn what_was_written_before_a_kill_is_read_after_it() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 500", &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the launches", |agent| agent.launches() == 500);
    program.go_on();
    program.says("launched");
    // Some flushes more, which nobody reads while the program lives.
    agent.wait_unread(200);
    program.kill();
    agent.read_to_end();
    assert_eq!(agent.launches(), 1_000);
}

#[test]
fn a_program_that_ends_before_the_first_flush_is_told_whole() {
    let daemon = Daemon::listen();
    let mut program = Program::new("launch 2 300", &daemon.socket())
        .env("PLIMSOLL_FLUSH", "60s")
        .start();
    let mut agent = daemon.accept();
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.launches(), 600);
}

#[test]
fn what_the_end_does_not_wait_for_is_counted() {
    let daemon = Daemon::listen();
    let launches = 10_000;
    let mut program = Program::new(&format!("late {launches}"), &daemon.socket())
        .env("PLIMSOLL_FLUSH", "60s")
        // The last flush begins while the end waits, and is over when it does not any more.
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "slow-flush:4000")
        .env("PLIMSOLL_EXIT", "3s")
        .start();
    let mut agent = daemon.accept();
    agent.read_until("the last word", |agent| agent.frames.contains(&Frame::Finished));
    program.go_on();
    agent.read_to_end();
    program.ends();
    let lost = agent.lost(LossReason::CutOff);
    assert!(lost > 0);
    // Besides launches there are two copies, and what flushing cost.
    let missing = 4 * launches - agent.launches();
    assert!((missing..missing + 16).contains(&lost), "{lost} for {missing}");
    assert_eq!(agent.frames.last(), Some(&Frame::Finished));
}

#[test]
fn the_last_word_is_said_at_an_end_that_waits_and_at_no_other() {
    for (work, finishes) in [("launch 2 300", true), ("hard", false)] {
        let daemon = Daemon::listen();
        let mut program = Program::new(work, &daemon.socket()).start();
        let mut agent = daemon.accept();
        program.close_input();
        agent.read_to_end();
        program.ends();
        assert_eq!(agent.frames.last() == Some(&Frame::Finished), finishes, "{work}");
        assert_eq!(agent.lost(LossReason::CutOff), 0, "{work}");
    }
}

#[test]
fn an_end_without_exit_handlers_loses_what_was_not_flushed_and_no_more() {
    let daemon = Daemon::listen();
    let mut program = Program::new("hard", &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the launches", |agent| agent.launches() == 1_000);
    program.go_on();
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.launches(), 1_000);
}

#[test]
fn a_forked_child_has_no_agent_and_the_parent_keeps_its_own() {
    let daemon = Daemon::listen();
    let mut program = Program::new("fork", &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("launched");
    agent.read_until("the first launch", |agent| agent.launches() == 1);
    program.go_on();
    assert_eq!(program.says("child"), "Some(0)");
    agent.read_to_end();
    program.ends();
    assert_eq!(agent.kernels()["before"].0, 2);
    let processes = agent.each(|frame| match frame {
        Frame::Process(process) => Some(process.pid),
        _ => None,
    });
    assert!(processes.into_iter().all(|pid| pid == program.pid()));
}

#[test]
fn a_program_that_closes_everything_gets_nothing_of_ours_into_its_files() {
    let daemon = Daemon::listen();
    let mut program = Program::new("close", &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("started");
    program.go_on();
    assert_eq!(program.says("foreign"), "0");
    program.ends();
    // The connection is gone, the ring is not.
    agent.read_to_end();
    assert_eq!(agent.kernels()["after"].0, 20);
}

#[test]
fn a_daemon_that_is_not_there_or_comes_later_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::new("launch 1 1000", &folder.path().join("nobody")).start();
    program.ends();

    let daemon = Daemon::listen();
    let mut program = Program::new("steps 100", &daemon.socket()).start();
    let mut first = daemon.accept();
    program.says("launched");
    first.read_until("the launches", |agent| agent.launches() == 100);
    drop(first);
    program.go_on();
    program.says("launched");
    // It comes back: who speaks and all names are told again, and what happened meanwhile once.
    let mut second = daemon.accept();
    second.read_until("the launches since", |agent| {
        agent.names().values().any(|name| name == KERNELS[0].0) && agent.launches() == 100
    });
    assert!(
        second
            .frames
            .iter()
            .any(|frame| matches!(frame, Frame::Process(_)))
    );
}

#[test]
fn a_flush_that_hangs_does_not_keep_the_program_from_ending() {
    let daemon = Daemon::listen();
    let mut program = Program::new("steps 10", &daemon.socket())
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "slow-flush:60000")
        .env("PLIMSOLL_EXIT", "250ms")
        .start();
    let mut agent = daemon.accept();
    program.says("launched");
    let began = Instant::now();
    program.close_input();
    program.ends();
    // Far below the minute that the flush takes; how far is measured elsewhere.
    assert!(began.elapsed().as_secs() < 30);
    agent.read_to_end();
}

#[test]
fn without_a_socket_or_with_tier_off_there_is_no_agent() {
    let daemon = Daemon::listen();
    for (name, value) in [("PLIMSOLL_SOCKET", ""), ("PLIMSOLL_TRACE", "off")] {
        let mut program = Program::new("steps 1", &daemon.socket()).env(name, value).start();
        program.says("launched");
        let threads = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
        let names =
            threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
        assert!(names.into_iter().all(|name| !name.starts_with("plimsoll")));
    }
}
