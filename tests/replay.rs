//! `plimsoll rules replay`: a recording, the rules of then, and other rules.

use serde_json::Value;

use crate::rules::{QUANTIZE, press};
use crate::world::{GIB, World, text, until};

/// What `rules replay --json` answers.
pub(crate) fn replay(world: &World, arguments: &[&str]) -> Value {
    let output = world.call(&[&["rules", "replay", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// That a replay found each recorded decision of an engine again: the same rules, in the same order, at the same instants.
pub(crate) fn is_reproduced(replay: &Value, decisions: &[Value]) {
    let exact = &replay["replay"]["exact"];
    assert_eq!(exact["until_ns"], Value::Null, "{replay:#}");
    let key = |row: &Value| {
        ["at_ns", "rule", "verdict", "mode"]
            .map(|key| row[key].to_string())
            .join(" ")
    };
    let keys = |rows: &[Value]| rows.iter().map(key).collect::<Vec<_>>();
    assert_eq!(
        keys(exact["decisions"].as_array().unwrap()),
        keys(decisions),
        "{replay:#}"
    );
    assert_eq!(exact["reproduced"], decisions.len(), "{replay:#}");
    assert_eq!(exact["missing"], Value::Array(Vec::new()));
}

#[test]
fn a_recording_is_replayed_to_the_decision_over_actions_edits_and_restarts() {
    let observed = QUANTIZE
        .replace("mode = \"act\"\n", "")
        .replace("\"quantize\"", "\"observed\"")
        .replace("80%", "85%")
        .replace("65%", "70%");
    let rules = QUANTIZE.to_owned() + &observed;
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(&rules));
    press(&world.gpu);
    world.decision("quantize", "kept");
    // Another daemon finds the rung taken, and lets it go.
    assert!(daemon.stop().success());
    let daemon = world.start_daemon();
    world.gpu.device(0).set_other_used_bytes(0);
    world.row("SELECT * FROM decisions WHERE verdict = 'release' AND outcome = 'kept'");
    // Other rules from here on.
    world.write(
        "plimsoll.toml",
        &world.config(&rules.replace("85%", "75%").replace("70%", "60%")),
    );
    world.event("config_reloaded");
    world.gpu.device(0).set_other_used_bytes(5 * GIB);
    world.decision("observed", "observed");
    world.gpu.device(0).set_other_used_bytes(0);
    world.row("SELECT * FROM decisions WHERE rule = 'observed' AND verdict = 'release'");
    assert!(daemon.stop().success());

    let decisions = world.sql("SELECT * FROM decisions ORDER BY at_ns, id");
    assert!(decisions.len() >= 4, "{decisions:?}");
    is_reproduced(&replay(&world, &["last"]), &decisions);
}

#[test]
fn other_rules_are_exact_until_they_act_otherwise() {
    let world = World::new();
    let _engine = world.engine(&[]);
    let daemon = world.daemon(&world.config(QUANTIZE));
    press(&world.gpu);
    let kept = world.decision("quantize", "kept");
    let later = "SELECT count(*) AS n FROM device_samples WHERE at_ns > (SELECT max(at_ns) FROM decisions)";
    until("some samples more", || {
        (world.sql(later)[0]["n"].as_i64()? >= 30).then_some(())
    });
    assert!(daemon.stop().success());

    let higher = QUANTIZE.replace("80%", "99%").replace("65%", "90%");
    world.write("higher.toml", &higher);
    let replayed = replay(&world, &["last", "--rules", "higher.toml"]);
    let exact = &replayed["replay"]["exact"];
    assert_eq!(exact["until_ns"], kept["at_ns"], "{replayed:#}");
    assert_eq!(exact["missing"][0]["id"], kept["id"]);
    assert_eq!(
        replayed["replay"]["estimate"]["decisions"],
        Value::Array(Vec::new())
    );
    // Without the rung the memory that it freed is in use: 80 % of the card, and more.
    let later = QUANTIZE.replace("for = \"0\"", "for = \"500ms\"") + "saves = \"6GiB\"\n";
    world.write("later.toml", &later);
    let replayed = replay(&world, &["last", "--against", "later.toml"]);
    is_reproduced(&replayed, &[kept]);
    assert_eq!(
        replayed["against"]["estimate"]["decisions"]
            .as_array()
            .map(Vec::len),
        Some(1),
        "{replayed:#}"
    );
    let output = world.call(&["rules", "replay", "last", "--against", "later.toml"]);
    let said = text(&output.stdout);
    assert!(said.contains("estimate from there on"), "{said}");
    assert!(said.contains("differences"), "{said}");
}

#[test]
fn rules_that_are_not_there_are_said() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    let output = world.call(&["run", "--name", "plain", "--", "sleep", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let two = QUANTIZE.to_owned() + &QUANTIZE.replace("\"chat\"", "\"b\"");
    world.write("two.toml", &two);
    world.write(
        "wrong.toml",
        &QUANTIZE.replace("vram.used_ratio", "vram.use_ratio"),
    );
    for (file, says) in [
        ("none.toml", "none.toml"),
        ("two.toml", "has no rules for plain: it has rules for b, chat"),
        ("wrong.toml", "did you mean 'vram.used_ratio'?"),
    ] {
        let output = world.call(&["rules", "replay", "last", "--rules", file]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
    // A command's run has no rules of its own.
    world.write("one.toml", QUANTIZE);
    let replayed = replay(&world, &["last", "--rules", "one.toml"]);
    assert!(
        replayed["replay"]["evaluations"].as_u64().unwrap() > 0,
        "{replayed:#}"
    );
    assert_eq!(replayed["replay"]["exact"]["decisions"], Value::Array(Vec::new()));
}
