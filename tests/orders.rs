//! `plan`, `apply`, `revert`: what a person sees before a change, does, and takes back.

use serde_json::{Value, json};

use crate::rules::{QUANTIZE, press};
use crate::world::{World, text, until};

fn advising() -> String {
    QUANTIZE.replace("\"act\"", "\"advise\"")
}

/// What waits for a person, or would be done next.
fn plan(world: &World) -> Vec<Value> {
    let output = world.call(&["plan", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["plan"].as_array().unwrap().clone()
}

#[test]
fn a_proposal_is_seen_applied_and_taken_back() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(&advising()));
    assert_eq!(plan(&world), Vec::<Value>::new());
    press(&world.gpu);
    let proposed = world.decision("quantize", "proposed");
    let id = proposed["id"].to_string();

    let planned = &plan(&world)[0];
    assert_eq!(planned["decision"], proposed["id"]);
    let diff = planned["diff"].as_str().unwrap();
    assert!(
        diff.contains("-  quantization: none") && diff.contains("+  quantization: \"int8\""),
        "{diff}"
    );
    assert_eq!(planned["reload"], "signal HUP");
    assert_eq!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "looking changes nothing"
    );
    let said = text(&world.call(&["plan"]).stdout);
    assert!(said.contains(&format!("plimsoll apply {id}")), "{said}");

    let output = world.call(&["apply", "quantize"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let applied = &world.sql("SELECT * FROM decisions")[0];
    assert_eq!(
        (&applied["id"], &applied["outcome"]),
        (&proposed["id"], &json!("kept"))
    );
    let detail: Value = serde_json::from_str(applied["detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail["applied_by"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(detail["state_before"]["quantize"], "not taken");
    assert_eq!(detail["state_after"]["quantize"], "taken");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    // Twice is once.
    let again = world.call(&["apply", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("plimsoll plan"),
        "{}",
        text(&again.stderr)
    );

    let output = world.call(&["revert", &id]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert_eq!(world.applied("/model/quantization"), json!("none"));
    let revert = world.row("SELECT * FROM decisions WHERE verdict = 'revert'");
    assert_eq!(revert["outcome"], "kept");
    let again = world.call(&["revert", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("in force"),
        "{}",
        text(&again.stderr)
    );
    assert!(daemon.stop().success());
    let output = world.call(&["revert", &id]);
    assert_eq!(output.status.code(), Some(4), "nobody can");
    assert_eq!(world.call(&["plan"]).status.code(), Some(4));

    // What persons did is in the recording, and no evaluation made it.
    let rules = world.sql("SELECT * FROM decisions WHERE verdict <> 'revert' ORDER BY at_ns, id");
    crate::replay::is_reproduced(&crate::replay::replay(&world, &["last"]), &rules);
}

#[test]
fn a_reverted_rule_is_silent_until_the_pressure_is_over() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let kept = world.decision("quantize", "kept");
    let output = world.call(&["revert", &kept["id"].to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    let later =
        "SELECT count(*) AS n FROM device_samples WHERE used_bytes > 0.8 * (total_bytes - reserved_bytes)
         AND at_ns > (SELECT max(at_ns) FROM decisions)";
    until("pressure again", || {
        (world.sql(later)[0]["n"].as_i64()? >= 10).then_some(())
    });
    assert_eq!(world.sql("SELECT count(*) AS n FROM decisions")[0]["n"], 2);
    let why = text(&world.call(&["why", "quantize"]).stdout);
    assert!(why.contains("had its say about this pressure"), "{why}");
    world.gpu.device(0).set_other_used_bytes(0);
    let calm =
        "SELECT count(*) AS n FROM device_samples WHERE used_bytes < 0.65 * (total_bytes - reserved_bytes)
         AND at_ns > (SELECT max(at_ns) FROM decisions)";
    until("the pressure is over", || {
        (world.sql(calm)[0]["n"].as_i64()? >= 3).then_some(())
    });
    press(&world.gpu);
    world.row("SELECT * FROM decisions WHERE verdict = 'apply' AND outcome = 'kept' AND id > 2");
}

#[test]
fn what_lies_below_another_change_is_not_taken_back() {
    let first = QUANTIZE.replace("\"quantize\"", "\"checkpointing\"").replace(
        "\"model.quantization\" = \"int8\"",
        "gradient_checkpointing = true",
    );
    let second = QUANTIZE.replace("80%", "92%").replace("65%", "75%");
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(&(first + &second)));
    press(&world.gpu);
    let lower = world.decision("checkpointing", "kept");
    let between = world.read("engine.yaml");
    world.gpu.device(0).set_other_used_bytes(9 * crate::world::GIB);
    let upper = world.decision("quantize", "kept");
    let output = world.call(&["revert", &lower["id"].to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("revert {} first", upper["id"])), "{said}");
    let output = world.call(&["revert", &upper["id"].to_string(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(world.read("engine.yaml"), between, "byte for byte");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["outcome"], "kept");
}

#[test]
fn a_daemon_that_is_killed_while_it_applies_leaves_the_former_file() {
    let world = World::new();
    let _engine = world.engine(&["--reload-fault", "hang", "--reload-fault-times", "1"]);
    let daemon = world.daemon(&world.config(&advising()));
    press(&world.gpu);
    world.decision("quantize", "proposed");
    let mut order = crate::world::Process(world.plimsoll().args(["apply", "quantize"]).spawn().unwrap());
    until("the engine hangs", || {
        (world.http("GET", "/health").0 == 503).then_some(())
    });
    assert_ne!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "the file is written"
    );
    daemon.kill();
    assert_eq!(
        order.wait().code(),
        Some(4),
        "it says that nobody answers any more"
    );
    let _next = world.start_daemon();
    let decision = world.decision("quantize", "interrupted");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    let detail: Value = serde_json::from_str(decision["detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail["resolved_by"]["kind"], "recovery");
    let why = text(&world.call(&["why", &decision["id"].to_string()]).stdout);
    assert!(
        why.contains("applied by the user") && why.contains("resolved by the next daemon"),
        "{why}"
    );
}

#[test]
fn an_order_is_refused_with_its_reason() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(&advising()));
    press(&world.gpu);
    world.decision("quantize", "proposed");
    assert!(world.call(&["pause"]).status.success());
    let output = world.call(&["apply", "quantize"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("paused"),
        "{}",
        text(&output.stderr)
    );
    assert!(world.call(&["resume"]).status.success());
    for unknown in ["apply nothing", "apply 77", "revert 77"] {
        let words: Vec<&str> = unknown.split(' ').collect();
        assert_eq!(world.call(&words).status.code(), Some(1), "{unknown}");
    }
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
}
