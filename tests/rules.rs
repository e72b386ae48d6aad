//! The loop: a line is crossed, the file is rewritten, the engine reloads, and the effect is seen.

use plimsoll_sim_gpu::Gpu;
use serde_json::json;

use crate::world::{GIB, World, text, until};

pub(crate) const QUANTIZE: &str = r#"
[[rule]]
name = "quantize"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "80%", exit = "65%" }
set = { "model.quantization" = "int8" }
for = "0"
hold = "1s"
calm = "1s"
"#;

/// Somebody else on the card takes so much that its use crosses 80 % (the engine alone holds 58 %).
pub(crate) fn press(gpu: &Gpu) {
    gpu.device(0).set_other_used_bytes(6 * GIB);
}

#[test]
fn a_crossed_line_changes_the_engine_and_nothing_else() {
    let world = World::new();
    let engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(QUANTIZE));
    world.row("SELECT * FROM process_samples WHERE run_id IS NOT NULL AND used_bytes > 0");
    assert_eq!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "no rule holds yet"
    );

    press(&world.gpu);
    let decision = world.decision("quantize", "kept");
    assert_eq!(decision["verdict"], "apply");
    assert_eq!(decision["mode"], "act");
    assert_eq!(decision["signal"], "vram.used_ratio");
    assert!(decision["value"].as_f64().unwrap() >= 0.8, "{decision}");
    assert_eq!(decision["threshold"], 0.8);

    let expected = world
        .engine_yaml()
        .replace("quantization: none ", "quantization: \"int8\" ");
    assert_eq!(
        world.read("engine.yaml"),
        expected,
        "one value changed, every other byte stayed"
    );
    assert_eq!(world.applied("/model/quantization"), json!("int8"));

    let change = world.row("SELECT * FROM config_changes");
    assert_eq!(change["before_text"], json!(world.engine_yaml()));
    assert_eq!(change["after_text"], json!(expected));
    assert_eq!(change["outcome"], "kept");
    let detail = world.row("SELECT json_extract(detail, '$.effect.freed_bytes') AS freed, json_extract(detail, '$.ready.read_back') AS shown FROM decisions");
    assert_eq!(detail["shown"], "equal");
    let freed = detail["freed"].as_f64().unwrap();
    let gib = |bytes: f64| bytes / 1_073_741_824.0;
    assert!(
        (5.5..7.5).contains(&gib(freed)),
        "half of 13 GiB of weights: {} GiB",
        gib(freed)
    );

    let ready = world.event("engine_ready");
    assert!(
        ready["message"].as_str().unwrap().contains("chat serves again"),
        "{ready}"
    );
    assert_eq!(ready["run_id"], 1);

    let why = world.call(&["why", "1"]);
    let why = text(&why.stdout);
    for said in [
        "before, healthy passed",
        "before, budget passed",
        "after, alive passed",
    ] {
        assert!(why.contains(said), "{why}");
    }

    // The engine was told, not restarted.
    assert_eq!(world.sql("SELECT count(*) AS n FROM runs")[0]["n"], 1);
    assert!(daemon.stop().success());
    drop(engine);
}

#[test]
fn the_last_release_gives_the_person_their_file_back() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");

    // The reading is far below `exit` because of the rung itself; releasing it would bring the pressure back.
    let reading =
        "SELECT count(*) AS n FROM device_samples WHERE used_bytes < 0.65 * (total_bytes - reserved_bytes)";
    until("a few readings below exit", || {
        (world.sql(reading)[0]["n"].as_i64()? >= 20).then_some(())
    });
    assert!(
        world
            .sql("SELECT * FROM decisions WHERE verdict = 'release'")
            .is_empty()
    );

    world.gpu.device(0).set_other_used_bytes(0);
    let release = world.row("SELECT * FROM decisions WHERE verdict = 'release' AND outcome = 'kept'");
    assert_eq!(release["rule"], "quantize");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    until("the engine serves it", || {
        (world.applied("/model/quantization") == json!("none")).then_some(())
    });
}

