//! The daemon's own life: start, one of its kind, signals, and a clean end.

use rustix::process::Signal;

use crate::rules::{QUANTIZE, press};
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
        // A sample that the daemon has, and that is not stored yet: commits come once a second.
        let stored = "SELECT max(at_ns) AS last FROM device_samples";
        let known = until("a sample that is not stored yet", || {
            let status = world.call(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            let known = status["devices"][0]["at_ns"].as_i64()?;
            (world.sql(stored)[0]["last"].as_i64()? < known).then_some(known)
        });
        daemon.child.signal(signal);
        assert!(daemon.child.wait().success());
        let last = world.sql(stored)[0]["last"].as_i64().unwrap();
        assert!(last >= known, "{} ms are lost", (known - last) / 1_000_000);
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
    assert!(
        world
            .sql("SELECT * FROM events WHERE kind = 'config_reloaded'")
            .is_empty()
    );
    // Nothing was saved, so nothing but the signal is a reason to read it again.
    daemon.child.signal(Signal::HUP);
    world.event("config_reloaded");
    assert!(world.call(&["status"]).status.success());
}

#[test]
fn a_pause_lasts_until_resume_also_over_a_restart() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let config = world.config(QUANTIZE);
    let daemon = world.daemon(&config);
    let paused = || {
        let status = world.call(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["paused"].clone()
    };
    let ticks_later = |what: &str| {
        let newest = "SELECT max(at_ns) AS at FROM device_samples";
        let from = world.row(newest)["at"].as_i64().unwrap();
        let pressed = format!(
            "SELECT count(*) AS n FROM device_samples WHERE at_ns > {from} AND used_bytes > 19 * 1073741824"
        );
        until(what, || {
            (world.sql(&pressed)[0]["n"].as_i64()? >= 10).then_some(())
        });
        assert!(world.sql("SELECT * FROM decisions").is_empty(), "{what}");
    };
    assert_eq!(paused(), serde_json::json!([]));
    let said = world.call(&["pause"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(paused(), serde_json::json!(["chat"]));
    press(&world.gpu);
    ticks_later("pressure while paused");
    assert!(daemon.stop().success());

    let _daemon = world.daemon(&config);
    assert_eq!(paused(), serde_json::json!(["chat"]));
    let status = text(&world.call(&["status"]).stdout);
    assert!(status.contains("acting is paused on chat"), "{status}");
    ticks_later("pressure after a restart");
    assert!(world.call(&["resume"]).status.success());
    world.decision("quantize", "kept");
    assert_eq!(paused(), serde_json::json!([]));
    // Who said so is on record.
    for kind in ["paused", "resumed"] {
        let event = world.event(kind);
        let detail: serde_json::Value = serde_json::from_str(event["detail"].as_str().unwrap()).unwrap();
        assert_eq!(
            detail["actor"]["uid"],
            rustix::process::getuid().as_raw(),
            "{event}"
        );
    }
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
    let of_it = format!("SELECT * FROM runs WHERE pid = {}", again.pid());
    world.row(&format!("{of_it} AND outcome = 'running'"));
    again.signal(Signal::KILL);
    again.wait();
    world.row(&format!("{of_it} AND outcome = 'killed' AND exit_code = 137"));
    assert_eq!(
        world.sql("SELECT count(*) AS n FROM runs")[0]["n"],
        2,
        "a run per life"
    );
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

#[test]
fn at_its_end_the_person_gets_the_file_back_where_they_want_that() {
    for (on_exit, restored) in [("restore", true), ("leave", false)] {
        let world = World::new();
        let _engine = world.engine(&[]);
        let config = world.config(QUANTIZE);
        let config = config.replace(
            "[engine.chat]\n",
            &format!("[engine.chat]\non_exit = \"{on_exit}\"\n"),
        );
        let daemon = world.daemon(&config);
        press(&world.gpu);
        world.decision("quantize", "kept");
        assert_ne!(world.read("engine.yaml"), world.engine_yaml());
        assert!(daemon.stop().success());
        let decisions = world.sql("SELECT * FROM decisions ORDER BY id");
        if !restored {
            assert_ne!(world.read("engine.yaml"), world.engine_yaml());
            assert_eq!(decisions.len(), 1);
            continue;
        }
        assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
        assert_eq!(world.applied("/model/quantization"), serde_json::json!("none"));
        let last = &decisions[1];
        assert_eq!(
            (&last["verdict"], &last["outcome"]),
            (&"release".into(), &"kept".into())
        );
        let said = last["explanation"].as_str().unwrap();
        assert!(
            said.starts_with("The daemon ends, and `on_exit` is \"restore\": let go of quantize. "),
            "{said}"
        );

        // The next daemon finds nothing of ours, and the pressure is still there.
        let _daemon = world.daemon(&config);
        world.row("SELECT * FROM decisions WHERE id = 3 AND verdict = 'apply' AND outcome = 'kept'");
    }
}
