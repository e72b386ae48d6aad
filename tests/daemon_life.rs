//! The daemon's own life: start, one of its kind, signals, and a clean end.

use rustix::process::Signal;

use crate::world::{World, text, until};

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let world = World::new();
    let first = world.daemon(&world.base_config());
    let output = world.call(&["daemon"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&first.child.pid().to_string()),
        "it names the one that has it: {said}"
    );
    assert!(world.call(&["status"]).status.success(), "the first one goes on");
}

#[test]
fn the_last_batch_is_stored() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new();
        let mut daemon = world.daemon(&world.base_config());
        world.row("SELECT * FROM device_samples");
        daemon.child.signal(signal);
        let stopped_ns = plimsoll_trace::Stamp::now().unix_ns;
        assert!(daemon.child.wait().success());
        let last = world.sql("SELECT max(at_ns) AS last FROM device_samples")[0]["last"]
            .as_i64()
            .unwrap();
        // Commits come once a second; without the last one, the newest sample could be that old.
        assert!(
            stopped_ns - last < 700_000_000,
            "{} ms before the end",
            (stopped_ns - last) / 1_000_000
        );
        assert!(!world.path("plimsoll.sock").exists());
        assert_eq!(
            world.call(&["status"]).status.code(),
            Some(4),
            "nobody answers any more"
        );
    }
}

#[test]
fn hangup_reads_the_configuration_again() {
    let world = World::new();
    let daemon = world.daemon(&world.base_config());
    daemon.child.signal(Signal::HUP);
    world.event("config_reloaded");
    assert!(world.call(&["status"]).status.success());
}

#[test]
fn a_killed_daemon_leaves_a_store_that_the_next_one_takes() {
    let world = World::new();
    let daemon = world.daemon(&world.base_config());
    world.row("SELECT * FROM device_samples");
    daemon.kill();
    let rows = world.sql("SELECT count(*) AS n FROM device_samples")[0]["n"]
        .as_i64()
        .unwrap();
    let _next = world.daemon(&world.base_config());
    until("more rows", || {
        (world.sql("SELECT count(*) AS n FROM device_samples")[0]["n"].as_i64()? > rows).then_some(())
    });
}

#[test]
fn an_engine_s_life_and_death_are_runs() {
    let world = World::new();
    let mut engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(""));
    let run = world.row("SELECT * FROM runs");
    assert_eq!(
        (run["name"].as_str(), run["outcome"].as_str()),
        (Some("chat"), Some("running"))
    );
    assert_eq!(run["pid"], engine.pid());
    world.row("SELECT * FROM process_samples WHERE run_id = 1 AND used_bytes > 0");
    engine.signal(Signal::TERM);
    engine.wait();
    let run = world.row("SELECT * FROM runs WHERE outcome <> 'running'");
    assert_eq!(run["outcome"], "ok", "{run}");
    assert!(run["peak_used_bytes"].as_i64().unwrap() > 1 << 33, "{run}");
    let mut again = world.engine(&[]);
    world.row("SELECT * FROM runs WHERE id = 2 AND outcome = 'running'");
    again.signal(Signal::KILL);
    again.wait();
    world.row("SELECT * FROM runs WHERE id = 2 AND outcome = 'killed' AND exit_code = 137");
}

#[test]
fn an_engine_that_runs_out_of_memory_is_said_to() {
    let world = World::new();
    let _daemon = world.daemon(&world.config(""));
    // Its load grows past what the card can hold.
    world.write("engine.yaml", &world.engine_yaml());
    let mut engine = world.start_engine(&["--scenario", "ramp", "--duration", "20"]);
    let status = engine.wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        world.read("engine.log").contains("CUDA out of memory"),
        "{}",
        world.read("engine.log")
    );
    let run = world.row("SELECT * FROM runs WHERE outcome <> 'running'");
    assert_eq!(
        (run["outcome"].as_str(), run["exit_code"].as_i64()),
        (Some("out_of_memory"), Some(1)),
        "{run}"
    );
    world.event("out_of_memory");
}