#[test]
fn observing_and_advising_touch_nothing() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let advise = QUANTIZE
        .replace("\"act\"", "\"advise\"")
        .replace("\"quantize\"", "\"advised\"");
    let observe = QUANTIZE
        .replace("mode = \"act\"\n", "")
        .replace("\"quantize\"", "\"observed\"");
    let _daemon = world.daemon(&world.config(&(advise + &observe)));
    press(&world.gpu);
    assert_eq!(world.decision("observed", "observed")["mode"], "observe");
    assert_eq!(world.decision("advised", "proposed")["mode"], "advise");
    let later = "SELECT count(*) AS n FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM decisions)";
    until("some ticks", || {
        (world.sql(later)[0]["n"].as_i64()? >= 10).then_some(())
    });
    assert_eq!(
        world.sql("SELECT count(*) AS n FROM decisions")[0]["n"],
        2,
        "a row per transition, not per tick"
    );
    assert_eq!(world.read("engine.yaml"), world.engine_yaml());
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
}

#[test]
fn rungs_are_taken_in_order_and_add_up() {
    let ladder = r#"
[[rule]]
name = "checkpointing"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "80%", exit = "65%" }
set = { gradient_checkpointing = true }
for = "0"

[[rule]]
name = "quantize"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "92%", exit = "75%" }
set = { "model.quantization" = "int8" }
for = "0"
"#;
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(ladder));
    press(&world.gpu);
    world.decision("checkpointing", "kept");
    assert_eq!(world.applied("/gradient_checkpointing"), json!(true));
    assert_eq!(world.applied("/model/quantization"), json!("none"));
    world.gpu.device(0).set_other_used_bytes(9 * GIB);
    world.decision("quantize", "kept");
    assert_eq!(
        world.applied("/gradient_checkpointing"),
        json!(true),
        "the lower rung stays"
    );
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    let file = world.read("engine.yaml");
    assert!(
        file.contains("gradient_checkpointing: true   # slower, smaller"),
        "{file}"
    );
}

#[test]
fn json_and_toml_files_keep_their_comments_too() {
    for (name, text, changed) in [
        (
            "engine.json",
            "{\n  // the team's server\n  \"model\": { \"name\": \"m\", \"parameters_billions\": 7, \"quantization\": \"none\" }, /* weights */\n  \"listen\": \"127.0.0.1:PORT\",\n  \"load_secs\": 0.2,\n}\n",
            "\"quantization\": \"none\"",
        ),
        (
            "engine.toml",
            "# the team's server\nlisten = \"127.0.0.1:PORT\"\nload_secs = 0.2\n\n[model]\nname = \"m\"\nparameters_billions = 7.0\nquantization = \"none\"   # weights\n",
            "quantization = \"none\"",
        ),
    ] {
        let world = World::new();
        let text = text.replace("PORT", &world.port.to_string());
        world.write(name, &text);
        // The world's engine reads engine.yaml: here it is a link's name for none of them, so name the file.
        let config = world.config(QUANTIZE).replace("engine.yaml", name);
        let mut engine = world.plimsoll();
        engine.arg("sim-engine").arg("--config").arg(world.path(name));
        engine.arg("--gpu").arg(world.path("libnvidia-ml.so.1.gpu"));
        let _engine = crate::world::Process(engine.spawn().unwrap());
        world.wait_healthy();
        let _daemon = world.daemon(&config);
        press(&world.gpu);
        world.decision("quantize", "kept");
        let expected = text.replace(changed, &changed.replace("none", "int8"));
        assert_eq!(world.read(name), expected);
        assert_eq!(world.applied("/model/quantization"), json!("int8"), "{name}");
    }
}

