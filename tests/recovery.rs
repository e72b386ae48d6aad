//! A daemon that is killed in the middle, and the next one that puts things in order.

use rustix::process::Signal;
use serde_json::json;

use crate::rules::{QUANTIZE, press};
use crate::world::{World, until};

#[test]
fn killed_while_the_engine_reloads() {
    let world = World::new();
    // The first reload hangs, so that the daemon can be killed in the middle of its action.
    let mut engine = world.engine(&["--reload-fault", "hang", "--reload-fault-times", "1"]);
    let daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "applying");
    until("the engine hangs", || {
        (world.http("GET", "/health").0 == 503).then_some(())
    });
    assert_ne!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "the file is written"
    );
    daemon.kill();

    let _next = world.start_daemon();
    let decision = world.decision("quantize", "interrupted");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert_eq!(
        world.row("SELECT * FROM config_changes")["outcome"],
        "rolled_back"
    );
    assert!(engine.is_running());
    until("the former values serve", || {
        (world.applied("/model/quantization") == json!("none")).then_some(())
    });
    assert!(
        decision["explanation"]
            .as_str()
            .unwrap()
            .contains("daemon ended before the change was verified"),
        "{decision}"
    );
    assert_eq!(
        world.sql("SELECT count(*) AS n FROM decisions WHERE outcome = 'applying'")[0]["n"],
        0
    );
}

#[test]
fn killed_after_a_rung_was_taken() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");
    let taken = world.read("engine.yaml");
    daemon.kill();
    assert_eq!(
        world.read("engine.yaml"),
        taken,
        "the daemon's end changes nothing"
    );

    // The next daemon remembers the rung, what it freed, and whose text is under it.
    let _next = world.start_daemon();
    world.row("SELECT * FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM decisions)");
    world.gpu.device(0).set_other_used_bytes(0);
    world.row("SELECT * FROM decisions WHERE verdict = 'release' AND outcome = 'kept'");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    // It is still the same life of the engine.
    assert_eq!(world.sql("SELECT count(*) AS n FROM runs")[0]["n"], 1);
}

#[test]
fn edited_while_no_daemon_ran() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");
    assert!(daemon.stop().success());
    let edited = world
        .read("engine.yaml")
        .replace("quantization: \"int8\"", "quantization: int4");
    world.write("engine.yaml", &edited);
    let _next = world.start_daemon();
    world.row("SELECT * FROM events WHERE kind = 'human_edit' AND message LIKE '%suspended%quantize%'");
    assert_eq!(world.read("engine.yaml"), edited);
}

#[test]
fn killed_on_an_engine_whose_processes_nobody_looks_for() {
    let world = World::new();
    let _engine = world.engine(&["--reload-fault", "hang", "--reload-fault-times", "1"]);
    // The rule looks at the host, and the reload needs no process.
    let clause = "signal = \"vram.used_ratio\", enter = \"80%\", exit = \"65%\"";
    let always = "signal = \"host.memory_available_bytes\", enter = \"900TiB\", exit = \"999TiB\"";
    let rule = QUANTIZE.replace(clause, always);
    let reload = format!(
        "reload = {{ http = \"POST http://127.0.0.1:{}/reload\" }}",
        world.port
    );
    let config = world.config_with(&reload, &rule);
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("match")).collect();
    let daemon = world.daemon(&config.join("\n"));
    world.decision("quantize", "applying");
    until("the engine hangs", || {
        (world.http("GET", "/health").0 == 503).then_some(())
    });
    assert_ne!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "the file is written"
    );
    daemon.kill();

    let _next = world.start_daemon();
    world.decision("quantize", "interrupted");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
}

#[test]
fn an_engine_taken_out_of_the_configuration_is_known_when_it_comes_back() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let config = world.config(QUANTIZE);
    let daemon = world.daemon(&config);
    press(&world.gpu);
    world.decision("quantize", "kept");
    let read_again = |count: i64, config: &str| {
        world.write("plimsoll.toml", config);
        daemon.child.signal(Signal::HUP);
        let query = "SELECT count(*) AS n FROM events WHERE kind = 'config_reloaded'";
        until("the configuration is read", || {
            (world.sql(query)[0]["n"].as_i64()? >= count).then_some(())
        });
    };
    read_again(1, &world.base_config());
    world.gpu.device(0).set_other_used_bytes(0);
    assert_ne!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "nothing is touched"
    );
    // It comes back under another name: its file tells who it is.
    read_again(
        2,
        &config
            .replace("[engine.chat]", "[engine.talk]")
            .replace("engine = \"chat\"", "engine = \"talk\""),
    );
    world.row("SELECT * FROM decisions WHERE engine = 'talk' AND verdict = 'release' AND outcome = 'kept'");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
}

#[test]
fn an_action_ends_under_the_configuration_that_it_began_with() {
    let world = World::new();
    let _engine = world.engine(&["--reload-fault", "hang", "--reload-fault-times", "1"]);
    let daemon = world.daemon(
        &world
            .config(QUANTIZE)
            .replace("within = \"15s\"", "within = \"3s\""),
    );
    press(&world.gpu);
    world.decision("quantize", "applying");
    world.write("plimsoll.toml", &world.base_config());
    daemon.child.signal(Signal::HUP);
    world.decision("quantize", "rolled_back");
    world.event("config_reloaded");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert_eq!(world.applied("/model/quantization"), json!("none"));
}

#[test]
fn a_proposal_is_withdrawn_by_the_next_daemon() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(&QUANTIZE.replace("\"act\"", "\"advise\"")));
    press(&world.gpu);
    world.decision("quantize", "proposed");
    assert!(daemon.stop().success());
    let _next = world.start_daemon();
    world.row("SELECT * FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM decisions)");
    world.gpu.device(0).set_other_used_bytes(0);
    let decision = world.decision("quantize", "refused");
    assert!(
        decision["explanation"]
            .as_str()
            .unwrap()
            .contains("Withdrawn: The pressure is over."),
        "{decision}"
    );
    assert!(
        world
            .sql("SELECT * FROM decisions WHERE outcome = 'proposed'")
            .is_empty()
    );
}
