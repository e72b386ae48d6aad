//! Rules that set nothing and have the engine restarted as it is.

use std::time::Duration;

use plimsoll_trace::{DecisionOutcome, Record};
use plimsoll_tuner::act::{self, Ended, ProcessRef};
use plimsoll_tuner::{Engine, Host, Named};

use super::engine::Fault;
use super::world::{Daemon, PERSON, World, ladder};

const RESTART: &str = r#"
[[rule]]
name = "leak"
engine = "e"
mode = "act"
when = { signal = "vram.used_ratio", enter = "80%", exit = "65%" }
restart = true
for = "0"
"#;

fn reloads(world: &World) -> usize {
    let requests = world.engine.requests();
    requests
        .iter()
        .filter(|request| request.contains("/reload"))
        .count()
}

#[test]
fn an_engine_is_restarted_once_and_its_file_is_not_touched() {
    let world = World::new();
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), RESTART);
    let written = std::fs::metadata(world.file()).unwrap().modified().unwrap();
    let report = daemon.act(0.85).expect("a restart");
    let rows = daemon.book.rows();
    assert_eq!(report.ended, Ended::Kept, "{}", rows.last().explanation);
    assert_eq!((world.text().as_str(), reloads(&world)), (PERSON, 1));
    assert_eq!(
        std::fs::metadata(world.file()).unwrap().modified().unwrap(),
        written
    );
    assert!(rows.changes.is_empty(), "nothing was written: {:?}", rows.changes);
    // The pressure stays, and another restart so soon would not help.
    for _ in 0..5 {
        assert!(daemon.act(0.85).is_none());
    }
    assert!(daemon.act(0.05).is_none(), "there is nothing to let go");
}

#[test]
fn a_process_that_goes_on_was_not_restarted() {
    let world = World::new();
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), RESTART);
    daemon.live.set_interval(Duration::from_millis(10));
    daemon.live.update("e", |latest| {
        latest.root = Some(ProcessRef {
            pid: 7,
            started_ticks: 1,
        });
    });
    let report = daemon.act(0.85).expect("a restart");
    let rows = daemon.book.rows();
    assert_eq!(report.ended, Ended::Refused);
    assert!(
        rows.last().explanation.contains("no restart"),
        "{}",
        rows.last().explanation
    );
    assert_eq!(reloads(&world), 1);
}

#[test]
fn an_engine_that_does_not_come_back_is_restarted_once_more() {
    let world = World::new();
    world.engine.faults(&[Fault::Sickens]);
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), RESTART);
    let report = daemon.act(0.85).expect("a restart");
    assert_eq!(report.ended, Ended::RolledBack, "{:?}", report.records);
    assert_eq!((world.text().as_str(), reloads(&world)), (PERSON, 2));
}

#[test]
fn a_restart_that_was_proposed_leaves_no_rung_behind() {
    let world = World::new();
    let mut daemon = Daemon::start_with(
        &world.paths,
        world.book(),
        world.spec(),
        &RESTART.replace("\"act\"", "\"advise\""),
    );
    assert!(daemon.tick(0.85).is_none(), "it only proposes");
    assert_eq!(daemon.engine.proposed(&Named::Rule("leak")), Some("leak"));
    let (step, _) = daemon.engine.apply("leak", 1, &Host::default(), daemon.now, 9);
    let report = act::carry_out(step.unwrap().order.unwrap(), &daemon.live, &daemon.book);
    daemon.finished(&report);
    assert_eq!((report.ended, reloads(&world)), (Ended::Kept, 1));
    assert_eq!(daemon.book.rows().last().outcome, DecisionOutcome::Kept);
    assert!(daemon.act(0.05).is_none());
    let engine = Engine::new(world.spec(), ladder(RESTART), Some(&daemon.engine.remembered()));
    assert!(!engine.remembered().contains("\"on\""), "{}", engine.remembered());
    let is_change = |record: &Record| matches!(record, Record::ConfigChange(_));
    assert!(!report.records.iter().any(is_change));
}
