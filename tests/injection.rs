//! How the agent gets into a command or a service, and what keeps it out: what cannot be traced runs all the same.

use serde_json::{Value, json};

use crate::agent::{account, by_name, finished, injected, prepared};
use crate::world::text;

#[test]
fn a_cupti_that_cannot_be_used_is_told_and_the_command_runs_on() {
    for (name, value) in [
        ("PLIMSOLL_SIM_CUPTI_FAULT", "not-initialized"),
        ("PLIMSOLL_SIM_CUPTI_FAULT", "subscribe-busy"),
        ("PLIMSOLL_SIM_CUPTI_FAULT", "enable-fails:10:21"),
        (
            "PLIMSOLL_SIM_CUPTI_FAULT",
            "missing-symbol:cuptiActivityRegisterCallbacks",
        ),
        ("PLIMSOLL_CUPTI_LIBRARY", "/no/such/libcupti.so"),
    ] {
        let world = prepared();
        let mut run = world.traced(&["--launches", "500"]);
        let account = account(&run.env(name, value).output().unwrap());
        assert_eq!(account.launches, 500, "{value}");
        let told = world.sql("SELECT message FROM events WHERE kind = 'agent_degraded'");
        assert!(
            !told.is_empty(),
            "{value}: {:?}",
            world.sql("SELECT kind, message FROM events")
        );
        // Whoever asks for the kernels reads why there are none.
        let shown = text(&world.call(&["kernels", "last"]).stdout).to_owned();
        let words: Vec<&str> = shown.split_whitespace().collect();
        if shown.starts_with("No kernels") {
            let message = told[0]["message"].as_str().unwrap();
            let first: Vec<&str> = message.split_whitespace().take(5).collect();
            assert!(words.join(" ").contains(&first.join(" ")), "{value}: {shown}");
        } else {
            assert_eq!(value, "subscribe-busy", "{shown}");
        }
    }
}

#[test]
fn a_command_finds_what_it_needs_in_its_environment() {
    let world = prepared();
    let output = world
        .plimsoll()
        .args(["run", "--trace", "kernels", "--budget", "2%", "--", "env"])
        .env("CUDA_INJECTION64_PATH", "/opt/other/profiler.so")
        .output()
        .unwrap();
    let said = text(&output.stdout);
    let value = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    assert!(
        value("CUDA_INJECTION64_PATH").is_some_and(|path| path.ends_with("/libplimsoll_agent.so")),
        "{said}"
    );
    assert_eq!(value("PLIMSOLL_CHAIN"), Some("/opt/other/profiler.so"));
    assert_eq!(
        value("PLIMSOLL_SOCKET").map(Into::into),
        Some(world.path("plimsoll.sock"))
    );
    assert_eq!(
        (value("PLIMSOLL_TRACE"), value("PLIMSOLL_BUDGET")),
        (Some("kernels"), Some("0.02"))
    );
    let shown = world.call(&["kernels", "last"]);
    assert!(
        text(&shown.stdout).starts_with("No kernels of run 1 (env) are recorded"),
        "{shown:?}"
    );
}

#[test]
fn without_the_agent_the_command_runs_all_the_same() {
    let world = prepared();
    let output = world
        .plimsoll()
        .args([
            "run",
            "--trace",
            "graph",
            "--",
            "sh",
            "-c",
            "echo $CUDA_INJECTION64_PATH-; exit 3",
        ])
        .env("PLIMSOLL_AGENT", "/no/such/agent.so")
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(3), "-\n")
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("GPU work will not be traced: PLIMSOLL_AGENT names /no/such/agent.so"),
        "{said}"
    );
    assert_eq!(
        world.sql("SELECT trace_tier FROM runs"),
        [json!({ "trace_tier": "off" })]
    );
    for budget in ["0", "101%", "-1%", "much"] {
        let refused = world.call(&["run", "--trace", "graph", "--budget", budget, "--", "true"]);
        assert_eq!(refused.status.code(), Some(2), "{budget}");
    }
}

#[test]
fn a_cupti_that_would_take_the_command_along_is_not_loaded_into_it() {
    let world = prepared();
    let mut run = world.traced(&["--launches", "500"]);
    let output = run
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "crash-on-version")
        .output()
        .unwrap();
    assert_eq!(account(&output).launches, 500);
    let said = text(&output.stderr);
    assert!(
        said.contains("GPU work will not be traced: ")
            && said.contains("SIGSEGV")
            && said.contains("at: version; name another libcupti"),
        "{said}"
    );
    assert_eq!(
        world.sql("SELECT trace_tier, outcome FROM runs"),
        [json!({ "trace_tier": "off", "outcome": "ok" })]
    );
    let mut failing = world.with_cuda();
    failing
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "crash-on-version")
        .args(["run", "--trace", "graph", "--", "sh", "-c", "exit 3"]);
    assert_eq!(failing.status().unwrap().code(), Some(3));
}

#[test]
fn a_service_with_such_a_cupti_is_traced_without_asking_for_its_version() {
    let world = prepared();
    let daemon = world.daemon(&world.base_config());
    let mut command = world.with_cuda();
    command
        .env("PLIMSOLL_SIM_CUPTI_FAULT", "crash-on-version")
        .args(["sim-cuda", "--launches", "300"]);
    let account = finished(injected(&world, command));
    world.row("SELECT * FROM runs WHERE ended_ns IS NOT NULL");
    assert!(daemon.stop().success());
    assert_eq!(world.kernels(), by_name(&account));
}

#[test]
fn a_database_deep_in_folders_needs_no_short_name_to_record_a_run() {
    let world = prepared();
    let deep = world.path(&"deep/".repeat(30));
    std::fs::create_dir_all(&deep).unwrap();
    let database = deep.join("plimsoll.db");
    let mut run = world.traced(&["--launches", "200"]);
    let account = account(&run.env("PLIMSOLL_DB", &database).output().unwrap());
    let query = world
        .plimsoll()
        .args(["sql", "--format", "json", "SELECT sum(count) AS n FROM kernels"])
        .env("PLIMSOLL_DB", &database)
        .output()
        .unwrap();
    let rows: Value = serde_json::from_slice(&query.stdout).unwrap();
    assert_eq!(rows, json!([{ "n": account.launches }]));
    // A daemon is asked by others, who must know where.
    let daemon = world
        .plimsoll()
        .arg("daemon")
        .env("PLIMSOLL_DB", &database)
        .output()
        .unwrap();
    assert!(!daemon.status.success());
    let said = text(&daemon.stderr);
    assert!(
        said.contains("sockets take 107") && said.contains("PLIMSOLL_SOCKET"),
        "{said}"
    );
}
