//! `plimsoll run -- CMD`, with and without a daemon.

use std::process::Stdio;

use rustix::process::Signal;

use crate::world::{Process, World, text, until};

fn prepared() -> World {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    world
}

#[test]
fn the_command_s_streams_and_status_pass_through() {
    let world = prepared();
    let output = world.call(&[
        "run",
        "--name",
        "job",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        (text(&output.stdout).as_str(), text(&output.stderr).as_str()),
        ("out\n", "err\n")
    );
    let run = world.row("SELECT * FROM runs");
    assert_eq!(
        (
            run["name"].as_str(),
            run["exit_code"].as_i64(),
            run["outcome"].as_str()
        ),
        (Some("job"), Some(3), Some("failed"))
    );
    assert_eq!(run["command"], "sh -c echo out; echo err >&2; exit 3");
    assert_eq!(world.call(&["run", "--", "true"]).status.code(), Some(0));
    assert_eq!(
        world.call(&["run", "--", "/no/such/program"]).status.code(),
        Some(127)
    );
    let rows = world.sql("SELECT name, outcome FROM runs ORDER BY id");
    assert_eq!(rows.len(), 2, "what could not be started is no run: {rows:?}");
}

#[test]
fn without_a_driver_the_command_has_the_word() {
    let world = prepared();
    std::fs::remove_file(world.library()).unwrap();
    let mut run = world.plimsoll();
    run.args(["run", "--", "sleep", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut run = Process(run.spawn().unwrap());
    // It was looked for, and that is in the recording.
    world.event("driver_missing");
    run.signal(Signal::TERM);
    run.wait();
    let mut said = String::new();
    std::io::Read::read_to_string(run.0.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn signals_reach_the_command() {
    let world = prepared();
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::USR1, 138)] {
        if is_ignored(signal) {
            // As in the background of a script: the command ignores it as well, and goes on.
            continue;
        }
        let mut run = world.plimsoll();
        run.args(["run", "--name", "slow", "--", "sleep", "600"])
            .stdout(Stdio::null());
        let mut run = Process(run.spawn().unwrap());
        world.row("SELECT * FROM runs WHERE outcome = 'running'");
        run.signal(signal);
        assert_eq!(run.wait().code(), Some(status));
    }
    let rows = world.sql("SELECT outcome, exit_code FROM runs ORDER BY id");
    assert_eq!(
        rows[0],
        serde_json::json!({ "outcome": "killed", "exit_code": 143 })
    );
}

/// Whether this test, and so everything that it starts, ignores a signal.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn what_the_command_holds_is_recorded_with_and_without_a_daemon() {
    for with_daemon in [false, true] {
        let world = prepared();
        let daemon = with_daemon.then(|| world.daemon(&world.base_config()));
        let marker = world.path("pid");
        let script = format!("echo $$ > {}; exec sleep 600", marker.display());
        let mut run = world.plimsoll();
        run.args(["run", "--name", "job", "--", "sh", "-c", &script]);
        let mut run = Process(run.spawn().unwrap());
        let pid: u32 = until("the command runs", || {
            world
                .path("pid")
                .exists()
                .then(|| world.read("pid").trim().parse().ok())?
        });
        let process = world.gpu.attach(0, pid).unwrap();
        process.resize(5 << 30).unwrap();
        let sample = world.row("SELECT * FROM process_samples WHERE run_id = 1 AND used_bytes > 0");
        assert_eq!(sample["used_bytes"], 5_u64 << 30);
        run.signal(Signal::TERM);
        run.wait();
        let end = world.row("SELECT * FROM runs WHERE outcome = 'killed'");
        assert_eq!(
            end["peak_used_bytes"],
            5_u64 << 30,
            "with a daemon: {with_daemon}"
        );
        if let Some(daemon) = daemon {
            assert!(daemon.stop().success());
        }
    }
}

#[test]
fn a_recorder_that_is_killed_leaves_a_lost_run_behind_a_daemon() {
    let world = prepared();
    let _daemon = world.daemon(&world.base_config());
    let mut run = world.plimsoll();
    run.args(["run", "--name", "job", "--", "sleep", "2"]);
    let mut run = Process(run.spawn().unwrap());
    world.row("SELECT * FROM runs WHERE outcome = 'running'");
    run.signal(Signal::KILL);
    run.wait();
    world.row("SELECT * FROM runs WHERE outcome = 'lost'");
}
