//! The commands that read: what they print, and how they say no.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::{World, text};

fn recorded() -> World {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    assert!(
        world
            .call(&["run", "--name", "job", "--", "sh", "-c", "sleep 0.5"])
            .status
            .success()
    );
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
    let output = world.call(&[
        "sql",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    ]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("time limit"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn sql_that_is_wrong_shows_where() {
    let world = recorded();
    let output = world.call(&["sql", "SELECT name FRM runs"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("SELECT name FRM runs") && said.contains('^'),
        "{said}"
    );
    let output = world.call(&["sql", "SELECT nme FROM runs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nme"), "{}", text(&output.stderr));
}

#[test]
fn sql_over_its_limit_prints_what_it_may_and_says_so() {
    let world = recorded();
    let count =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 100001) SELECT x FROM c";
    let output = world.call(&["sql", "--format", "csv", count]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(
        text(&output.stdout).lines().count(),
        100_001,
        "a header and as many rows as are allowed"
    );
    assert!(
        text(&output.stderr).contains("limit of 100000 rows"),
        "{}",
        text(&output.stderr)
    );
}

/// Data go into a pipe as they are, and to a terminal without what could command it.
#[test]
fn stored_text_cannot_command_the_terminal() {
    let world = recorded();
    let query = "SELECT char(27) || '[2J' || char(155) || 'x' AS a";
    assert_eq!(
        text(&world.call(&["sql", "--format", "csv", query]).stdout),
        "a\n\u{1b}[2J\u{9b}x\n"
    );
    let mut terminal = Command::new("script");
    let command = format!("{} sql --format csv \"{query}\"", env!("CARGO_BIN_EXE_plimsoll"));
    terminal
        .args(["-qec", &command, "/dev/null"])
        .env("PLIMSOLL_DB", world.path("plimsoll.db"))
        .stdin(Stdio::null());
    // Where there is no script(1), the unit test of what is harmless has to do.
    let Ok(output) = terminal.output() else { return };
    let shown = text(&output.stdout);
    assert!(
        shown.contains("\u{fffd}[2J\u{fffd}x") && !shown.contains('\u{1b}'),
        "{shown:?}"
    );
}

/// Nobody reads, or nobody can hear: never a panic.
#[test]
fn full_and_closed_outputs() {
    let world = recorded();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = world.plimsoll().arg("runs").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("stdout cannot be written"),
        "{}",
        text(&output.stderr)
    );
    let silent = world
        .plimsoll()
        .args(["show", "nobody"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(
        silent.status.code(),
        Some(1),
        "its own status, not that of a panic"
    );
    let silent = world
        .plimsoll()
        .args(["run", "--", "true"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(silent.status.code(), Some(0));
    // A reader that has gone away is no failure.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(
        world
            .plimsoll()
            .args(["sql", "SELECT 1"])
            .stdout(writer)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn sql_speaks_many_formats() {
    let world = recorded();
    let ask = |format: &str| {
        text(
            &world
                .call(&["sql", "--format", format, "SELECT name, engine FROM runs"])
                .stdout,
        )
    };
    assert_eq!(ask("csv"), "name,engine\njob,\n");
    assert_eq!(ask("ndjson"), "{\"name\":\"job\",\"engine\":null}\n");
    let json: Value = serde_json::from_str(&ask("json")).unwrap();
    assert_eq!(json, serde_json::json!([{ "name": "job", "engine": null }]));
    assert!(ask("markdown").contains("| job"));
    assert!(ask("table").contains("job"));
}

#[test]
fn sql_takes_its_query_from_stdin() {
    let world = recorded();
    let mut child = world
        .plimsoll()
        .args(["sql", "-", "--format", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"SELECT count(*) AS n\nFROM runs")
        .unwrap();
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
        assert!(
            shown.status.success() && text(&shown.stdout).contains("job"),
            "{}",
            text(&shown.stderr)
        );
        let shown: Value = serde_json::from_slice(&world.call(&["show", run, "--json"]).stdout).unwrap();
        assert_eq!(shown["version"], 1);
    }
    let unknown = world.call(&["show", "jobb"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("job"), "{}", text(&unknown.stderr));
    assert!(
        world
            .call(&["report", "last", "-o", "picture.svg"])
            .status
            .success()
    );
    assert!(world.read("picture.svg").starts_with("<svg"));
    assert!(
        world
            .call(&["report", "last", "-o", "report.html"])
            .status
            .success()
    );
    assert!(world.read("report.html").contains("<svg"));
    for (arguments, status) in [
        (["--from", "5"], 2),
        (["--from", "9999999d"], 2),
        (["--from", "1h"], 2),
        (["--to", "2001-01-01 00:00"], 2),
        (["-o", "picture.png"], 2),
        (["-o", "nowhere/picture.svg"], 1),
        (["--to", "1h"], 0),
    ] {
        let output = world.call(&[&["report", "last"], &arguments[..]].concat());
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
    std::os::unix::fs::symlink("picture.svg", world.path("link.svg")).unwrap();
    world.write("picture.svg", "");
    assert!(world.call(&["report", "last", "-o", "link.svg"]).status.success());
    assert!(world.path("link.svg").is_symlink() && world.read("picture.svg").starts_with("<svg"));
    let stdout = world.call(&["report", "last", "-o", "-"]);
    assert!(text(&stdout.stdout).starts_with("<svg"));
}

#[test]
fn without_a_database_or_a_daemon_it_says_what_to_do() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    let output = world.call(&["runs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("plimsoll.db"),
        "{}",
        text(&output.stderr)
    );
    let output = world.call(&["status"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output.stderr).contains("plimsoll daemon"),
        "{}",
        text(&output.stderr)
    );
    let output = world.call(&["runs", "--db", "/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is a folder"),
        "{}",
        text(&output.stderr)
    );
}

/// Without any configuration the first run of somebody who is not root makes the folder of their database, and the
/// next command finds it there.
#[test]
fn the_usual_place_is_made() {
    const NOBODY: u32 = 65_534;

    let world = World::new();
    let program = world.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_plimsoll"), &program).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(world.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .env_clear()
            .env("HOME", world.path(""))
            .env("PATH", "/usr/bin:/bin")
            .current_dir(world.path(""))
            .args(arguments);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap()
    };
    let recorded = call(&["run", "--", "true"]);
    assert!(recorded.status.success(), "{}", text(&recorded.stderr));
    let folder = world.path(".local/share/plimsoll").metadata().unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    assert!(text(&call(&["runs"]).stdout).contains("true"));
}

#[test]
fn usage_errors_have_their_own_status() {
    let world = World::new();
    for arguments in [
        &["frobnicate"][..],
        &["show"],
        &["demo", "--seconds", "1"],
        &["sql", "--format", "xml", "SELECT 1"],
    ] {
        assert_eq!(world.call(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn help_and_completions_and_manual() {
    let world = World::new();
    insta::assert_snapshot!("help", text(&world.call(&["--help"]).stdout));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&world.call(&["completions", shell]).stdout);
        assert!(
            script.contains("report") && !script.contains("sim-engine"),
            "{shell}"
        );
    }
    let page = text(&world.call(&["man"]).stdout);
    assert!(
        page.starts_with(".ie") && page.contains("EXIT STATUS") && !page.contains("sim\\-engine"),
        "{page}"
    );
    for command in [
        "demo",
        "daemon",
        "run",
        "status",
        "runs",
        "show",
        "report",
        "sql",
        "why",
        "plan",
        "apply",
        "revert",
        "pause",
        "resume",
        "rules check",
        "rules test",
        "rules replay",
        "completions",
        "man",
    ] {
        assert!(page.contains(&format!(".SS \"{command}\"")), "{command}");
    }
}

#[test]
fn a_configuration_to_start_with_is_written_once_and_valid() {
    let world = World::new();
    let printed = world.call(&["init", "custom"]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let file = world.path("mine.toml");
    let written = world.call(&["init", "custom", "-o", "mine.toml"]);
    assert!(written.status.success() && written.stdout.is_empty());
    assert!(
        text(&written.stderr).contains("plimsoll check --config mine.toml"),
        "{}",
        text(&written.stderr)
    );
    assert_eq!(world.read("mine.toml"), text(&printed.stdout));
    // The same words as `check` has for a service.
    for line in [
        "# [Service]",
        "# Environment=PLIMSOLL_TRACE=graph",
        "SERVER.service.d/plimsoll.conf",
    ] {
        assert!(world.read("mine.toml").contains(line), "{line}");
    }
    let checked = text(&world.call(&["check", "--config", "mine.toml"]).stdout);
    assert!(
        checked.contains("mine.toml is valid, with 1 engine\n"),
        "{checked}"
    );
    assert!(checked.contains("Environment=PLIMSOLL_TRACE=graph"), "{checked}");

    std::fs::write(&file, "mine").unwrap();
    let again = world.call(&["init", "custom", "-o", "mine.toml"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("is there already and stays as it is"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(world.read("mine.toml"), "mine");
    let unknown = world.call(&["init", "vllm"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr).contains("possible values: custom"),
        "{}",
        text(&unknown.stderr)
    );
    let nowhere = world.call(&["init", "custom", "-o", "no/such/folder.toml"]);
    assert!(
        text(&nowhere.stderr).contains("its folder does not exist"),
        "{}",
        text(&nowhere.stderr)
    );
}
