//! What a person tells the agents of a run, and how `plimsoll status` shows them: `trace` over the simulated CUDA program.

use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Daemon, Process, World, text, until};

/// A program that goes on for minutes, and the daemon that its agent reports to.
fn traced(world: &World, tier: &str) -> (Daemon, Process) {
    traced_by(world, tier, world.with_cuda())
}

fn traced_by(world: &World, tier: &str, mut run: Command) -> (Daemon, Process) {
    let daemon = world.daemon(&world.base_config());
    run.args(["run", "--name", "job", "--trace", tier, "--budget", "100%", "--"])
        .arg(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["sim-cuda", "--launches", "400000", "--rate", "1000"])
        .stdout(Stdio::null());
    let run = Process(run.spawn().unwrap());
    until("the agent says how it stands", || {
        let agent = agent(world)?;
        (!agent["state"].is_null() && !agent["tier"].is_null()).then_some(())
    });
    (daemon, run)
}

fn agent(world: &World) -> Option<Value> {
    let output = world.call(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    status["agents"].get(0).cloned()
}

fn stop(daemon: Daemon, mut run: Process) {
    // The signal is the program's.
    run.signal(Signal::TERM);
    run.wait();
    assert!(daemon.stop().success());
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_window_that_was_asked_for_keeps_each_kernel_in_any_tier() {
    for tier in ["memory", "graph"] {
        let world = World::new();
        let (daemon, run) = traced(&world, tier);
        assert_eq!(world.sql("SELECT * FROM kernel_spans"), Vec::<Value>::new());
        let said = succeeded(&world.call(&["trace", "job", "--window", "1s"]));
        assert!(
            said.contains("kernels of process") && said.contains("plimsoll export 1"),
            "{said}"
        );
        // The command returns when they are stored.
        let kept = world.sql(
            "SELECT count(*) AS n, max(start_ns) - min(start_ns) AS ns FROM kernel_spans WHERE run_id = 1",
        );
        let (count, length) = (kept[0]["n"].as_u64(), kept[0]["ns"].as_u64());
        assert!(
            count > Some(0) && length <= Some(1_000_000_000),
            "tier {tier}: {kept:?}"
        );
        let exported = world.call(&["export", "job", "--format", "perfetto"]);
        assert!(
            text(&exported.stdout).contains("kernel_0(float*, float*, int)"),
            "tier {tier}"
        );
        // The tier is as it was.
        let agent = agent(&world).unwrap();
        assert_eq!(
            (agent["tier"].as_str(), agent["state"].as_str()),
            (Some(tier), Some("tracing"))
        );
        stop(daemon, run);
    }
}

#[test]
fn cupti_is_left_to_another_and_taken_back() {
    let world = World::new();
    let (daemon, run) = traced(&world, "graph");
    let said = succeeded(&world.call(&["trace", "job", "--yield"]));
    assert!(
        said.contains("CUPTI is free in process") && said.contains("--resume"),
        "{said}"
    );
    assert_eq!(agent(&world).unwrap()["state"], "yielded");
    // It is so already.
    succeeded(&world.call(&["trace", "job", "--yield"]));
    let refused = world.call(&["trace", "job", "--window", "1s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("has left CUPTI to another profiler"),
        "{}",
        text(&refused.stderr)
    );

    let answer = world.call(&["trace", "job", "--resume", "--json"]);
    succeeded(&answer);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(
        (&answer["version"], &answer["agents"][0]["done"]),
        (&1.into(), &true.into())
    );
    let recorded = "SELECT coalesce(sum(count), 0) AS n FROM kernels";
    let before = world.sql(recorded)[0]["n"].as_u64().unwrap();
    until("kernels are recorded again", || {
        (world.sql(recorded)[0]["n"].as_u64().unwrap() > before).then_some(())
    });
    world.row("SELECT * FROM events WHERE kind = 'agent_displaced' AND message LIKE '%as it was asked to%'");
    stop(daemon, run);
}

#[test]
fn an_agent_without_cupti_has_nothing_to_leave_and_keeps_nothing() {
    let world = World::new();
    let mut run = world.with_cuda();
    run.env("PLIMSOLL_CUPTI_LIBRARY", "/no/such/libcupti.so");
    let (daemon, run) = traced_by(&world, "graph", run);
    assert_eq!(agent(&world).unwrap()["state"], "off");
    succeeded(&world.call(&["trace", "job", "--yield"]));
    succeeded(&world.call(&["trace", "job", "--resume"]));
    let refused = world.call(&["trace", "job", "--window", "1s"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("it records nothing: ") && said.contains("libcupti"),
        "{said}"
    );
    stop(daemon, run);
}

#[test]
fn agents_are_shown_with_what_they_cost() {
    let world = World::new();
    let (daemon, run) = traced(&world, "graph");
    let agent = until("its cost is known", || {
        agent(&world).filter(|agent| !agent["cost_ratio"].is_null())
    });
    assert_eq!(
        (
            agent["name"].as_str(),
            agent["wanted_tier"].as_str(),
            agent["budget_ratio"].as_f64()
        ),
        (Some("job"), Some("graph"), Some(1.0))
    );
    assert!(
        agent["device_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{agent}"
    );
    assert_eq!(agent["losses"], serde_json::json!({}));
    let shown = text(&world.call(&["status"]).stdout);
    let line = shown
        .lines()
        .skip_while(|line| *line != "agents of run 1 (job):")
        .nth(2);
    let line = line.unwrap_or_else(|| panic!("{shown}"));
    for part in ["graph", "recording", "%", "MiB"] {
        assert!(line.contains(part), "{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    stop(daemon, run);
    assert_eq!(world.call(&["status"]).status.code(), Some(4));
}

#[test]
fn what_cannot_be_told_says_why() {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    succeeded(&world.call(&["run", "--name", "job", "--", "true"]));
    for (arguments, code, why) in [
        (&["trace", "job"][..], 2, "--window"),
        (&["trace", "job", "--yield", "--resume"], 2, "cannot be used with"),
        (&["trace", "job", "--window", "1m"], 2, "between 250ms and 30s"),
        (&["trace", "job", "--window", "5"], 2, "is not a duration"),
        (&["trace", "jab", "--yield"], 1, "job"),
        (&["trace", "job", "--yield"], 4, "no daemon listens"),
    ] {
        let output = world.call(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    let daemon = world.daemon(&world.base_config());
    let output = world.call(&["trace", "job", "--yield"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no agent reports from run 1"),
        "{}",
        text(&output.stderr)
    );
    assert!(daemon.stop().success());
}
