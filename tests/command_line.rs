//! The commands that read: what they print, and how they say no.

use serde_json::Value;

use crate::world::{World, text};

fn recorded() -> World {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    assert!(world.call(&["run", "--name", "job", "--", "sh", "-c", "sleep 0.5"]).status.success());
    world
}

#[test]
fn sql_reads_and_nothing_else() {
    let world = recorded();
    for query in [
        "DELETE FROM runs",
        "ATTACH '/etc/passwd' AS other",
        "VACUUM INTO '/tmp/copy.db'",
        "PRAGMA query_only = 0",
        "CREATE TEMP TABLE t (a)",
        "SELECT load_extension('x')",
        "UPDATE _run SET name = 'x'",
    ] {
        let output = world.call(&["sql", query]);
        assert_eq!(output.status.code(), Some(5), "{query}: {}", text(&output.stderr));
    }
    let output = world.call(&["sql", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("time limit"), "{}", text(&output.stderr));
}

#[test]
fn sql_that_is_wrong_shows_where() {
    let world = recorded();
    let output = world.call(&["sql", "SELECT name FRM runs"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("SELECT name FRM runs") && said.contains('^'), "{said}");
    let output = world.call(&["sql", "SELECT nme FROM runs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nme"), "{}", text(&output.stderr));
}

#[test]
fn sql_speaks_many_formats() {
    let world = recorded();
    let ask = |format: &str| text(&world.call(&["sql", "--format", format, "SELECT name, engine FROM runs"]).stdout);
    assert_eq!(ask("csv"), "name,engine\njob,\n");
    assert_eq!(ask("ndjson"), "{\"name\":\"job\",\"engine\":null}\n");
    let json: Value = serde_json::from_str(&ask("json")).unwrap();
    assert_eq!(json, serde_json::json!([{ "name": "job", "engine": null }]));
    assert!(ask("markdown").contains("| job"));
    assert!(ask("table").contains("job"));
}

#[test]
fn sql_takes_its_query_from_stdin() {
    use std::io::Write;
    use std::process::Stdio;

    let world = recorded();
    let mut child = world.plimsoll().args(["sql", "-", "--format", "csv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT count(*) AS n\nFROM runs").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "n\n1\n");
}

#[test]
fn runs_are_listed_shown_and_drawn() {
    let world = recorded();
    let list = text(&world.call(&["runs"]).stdout);
    assert!(list.contains("job") && list.contains("ok"), "{list}");
    let json: Value = serde_json::from_slice(&world.call(&["runs", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], 1);
    for run in ["last", "1", "job"] {
        let shown = world.call(&["show", run]);
        assert!(shown.status.success() && text(&shown.stdout).contains("job"), "{}", text(&shown.stderr));
        let shown: Value = serde_json::from_slice(&world.call(&["show", run, "--json"]).stdout).unwrap();
        assert_eq!(shown["version"], 1);
    }
    let unknown = world.call(&["show", "jobb"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("job"), "{}", text(&unknown.stderr));
    assert!(world.call(&["report", "last", "-o", "picture.svg"]).status.success());
    assert!(world.read("picture.svg").starts_with("<svg"));
    assert!(world.call(&["report", "last", "-o", "report.html"]).status.success());
    assert!(world.read("report.html").contains("<svg"));
    let stdout = world.call(&["report", "last", "-o", "-"]);
    assert!(text(&stdout.stdout).starts_with("<svg"));
}

#[test]
fn without_a_database_or_a_daemon_it_says_what_to_do() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    let output = world.call(&["runs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("plimsoll.db"), "{}", text(&output.stderr));
    let output = world.call(&["status"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("plimsoll daemon"), "{}", text(&output.stderr));
}

#[test]
fn usage_errors_have_their_own_status() {
    let world = World::new();
    for arguments in [&["frobnicate"][..], &["show"], &["demo", "--seconds", "1"], &["sql", "--format", "xml", "SELECT 1"]] {
        assert_eq!(world.call(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn help_and_completions_and_manual() {
    let world = World::new();
    insta::assert_snapshot!("help", text(&world.call(&["--help"]).stdout));
    assert!(text(&world.call(&["completions", "bash"]).stdout).contains("plimsoll"));
    assert!(text(&world.call(&["man"]).stdout).starts_with(".ie"));
}
