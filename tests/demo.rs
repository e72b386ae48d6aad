//! `plimsoll demo`, as a newcomer runs it.

use crate::replay::{is_reproduced, replay};
use crate::world::{World, text};

#[test]
fn the_demo_shows_the_whole_loop() {
    let world = World::new();
    let output = world.call(&["demo", "--seconds", "20", "--out", "demo"]);
    let (said, story) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{story}");
    let kept = |rule: &str| {
        said.lines()
            .position(|line| line.contains(rule) && line.contains("kept"))
    };
    assert!(
        kept("checkpointing").unwrap() < kept("quantize").unwrap(),
        "{said}"
    );
    for rule in ["checkpointing", "quantize"] {
        let mut lines = said
            .lines()
            .skip_while(|line| !line.contains(&format!("rule {rule} (apply): kept")));
        assert!(lines.next().unwrap().ends_with(" freed"), "{said}");
        let reloaded = lines.next().unwrap();
        assert!(
            reloaded.contains("reloaded by SIGHUP, served again after")
                && reloaded.contains("new values shown"),
            "{reloaded}"
        );
    }
    assert!(said.contains("comments intact"), "{said}");
    let (before, after) = (
        world.read("demo/engine.before.yaml"),
        world.read("demo/engine.yaml"),
    );
    assert!(
        after.contains("gradient_checkpointing: true") && after.contains("quantization: \"int8\""),
        "{after}"
    );
    let comments = |text: &str| {
        let comments = text.lines().filter_map(|line| line.split_once('#'));
        comments
            .map(|(_, comment)| comment.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(before.lines().count(), after.lines().count());
    assert!(comments(&before).len() > 5, "{before}");
    assert_eq!(comments(&before), comments(&after));
    for file in ["timeline.svg", "report.html", "plimsoll.db"] {
        assert!(
            world.path("demo").join(file).metadata().unwrap().len() > 1000,
            "{file}"
        );
    }
    let output = world.call(&[
        "sql",
        "--db",
        "demo/plimsoll.db",
        "--format",
        "json",
        "SELECT * FROM decisions ORDER BY at_ns, id",
    ]);
    let decisions: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let replayed = replay(&world, &["last", "--db", "demo/plimsoll.db"]);
    is_reproduced(&replayed, &decisions);
    // Without a daemon the recording itself says where the rules stood at its end, and why.
    let why = text(&world.call(&["why", "--db", "demo/plimsoll.db"]).stdout);
    for words in [
        "rule quantize of engine (act): committed",
        "% without this rung",
        "it stays: ",
        "decided by the rule",
        "quantize was not taken and is taken",
        "by hash: rules ",
    ] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let picture = world.read("demo/timeline.svg");
    for word in ["checkpointing", "quantize", "peak"] {
        assert!(picture.contains(word), "{word}");
    }
    for (view, least) in [
        ("runs", 1),
        ("device_samples", 20),
        ("process_samples", 2),
        ("decisions WHERE outcome = 'kept'", 2),
        ("config_changes WHERE outcome = 'kept'", 2),
    ] {
        let query = format!("SELECT count(*) AS n FROM {view}");
        let output = world.call(&["sql", "--db", "demo/plimsoll.db", "--format", "json", &query]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(rows[0]["n"].as_i64().unwrap() >= least, "{view}: {rows}");
    }
    let alone = said
        .lines()
        .find(|line| line.contains("out of memory: ") && line.contains("simulated"))
        .unwrap();
    assert!(!alone.contains("out of memory: 0;"), "{alone}");
    assert!(story.contains("quantize"), "{story}");
    // Again into the same folder; but never into somebody else's.
    world.write("mine.txt", "mine");
    let output = world.call(&["demo", "--seconds", "10", "--out", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("not empty"),
        "{}",
        text(&output.stderr)
    );
}