#[test]
fn an_engine_that_reloads_over_http() {
    let world = World::new();
    let _engine = world.engine(&["--no-hup"]);
    let reload = format!(
        "reload = {{ http = \"POST http://127.0.0.1:{}/reload\" }}",
        world.port
    );
    let _daemon = world.daemon(&world.config_with(&reload, QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
}

#[test]
fn an_engine_that_a_command_reloads() {
    let world = World::new();
    let engine = world.engine(&[]);
    let reload = format!(
        "reload = {{ command = [\"kill\", \"-HUP\", \"{}\"] }}",
        engine.pid()
    );
    let _daemon = world.daemon(&world.config_with(&reload, QUANTIZE));
    press(&world.gpu);
    world.decision("quantize", "kept");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
}

/// A `systemctl` of this world alone, which says what it was asked and then does what `script` says.
fn systemctl(world: &World, script: &str) {
    use std::os::unix::fs::PermissionsExt;

    std::fs::create_dir(world.path("bin")).unwrap();
    world.write(
        "bin/systemctl",
        &format!(
            "#!/bin/sh\ncd {}\necho \"$@\" >> asked\n{script}\n",
            world.path("").display()
        ),
    );
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path("bin/systemctl"), executable).unwrap();
}

#[test]
fn an_engine_that_systemd_restarts() {
    let world = World::new();
    systemctl(&world, "until [ -e restarted ]; do sleep 0.05; done");
    let mut engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config_with("reload = { restart = \"chat.service\" }", QUANTIZE));
    press(&world.gpu);
    until("systemctl is called", || {
        world.path("asked").exists().then_some(())
    });
    engine.signal(rustix::process::Signal::TERM);
    engine.wait();
    let _engine = world.engine(&[]);
    world.write("restarted", "");
    let decision = world.decision("quantize", "kept");
    let said = decision["explanation"].as_str().unwrap();
    assert!(
        !said.contains("ended meanwhile"),
        "a restart was asked for: {said}"
    );
    assert_eq!(world.read("asked"), "restart chat.service\n");
    assert_eq!(world.applied("/model/quantization"), json!("int8"));
    assert_eq!(world.row("SELECT count(*) AS n FROM runs")["n"], 2);
}

#[test]
fn an_engine_that_leaks_is_restarted_as_it_is() {
    let world = World::new();
    systemctl(&world, "until [ -e restarted ]; do sleep 0.05; done");
    let rule = r#"
[[rule]]
name = "leak"
engine = "chat"
mode = "act"
when = { all = [ { signal = "run.vram_bytes", enter = "15GiB", exit = "14GiB" },
                 { signal = "engine.restarts", enter = 3, exit = 4 } ] }
restart = true
for = "0"
"#;
    // Each request leaves something behind.
    let leaking = ["--scenario", "leak", "--seed", "1", "--speed", "120"];
    let mut engine = world.engine(&leaking);
    let _daemon = world.daemon(&world.config_with("reload = { restart = \"chat.service\" }", rule));
    until("systemctl is called", || {
        world.path("asked").exists().then_some(())
    });
    engine.signal(rustix::process::Signal::TERM);
    engine.wait();
    let _engine = world.engine(&[]);
    world.write("restarted", "");
    let decision = world.decision("leak", "kept");
    assert_eq!(decision["signal"], "run.vram_bytes");
    assert_eq!(
        world.read("engine.yaml"),
        world.engine_yaml(),
        "the file is not touched"
    );
    assert!(world.sql("SELECT * FROM config_changes").is_empty());
    world.row("SELECT * FROM engine_samples WHERE signal = 'engine.restarts' AND value = 1 AND run_id = 2");
    assert_eq!(world.read("asked"), "restart chat.service\n");
    let guards = "SELECT json_extract(detail, '$.guards.before') AS before FROM decisions";
    let guards = world.row(guards)["before"].as_str().unwrap().to_owned();
    let before: serde_json::Value = serde_json::from_str(&guards).unwrap();
    let budget = before
        .as_array()
        .unwrap()
        .iter()
        .find(|guard| guard["guard"] == "budget")
        .unwrap();
    assert_eq!(budget["finding"], "pass", "{budget}");
    assert_eq!(
        (
            &budget["engine"]["restarts_within_hour"],
            &budget["engine"]["restarts_per_hour"]
        ),
        (&json!(0), &json!(2))
    );
}

