//! `plimsoll export`: a run for other tools.

use serde_json::Value;

use crate::world::{World, text};

fn recorded() -> World {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    let run = world.call(&["run", "--name", "job", "--", "sh", "-c", "sleep 0.5"]);
    assert!(run.status.success());
    world
}

#[test]
fn a_run_for_other_tools() {
    let world = recorded();
    let perfetto = world.call(&["export", "job", "--format", "perfetto"]);
    assert!(perfetto.status.success(), "{}", text(&perfetto.stderr));
    let trace: Value = serde_json::from_slice(&perfetto.stdout).expect("JSON");
    assert!(
        trace["traceEvents"]
            .as_array()
            .is_some_and(|events| !events.is_empty())
    );
    let csv = world.call(&["export", "job", "--format", "csv", "-o", "-"]);
    assert!(text(&csv.stdout).starts_with("at_ns,view,device,pid,of,name,value\n"));
    let lines = world.call(&["export", "job", "--format", "ndjson"]);
    for line in text(&lines.stdout).lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|row| row["view"].is_string()),
            "{line}"
        );
    }
}

#[test]
fn a_file_is_whole_or_not_there() {
    let world = recorded();
    let file = world.path("job.csv");
    let file = file.to_str().expect("a name");
    let written = world.call(&["export", "job", "--format", "csv", "-o", file]);
    assert!(
        written.status.success() && written.stdout.is_empty(),
        "{}",
        text(&written.stderr)
    );
    assert!(std::fs::metadata(file).is_ok_and(|file| file.len() > 36));
    let file = world.path("none.csv");
    let file = file.to_str().expect("a name");
    let unknown = world.call(&["export", "jbo", "--format", "csv", "-o", file]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        text(&unknown.stderr).contains("there is no run 'jbo'"),
        "{}",
        text(&unknown.stderr)
    );
    assert!(!std::path::Path::new(file).exists());
    let nowhere = world.call(&["export", "job", "--format", "csv", "-o", "/nope/x.csv"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("the folder /nope does not exist"));
    let outside = world.call(&["export", "job", "--format", "csv", "--from", "1h"]);
    assert_eq!(outside.status.code(), Some(2));
}

#[test]
fn kernels_that_were_not_recorded_are_said() {
    let world = recorded();
    let (picture, flame) = (world.path("job.svg"), world.path("flame.svg"));
    let [picture, flame] = [&picture, &flame].map(|path| path.to_str().expect("a name"));
    let drawn = world.call(&["report", "job", "-o", picture, "--flame", flame]);
    assert!(drawn.status.success(), "{}", text(&drawn.stderr));
    let flame = std::fs::read_to_string(flame).expect("a picture");
    assert!(flame.contains("no kernels were recorded"), "{flame}");
}
