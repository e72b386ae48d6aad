//! Allocations balance, and each figure is known or unknown for a reason.

use plimsoll_trace::wire::{Frame, Levels, LossReason, MemoryKind, MemoryOperation};

use crate::daemon::{Agent, Daemon};
use crate::program::Program;

const MIB: u64 = 1 << 20;

fn levels(agent: &Agent) -> Option<Levels> {
    agent
        .each(|frame| match frame {
            Frame::Levels(levels) => Some(*levels),
            _ => None,
        })
        .last()
}

/// Taken less given back, by kind, bytes.
fn balance(agent: &Agent, kind: MemoryKind) -> (u64, i64) {
    let events = agent.each(|frame| match frame {
        Frame::Memory(events) => Some(events.iter()),
        _ => None,
    });
    events
        .flatten()
        .filter(|event| event.kind == kind)
        .fold((0, 0), |(count, bytes), event| {
            let size = event.bytes.unwrap_or(0).cast_signed();
            match event.operation {
                MemoryOperation::Alloc => (count + 1, bytes + size),
                MemoryOperation::Free => (count, bytes - size),
            }
        })
}

#[test]
fn what_is_taken_is_live_and_what_is_given_back_balances() {
    for tier in ["memory", "graph"] {
        let daemon = Daemon::listen();
        let mut program = Program::new("memory", &daemon.socket())
            .env("PLIMSOLL_TRACE", tier)
            .start();
        let mut agent = daemon.accept();
        program.says("taken");
        let live = 10 * MIB + 5 * MIB + 4 * MIB;
        agent.read_until("the live bytes", |agent| {
            levels(agent)
                .is_some_and(|levels| levels.live_bytes == live && levels.mapped_bytes == Some(4 * MIB))
        });
        let now = levels(&agent).unwrap();
        assert_eq!(now.segments, 3);
        assert_eq!(now.reserved_bytes, Some(64 * MIB));
        assert!(now.pool_used_bytes.is_some_and(|used| used >= 5 * MIB), "{now:?}");
        assert!(now.pool_bytes >= now.pool_used_bytes, "{now:?}");
        program.go_on();
        agent.read_to_end();
        program.ends();
        let kinds = [
            (MemoryKind::Device, 2),
            (MemoryKind::Pool, 1),
            (MemoryKind::Physical, 1),
            (MemoryKind::Pinned, 1),
        ];
        for (kind, count) in kinds {
            assert_eq!(balance(&agent, kind), (count, 0), "{kind}");
        }
        let last = levels(&agent).unwrap();
        assert_eq!(
            (last.live_bytes, last.segments, last.mapped_bytes),
            (0, 0, Some(0)),
            "{last:?}"
        );
    }
}

#[test]
fn live_bytes_are_unknown_once_a_call_was_lost() {
    // More than are kept, however fast the agent is.
    let count = 70_000;
    let daemon = Daemon::listen();
    let mut program = Program::new(&format!("reservations {count}"), &daemon.socket()).start();
    let mut agent = daemon.accept();
    program.says("taken");
    agent.read_until("that it is unknown", |agent| {
        let says = agent.states().last().map_or("", |(_, says)| says);
        agent.lost(LossReason::QueueFull) > 0 && says.contains("some allocations were not seen")
    });
    let lost = agent
        .frames
        .iter()
        .position(|frame| matches!(frame, Frame::Loss { .. }))
        .unwrap();
    let told = agent.frames[lost..]
        .iter()
        .filter(|frame| matches!(frame, Frame::Levels(_)));
    assert_eq!(told.count(), 0);
    program.kill();
}

#[test]
fn without_callbacks_virtual_memory_is_unknown_and_not_zero() {
    for (name, value) in [
        ("PLIMSOLL_SIM_CUPTI_FAULT", "subscribe-busy"),
        ("PLIMSOLL_VMM", "off"),
    ] {
        let daemon = Daemon::listen();
        let mut program = Program::new("memory", &daemon.socket()).env(name, value).start();
        let mut agent = daemon.accept();
        program.says("taken");
        program.go_on();
        agent.read_to_end();
        program.ends();
        let levels: Vec<_> = agent
            .each(|frame| match frame {
                Frame::Levels(levels) => Some((levels.reserved_bytes, levels.mapped_bytes)),
                _ => None,
            })
            .collect();
        assert!(
            !levels.is_empty() && levels.iter().all(|level| *level == (None, None)),
            "{levels:?}"
        );
        let says_so = agent
            .states()
            .iter()
            .any(|(_, message)| message.contains("virtual memory is not observed"));
        assert_eq!(says_so, value == "subscribe-busy", "{:?}", agent.states());
    }
}
