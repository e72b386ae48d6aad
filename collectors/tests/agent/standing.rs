//! How agents stand, and what they are told.

use std::io::Read;

use plimsoll_collectors::{AgentId, AgentReport, Standing};
use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::{Cost, Frame, LossReason, State, Tell};

use crate::world::{FakeAgent, World};

/// The newest word on an agent.
fn standing(world: &World, agent: AgentId) -> Option<Standing> {
    world.wait("reports", |reports| {
        let told = reports.iter().rev().find_map(|report| match report {
            AgentReport::Standings(all) => all.iter().find(|(of, _)| *of == agent),
            _ => None,
        });
        Some(told.map(|(_, standing)| standing.clone()))
    })
}

#[test]
fn what_an_agent_says_of_itself_is_how_it_stands() {
    let world = World::new();
    let mut agent = world.agent(1);
    let id = world.arrived(1)[0];
    agent.introduce(&[]);
    agent.tell(&Frame::State {
        state: State::Degraded,
        message: "word ".repeat(1_000),
    });
    let cost = |wall_ns| {
        Frame::Cost(Cost {
            wall_ns,
            thread_ns: wall_ns / 250,
            hooks_ns: 0,
            traced_ns: wall_ns / 4,
            device_bytes: Some(64),
            tier: TraceTier::Memory,
        })
    };
    agent.tell(&cost(1_000_000_000));
    for count in [3, 4] {
        agent.tell(&Frame::Loss {
            reason: LossReason::DroppedByCupti,
            count,
        });
    }
    world.flush();
    let told = standing(&world, id).expect("it said something");
    assert_eq!(
        (told.wanted, told.tier),
        (Some(TraceTier::Graph), Some(TraceTier::Memory))
    );
    assert_eq!(told.state, Some(State::Degraded));
    assert!(told.message.starts_with("word word") && told.message.len() <= 400);
    assert_eq!(
        (
            told.budget_ratio,
            told.cost_ratio,
            told.duty_ratio,
            told.device_bytes
        ),
        (Some(0.01), Some(0.004), Some(0.25), Some(64))
    );
    assert_eq!(told.losses, [("dropped_by_cupti", 7)].into());

    // What is not said again stays as it was.
    agent.tell(&Frame::State {
        state: State::Tracing,
        message: String::new(),
    });
    world.flush();
    let told = standing(&world, id).expect("it said something");
    assert_eq!((told.state, &*told.message), (Some(State::Tracing), ""));
    assert_eq!((told.cost_ratio, told.losses.len()), (Some(0.004), 1));
}

#[test]
fn only_who_is_meant_is_told_and_one_that_never_listens_holds_nobody_up() {
    let world = World::new();
    let mut agents: Vec<FakeAgent> = (0..3).map(|_| world.agent(1)).collect();
    let ids = world.arrived(3);
    // The second never reads: its socket is full after a while.
    for _ in 0..300_000 {
        world.desk().tell(vec![ids[1]], Tell::Yield);
    }
    world.desk().tell(vec![ids[0], ids[1]], Tell::WindowOf(8));
    world.desk().tell(vec![ids[2]], Tell::Resume);
    world.flush();
    for (agent, tell) in [(0, Tell::WindowOf(8)), (2, Tell::Resume)] {
        let mut heard = [0; 8];
        let length = agents[agent].stream.read(&mut heard).unwrap();
        assert_eq!(&heard[..length], [tell.to_byte()]);
    }
}
