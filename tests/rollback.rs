//! Changes that do not go well: the former bytes come back, and the engine serves them.

use rustix::process::Signal;
use serde_json::json;

use crate::rules::{QUANTIZE, press};
use crate::world::{World, until};

/// The engine's `fault` at its first reload ends in a rollback.
fn rolls_back(fault: &str, config: impl Fn(&World) -> String) {
    let world = World::new();
    let mut engine = world.engine(&["--reload-fault", fault, "--reload-fault-times", "1"]);
    let _daemon = world.daemon(&config(&world));
    press(&world.gpu);
    let decision = world.decision("quantize", "rolled_back");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert!(engine.is_running());
    assert_eq!(world.applied("/model/quantization"), json!("none"), "{decision}");
    assert_eq!(world.http("GET", "/health").0, 200);
    assert_eq!(world.http("POST", "/v1/completions").0, 200, "the model answers");
    let change = world.row("SELECT * FROM config_changes");
    assert_eq!(change["outcome"], "rolled_back");
    let event = world.event("rolled_back");
    assert!(event["message"].as_str().unwrap().contains("quantize"), "{event}");

    // The pressure stays, the rule does not try again.
    let later = "SELECT count(*) AS n FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM events WHERE kind = 'rolled_back')";
    until("some ticks", || {
        (world.sql(later)[0]["n"].as_i64()? >= 10).then_some(())
    });
    assert_eq!(world.sql("SELECT count(*) AS n FROM decisions")[0]["n"], 1);
}

fn impatient(world: &World) -> String {
    world
        .config(QUANTIZE)
        .replace("within = \"15s\"", "within = \"3s\"")
}

#[test]
fn an_engine_that_stays_unhealthy() {
    rolls_back("unhealthy", impatient);
}

#[test]
fn an_engine_that_never_ends_its_reload() {
    rolls_back("hang", impatient);
}

#[test]
fn an_engine_that_does_not_show_the_new_value() {
    // The reload is answered and the health check passes, but the model is gone and no value is shown as applied.
    rolls_back("unload", impatient);
}

#[test]
fn an_engine_that_dies_of_it_and_comes_back_on_the_new_values() {
    let world = World::new();
    let mut engine = world.engine(&["--reload-fault", "crash"]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    engine.wait();
    // Its service manager starts it again, on what the file says now: it serves, so that stays, and it is said.
    let _again = world.start_engine(&[]);
    let decision = world.decision("quantize", "kept");
    let said = decision["explanation"].as_str().unwrap();
    assert!(
        said.contains("its process ended meanwhile and was started again"),
        "{said}"
    );
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    world.row("SELECT * FROM runs WHERE id = 1 AND outcome = 'failed'");
}

#[test]
fn an_engine_that_does_not_come_back_stops_all_acting() {
    let world = World::new();
    let mut engine = world.engine(&["--reload-fault", "crash"]);
    let _daemon = world.daemon(&impatient(&world));
    press(&world.gpu);
    engine.wait();
    world.decision("quantize", "failed");
    assert_eq!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "the file is as it was all the same"
    );
    world.event("engine_unhealthy");
}

