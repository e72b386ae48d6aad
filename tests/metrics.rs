//! The engine's own metrics as signals.

use serde_json::json;

use crate::world::World;

const RULES: &str = r#"
[[rule]]
name = "smaller"
engine = "chat"
mode = "act"
when = { signal = "engine.requests_waiting", enter = 20, exit = 1 }
set = { "model.quantization" = "int8" }
for = "0"

[[rule]]
name = "named"
engine = "chat"
when = { signal = 'metric:engine_requests_waiting{model="harbor-7b"}', enter = 20, exit = 1 }
set = { gradient_checkpointing = true }
for = "0"
"#;

/// Far more requests at once than the engine serves side by side.
fn crowd(world: &World) {
    let mut workload = "t_s,input_tokens,output_tokens\n".to_owned();
    for number in 0..60 {
        workload += &format!("1.{},200,100\n", number + 100);
    }
    world.write("workload.csv", &workload);
    let engine = world
        .engine_yaml()
        .replace("max_batch_size: 64", "max_batch_size: 4");
    world.write("engine.yaml", &engine);
}

#[test]
fn a_queue_in_the_engine_makes_a_rule_act() {
    let world = World::new();
    crowd(&world);
    let workload = world.path("workload.csv");
    let _engine = world.engine(&["--workload", workload.to_str().unwrap()]);
    let metrics = format!("metrics = \"http://127.0.0.1:{}/metrics\"\nprofile", world.port);
    let config = world.config(RULES).replacen("profile", &metrics, 1);
    // What proves that the model answers stands in the queue as well.
    let config = config.replace("within = \"15s\"", "within = \"60s\"");
    let _daemon = world.daemon(&config);
    let decision = world.decision("smaller", "kept");
    assert_eq!(decision["signal"], "engine.requests_waiting", "{decision}");
    assert!(decision["value"].as_f64().unwrap() >= 20.0, "{decision}");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    world.decision("named", "observed");
    // What was read is there for people too.
    let sample =
        world.row("SELECT * FROM engine_samples WHERE signal = 'engine.requests_waiting' AND value >= 20");
    assert_eq!(sample["run_id"], 1);
}
