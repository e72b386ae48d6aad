//! `plimsoll rules check` and `plimsoll rules test`.

use serde_json::Value;

use crate::world::{World, text};

const DOCUMENTED: &str = include_str!("../docs/tuning.test.toml");

#[test]
fn the_documented_tests_pass_and_a_wrong_expectation_is_shown() {
    let world = World::new();
    world.write("t.toml", DOCUMENTED);
    let output = world.call(&["rules", "test", "t.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.ends_with("4 passed, 0 failed\n"), "{said}");

    world.write(
        "t.toml",
        &DOCUMENTED.replacen("quantize = \"applying\"", "quantize = \"idle\"", 1),
    );
    let output = world.call(&["rules", "test", "t.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("at 1 min 10 s\n    - quantize: idle\n    + quantize: applying\n"),
        "{said}"
    );
    let output = world.call(&["rules", "test", "t.toml", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["failed"], 1);
    assert_eq!(answer["tests"][1]["failures"][0]["found"], "applying");
}

#[test]
fn a_file_that_is_not_one_is_said_to_be_that() {
    let world = World::new();
    let bad = [
        ("[[test", "t.toml"),
        ("x = 1", "x"),
        ("", "[[test]]"),
        (
            &*DOCUMENTED.replacen("95% for 20s, 60%", "95% twice", 1),
            "behind the value",
        ),
        (
            &*DOCUMENTED.replacen("vram.used_ratio\" = \"60%", "vram.use\" = \"60%", 1),
            "no signal",
        ),
        (
            &*DOCUMENTED.replacen("= \"pending\"", "= \"waiting\"", 1),
            "no state 'waiting'",
        ),
        (
            &*DOCUMENTED.replacen("ends = { quantize", "ends = { other", 1),
            "no rule 'other'",
        ),
        (
            &*DOCUMENTED.replacen("enter = \"85%\"", "enter = \"85GiB\"", 1),
            "not a ratio",
        ),
        (
            &*DOCUMENTED.replacen("at = \"50s\"", "at = \"5m\"", 1),
            "order of time",
        ),
    ];
    for (file, says) in bad {
        world.write("t.toml", file);
        let output = world.call(&["rules", "test", "t.toml"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{file}: {said}");
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(world.call(&["rules", "test", "none.toml"]).status.code(), Some(2));
}

#[test]
fn lints_have_their_place_and_a_status() {
    let world = World::new();
    let good = DOCUMENTED
        .split("[[test]]")
        .next()
        .unwrap()
        .replace("mode = \"act\"\n", "");
    world.write("plimsoll.toml", &(world.base_config() + &good));
    let output = world.call(&["rules", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));

    let narrow = good.replace("exit = \"70%\"", "exit = \"82%\"");
    world.write("plimsoll.toml", &(world.base_config() + &narrow));
    let output = world.call(&["rules", "check"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(6), "{said}");
    let line = (world.base_config() + &narrow)
        .lines()
        .position(|line| line.contains("82%"))
        .unwrap()
        + 1;
    assert!(
        said.contains(&format!(
            "plimsoll.toml:{line}: rule 'fewer-requests' of chat, when.exit"
        )),
        "{said}"
    );
    assert!(said.contains("why: ") && said.contains("to do: "), "{said}");
    let answer: Value = serde_json::from_slice(&world.call(&["rules", "check", "--json"]).stdout).unwrap();
    assert_eq!(answer["lints"][0]["kind"], "narrow_gap");
    // The doctor shows them too.
    let said = text(&world.call(&["check"]).stdout);
    assert!(said.contains("rules: ") && said.contains("when.exit"), "{said}");

    world.write("plimsoll.toml", "[");
    assert_eq!(world.call(&["rules", "check"]).status.code(), Some(2));
}
