//! `plimsoll demo`, as a newcomer runs it.

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
    assert!(said.contains("comments intact"), "{said}");
    let (before, after) = (
        world.read("demo/engine.before.yaml"),
        world.read("demo/engine.yaml"),
    );
    assert!(
        after.contains("gradient_checkpointing: true") && after.contains("quantization: \"int8\""),
        "{after}"
    );
    assert_eq!(before.lines().count(), after.lines().count());
    for file in ["timeline.svg", "report.html", "plimsoll.db"] {
        assert!(
            world.path("demo").join(file).metadata().unwrap().len() > 1000,
            "{file}"
        );
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