#[test]
fn a_restart_that_systemd_refuses() {
    let world = World::new();
    systemctl(&world, "echo 'Unit chat.service not found.' >&2; exit 5");
    let mut engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config_with("reload = { restart = \"chat.service\" }", QUANTIZE));
    press(&world.gpu);
    let decision = world.decision("quantize", "rolled_back");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains("Unit chat.service not found."), "{said}");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
    assert!(engine.is_running());
    assert_eq!(world.applied("/model/quantization"), json!("none"));
}

#[test]
fn a_change_that_frees_nothing_is_kept_and_known_as_that() {
    let world = World::new();
    let _engine = world.engine(&["--reload-fault", "no-effect", "--reload-fault-times", "1"]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let decision = world.decision("quantize", "kept");
    let said = decision["explanation"].as_str().unwrap();
    assert!(said.contains("; no device memory freed"), "{said}");
    let freed = world.row("SELECT json_extract(detail, '$.effect.freed_bytes') AS freed FROM decisions");
    let freed = freed["freed"].as_f64().unwrap();
    assert!(freed.abs() < 16_777_216.0, "{freed}: a request's worth at most");
    // The pressure ends at 58 %. Were the rung thought to hold anything, the use without it would be above `exit`.
    world.gpu.device(0).set_other_used_bytes(0);
    world.row("SELECT * FROM decisions WHERE verdict = 'release' AND outcome = 'kept'");
    assert_eq!(world.read("engine.yaml"), world.engine_yaml(), "byte for byte");
}

#[test]
fn a_file_that_is_no_longer_the_engine_s_is_told_of() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let config = world.config(QUANTIZE);
    let _daemon = world.daemon(&config);
    press(&world.gpu);
    world.decision("quantize", "kept");
    let ours = world.read("engine.yaml");
    world.write("other.yaml", &world.engine_yaml());
    let named = |name: &str| format!("config = {:?}", world.path(name));
    world.write(
        "plimsoll.toml",
        &config.replace(&named("engine.yaml"), &named("other.yaml")),
    );
    let event = world.event("engine_file_left");
    let said = event["message"].as_str().unwrap();
    assert!(said.contains("model.quantization"), "{said}");
    let detail: serde_json::Value = serde_json::from_str(event["detail"].as_str().unwrap()).unwrap();
    assert_eq!(
        detail["before_text"],
        json!(world.engine_yaml()),
        "what a person may put back"
    );
    assert_eq!(
        world.read("engine.yaml"),
        ours,
        "nothing is written where nobody looks"
    );
}

#[test]
fn a_picture_has_the_lines_that_are_configured() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    world.row("SELECT * FROM process_samples WHERE run_id IS NOT NULL AND used_bytes > 0");
    let picture = || {
        let output = world.call(&["report", "chat", "-o", "-"]);
        assert!(output.status.success(), "{}", crate::world::text(&output.stderr));
        crate::world::text(&output.stdout)
    };
    assert!(picture().contains("quantize"));
    assert!(
        world.sql("SELECT * FROM decisions").is_empty(),
        "nothing was decided"
    );
    // Without a configuration there is a picture all the same.
    world.write("plimsoll.toml", "[");
    assert!(!picture().contains("quantize"));
}

#[test]
fn unknown_memory_holds_everything_still() {
    use plimsoll_sim_gpu::{Fault, FaultKind};

    let world = World::new();
    let _engine = world.engine(&[]);
    let _daemon = world.daemon(&world.config(QUANTIZE));
    world.row("SELECT * FROM process_samples WHERE run_id IS NOT NULL AND used_bytes > 0");
    for function in ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"] {
        world
            .gpu
            .inject(Fault::new(function, FaultKind::Code(999)))
            .unwrap();
    }
    press(&world.gpu);
    let unknown = "SELECT count(*) AS n FROM device_samples WHERE used_bytes IS NULL";
    until("unknown readings", || {
        (world.sql(unknown)[0]["n"].as_i64()? >= 10).then_some(())
    });
    assert!(world.sql("SELECT * FROM decisions").is_empty());
    world.gpu.clear_faults();
    world.decision("quantize", "kept");
}
