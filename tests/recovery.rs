//! A daemon that is killed in the middle, and the next one that puts things in order.

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
    until("the engine hangs", || (world.http("GET", "/health").0 == 503).then_some(()));
    assert_ne!(world.read("engine.yaml"), world.engine_yaml(), "the file is written");
    daemon.kill();

    let _next = world.start_daemon();
    let decision = world.decision("quantize", "interrupted");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert_eq!(world.row("SELECT * FROM config_changes")["outcome"], "rolled_back");
    assert!(engine.is_running());
    until("the former values serve", || (world.applied("/model/quantization") == json!("none")).then_some(()));
    assert!(decision["explanation"].as_str().unwrap().contains("daemon ended before the change was verified"), "{decision}");
    assert_eq!(world.sql("SELECT count(*) AS n FROM decisions WHERE outcome = 'applying'")[0]["n"], 0);
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
    assert_eq!(world.read("engine.yaml"), taken, "the daemon's end changes nothing");

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
    let edited = world.read("engine.yaml").replace("quantization: \"int8\"", "quantization: int4");
    world.write("engine.yaml", &edited);
    let _next = world.start_daemon();
    world.row("SELECT * FROM events WHERE kind = 'human_edit' AND message LIKE '%suspended%quantize%'");
    assert_eq!(world.read("engine.yaml"), edited);
}