#[test]
fn an_engine_that_dies_of_memory_comes_back_on_a_smaller_configuration() {
    let world = World::new();
    let crowd = (0..400).map(|number| format!("{}.{number:03},400,4000\n", 3));
    let crowd: String = crowd.collect();
    world.write("crowd.csv", &format!("t_s,input_tokens,output_tokens\n{crowd}"));
    let workload = world.path("crowd.csv");
    let mut engine = world.engine(&["--workload", workload.to_str().unwrap()]);
    // Its condition never holds: only the death is answered.
    let rule = r#"
[[rule]]
name = "quantize"
engine = "chat"
mode = "act"
when = { signal = "gpu.temperature_celsius", enter = 500, exit = 400 }
set = { "model.quantization" = "int8" }
cost = "hot"
"#;
    let _daemon = world.daemon(&world.config(rule));
    world.row("SELECT * FROM process_samples WHERE run_id IS NOT NULL AND used_bytes > 0");
    // Somebody leaves room for the model, and for little else.
    world.gpu.device(0).set_other_used_bytes(9 * crate::world::GIB);
    engine.wait();
    world.gpu.device(0).set_other_used_bytes(0);
    // While it is down the file is written; then its supervisor starts it.
    until("the file is written", || {
        world.read("engine.yaml").contains("int8").then_some(())
    });
    let _again = world.start_engine(&[]);
    let decision = world.decision("quantize", "kept");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains("ran out of memory"), "{said}");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    let detail: serde_json::Value = serde_json::from_str(decision["detail"].as_str().unwrap()).unwrap();
    assert!(
        detail["guards"]["before"][0]["said"]
            .as_str()
            .unwrap()
            .contains("the engine is down"),
        "{detail}"
    );
}

#[test]
fn a_signal_that_would_kill_is_refused_before_the_file_is_touched() {
    let world = World::new();
    let mut engine = world.engine(&["--no-hup"]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let decision = world.decision("quantize", "refused");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains("does not catch SIGHUP"), "{said}");
    assert!(engine.is_running());
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
}

#[test]
fn a_persons_edit_is_the_new_base_and_suspends_the_rule() {
    let world = World::new();
    let engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(&format!("{QUANTIZE}saves = \"5GiB\"\n")));
    press(&world.gpu);
    world.decision("quantize", "kept");
    // An unrelated edit on top of ours: kept, and the rung can still be let go around it.
    let edited = world
        .read("engine.yaml")
        .replace("max_batch_size: 64", "max_batch_size: 32   # calmer");
    world.write("engine.yaml", &edited);
    engine.signal(Signal::HUP);
    let event = world.event("human_edit");
    assert!(
        event["detail"].as_str().unwrap().contains("max_batch_size: 32"),
        "{event}"
    );
    assert_eq!(world.read("engine.yaml"), edited, "nothing is written over it");

    world.gpu.device(0).set_other_used_bytes(0);
    world.row("SELECT * FROM decisions WHERE verdict = 'release' AND outcome = 'kept'");
    let expected = world
        .engine_yaml()
        .replace("max_batch_size: 64", "max_batch_size: 32   # calmer");
    assert_eq!(world.read("engine.yaml"), expected, "theirs without ours");

    // An edit of the rule's own key: from now on the rule keeps its hands off it.
    let theirs = expected.replace("quantization: none", "quantization: int4");
    world.write("engine.yaml", &theirs);
    engine.signal(Signal::HUP);
    world.row("SELECT * FROM events WHERE kind = 'human_edit' AND message LIKE '%suspended%quantize%'");
    press(&world.gpu);
    // 82 % with int4, 96 % with int8.
    world.gpu.device(0).set_other_used_bytes(31 << 29);
    let later = "SELECT count(*) AS n FROM device_samples WHERE used_bytes > 31 * 536870912";
    until("some ticks", || {
        (world.sql(later)[0]["n"].as_i64()? >= 10).then_some(())
    });
    assert_eq!(world.read("engine.yaml"), theirs);
    assert_eq!(
        world.sql("SELECT count(*) AS n FROM decisions")[0]["n"],
        2,
        "one taken, one released"
    );
    let why = world.call(&["why", "quantize"]);
    let said = crate::world::text(&why.stdout);
    assert!(said.contains("suspended"), "{said}");

    // Given back, it acts on the pressure that is there. What it freed from none is no promise any more, its `saves` is. But
    // int8 takes more than their int4: that is seen, and theirs comes back.
    assert!(world.call(&["resume", "quantize"]).status.success());
    let decision = world.row("SELECT * FROM decisions WHERE id = 3 AND outcome = 'rolled_back'");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains("of what it promised"), "{said}");
    assert_eq!(world.read("engine.yaml"), theirs);
    assert_eq!(world.applied("/model/quantization"), json!("int4"));
}
