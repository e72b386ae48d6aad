//! Kernels, copies and allocations from end to end: `plimsoll run --trace` over the simulated CUDA program, through the
//! real agent, ring, socket and store. The program says exactly what it did; the store must say the same.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use plimsoll_sim::cuda::Account;
use serde_json::{Value, json};

use crate::world::{Process, World, text};

impl World {
    /// A command line of the real program in which CUDA is the simulated one.
    pub(crate) fn with_cuda(&self) -> Command {
        let mut command = self.plimsoll();
        let cuda = plimsoll_sim_cuda::library_path().expect("the CUDA library is built with the tests");
        command
            .env("PLIMSOLL_CUPTI_LIBRARY", cuda)
            .env("PLIMSOLL_SIM_GPU", self.path("libnvidia-ml.so.1.gpu"))
            .env("PLIMSOLL_FLUSH", "100ms")
            // On a busy machine the last flush takes longer than a real program would wait for it.
            .env("PLIMSOLL_EXIT", "10s");
        command
    }

    /// A CUDA program under `plimsoll run --trace graph`, without a limit to what tracing may cost: on a busy machine the
    /// governor would rightly trace less.
    pub(crate) fn traced(&self, program: &[&str]) -> Command {
        let mut command = self.with_cuda();
        command
            .args([
                "run", "--name", "job", "--trace", "graph", "--budget", "100%", "--",
            ])
            .arg(env!("CARGO_BIN_EXE_plimsoll"))
            .arg("sim-cuda")
            .args(program);
        command
    }

    /// What is stored of launches and time by name.
    pub(crate) fn kernels(&self) -> BTreeMap<String, (u64, u64)> {
        let rows = self.sql(
            "SELECT raw_name, sum(count) AS count, sum(total_ns) AS total FROM kernels GROUP BY raw_name",
        );
        let row = |row: Value| {
            let number = |key: &str| row[key].as_u64().unwrap();
            (
                row["raw_name"].as_str().unwrap().to_owned(),
                (number("count"), number("total")),
            )
        };
        rows.into_iter().map(row).collect()
    }

    fn lost(&self, reason: &str) -> u64 {
        let rows = self.sql(&format!(
            "SELECT coalesce(sum(count), 0) AS count FROM losses WHERE source = 'agent' AND reason = '{reason}'"
        ));
        rows[0]["count"].as_u64().unwrap()
    }

    #[track_caller]
    fn nothing_lost(&self) {
        assert_eq!(
            self.sql("SELECT * FROM losses WHERE source = 'agent'"),
            Vec::<Value>::new()
        );
    }
}

/// What the program says that it did.
#[track_caller]
pub(crate) fn account(output: &Output) -> Account {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn by_name(account: &Account) -> BTreeMap<String, (u64, u64)> {
    let kernel =
        |(name, tally): (&String, &plimsoll_sim::cuda::Tally)| (name.clone(), (tally.count, tally.total_ns));
    account.kernels.iter().map(kernel).collect()
}

pub(crate) fn prepared() -> World {
    let world = World::new();
    world.write("plimsoll.toml", &world.base_config());
    world
}

/// How many launches the acceptance test asks for.
const LAUNCHES: &str = "1000000";

#[test]
fn counts_and_times_are_exact_and_allocations_balance_with_and_without_a_daemon() {
    for with_daemon in [false, true] {
        let world = prepared();
        let daemon = with_daemon.then(|| world.daemon(&world.base_config()));
        let arguments = [
            "--threads",
            "4",
            "--processes",
            "4",
            "--launches",
            LAUNCHES,
            "--allocations",
            "40",
        ];
        let account = account(&world.traced(&arguments).output().unwrap());
        assert_eq!(account.launches.to_string(), LAUNCHES);
        // The end of `run` is the end of recording: nothing is waited for here.
        assert_eq!(world.kernels(), by_name(&account), "with a daemon: {with_daemon}");
        world.nothing_lost();
        let balance = world.sql(
            "SELECT count(*) FILTER (WHERE operation = 'alloc') AS taken, count(*) FILTER (WHERE operation = 'free') AS freed,
                 sum(CASE operation WHEN 'alloc' THEN bytes END) AS taken_bytes,
                 sum(CASE operation WHEN 'alloc' THEN bytes ELSE -bytes END) AS live_bytes
             FROM allocations WHERE run_id = 1",
        );
        let expected = json!({
            "taken": account.allocations.taken,
            "freed": account.allocations.freed,
            "taken_bytes": account.allocations.taken_bytes,
            "live_bytes": account.allocations.live_bytes,
        });
        assert_eq!(balance, [expected]);
        let copies = world
            .sql("SELECT direction, count, bytes, total_ns FROM copies WHERE run_id = 1 ORDER BY direction");
        let copied: Vec<Value> = account
            .copies
            .iter()
            .map(|(direction, copies)| {
                json!({ "direction": direction, "count": copies.count, "bytes": copies.bytes, "total_ns": copies.total_ns })
            })
            .collect();
        assert_eq!(copies, copied);
        let levels = world.sql(
            "SELECT DISTINCT level, source FROM allocator_samples WHERE run_id = 1 AND rounding_bytes IS NOT NULL",
        );
        assert_eq!(levels, [json!({ "level": "driver", "source": "cupti" })]);
        let agents = world.sql(
            "SELECT DISTINCT json_extract(detail, '$.pid') AS pid FROM events WHERE kind = 'agent_attached'",
        );
        assert_eq!(agents.len(), 4);
        let run = &world.sql("SELECT * FROM runs")[0];
        assert_eq!(
            (run["trace_tier"].as_str(), run["outcome"].as_str()),
            (Some("graph"), Some("ok"))
        );
        let cost = world.sql(
            "SELECT * FROM engine_samples WHERE run_id = 1 AND signal = 'agent.cost_ratio' AND value > 0",
        );
        assert!(!cost.is_empty(), "the cost is stated");
        let shown = text(&world.call(&["kernels", "last"]).stdout);
        assert!(
            shown.contains("kernel_0(float*, float*, int)") && shown.contains("Nothing was lost."),
            "{shown}"
        );
        assert!(shown.contains("Tracing cost "), "{shown}");
        if let Some(daemon) = daemon {
            assert!(daemon.stop().success());
        }
    }
}

#[test]
fn every_layout_of_cupti_gives_the_same_counts() {
    for release in ["11.8", "12.0", "12.9", "13.0", "13.5", "future"] {
        let world = prepared();
        let mut run = world.traced(&["--threads", "2", "--launches", "3000", "--allocations", "5"]);
        let account = account(&run.env("PLIMSOLL_SIM_CUPTI", release).output().unwrap());
        assert_eq!(world.kernels(), by_name(&account), "CUPTI {release}");
        world.nothing_lost();
    }
}

#[test]
fn thousands_of_names_are_counted_each_by_itself() {
    let world = prepared();
    let arguments = ["--names", "4500", "--launches", "9000", "--threads", "2"];
    let account = account(&world.traced(&arguments).output().unwrap());
    assert_eq!(account.kernels.len(), 4_500);
    // Not as a whole: nobody reads thousands of names.
    let (found, expected) = (world.kernels(), by_name(&account));
    for (name, sums) in &expected {
        assert_eq!(found.get(name), Some(sums), "{name}");
    }
    assert_eq!(found.len(), expected.len());
    world.nothing_lost();
}

#[test]
fn what_an_end_does_not_wait_for_is_said() {
    let world = prepared();
    let mut run = world.traced(&["--launches", "30000", "--threads", "2"]);
    run.env("PLIMSOLL_EXIT", "0s").env("PLIMSOLL_FLUSH", "60s");
    let account = account(&run.output().unwrap());
    let counted: u64 = world.kernels().values().map(|(count, _)| count).sum();
    // The end may come before the agent can count what is left; then that is what is said.
    let (cut_off, unfinished) = (world.lost("cut_off"), world.lost("unfinished"));
    assert!(
        counted + cut_off >= account.launches || unfinished == 1,
        "{counted} and {cut_off} of {}",
        account.launches
    );
    assert!(cut_off > 0 || unfinished == 1);
}

#[test]
fn whole_graphs_are_counted() {
    let world = prepared();
    let account = account(
        &world
            .traced(&["--launches", "500", "--graph", "20"])
            .output()
            .unwrap(),
    );
    assert_eq!(account.graphs.count, 500);
    let kernels = world.kernels();
    let (count, total): (u64, u64) = kernels
        .values()
        .fold((0, 0), |(count, total), (more, ns)| (count + more, total + ns));
    assert_eq!((count, total), (500, account.graphs.total_ns), "{kernels:?}");
}

#[test]
fn each_fault_is_counted_and_harms_nobody() {
    let launches = 2_000;
    // Fault, the losses by reason, and how many launches are missing.
    type Losses = &'static [(&'static str, u64)];
    let cases: [(&str, Losses, u64); 8] = [
        ("drops:7", &[("dropped_by_cupti", 7)], 7),
        ("zero-timestamps:5", &[("zero_timestamp", 5)], 5),
        ("inverted:3", &[("inverted_timestamp", 3)], 3),
        (
            "drops:2,zero-timestamps:3,inverted:4",
            &[
                ("dropped_by_cupti", 2),
                ("zero_timestamp", 3),
                ("inverted_timestamp", 4),
            ],
            9,
        ),
        ("huge-names", &[], 0),
        ("non-utf8-names", &[], 0),
        ("slow-flush:50", &[], 0),
        ("clock-step:1:-5000", &[("clock_stepped", 1)], 0),
    ];
    for (fault, losses, missing) in cases {
        let world = prepared();
        let mut run = world.traced(&["--launches", &launches.to_string()]);
        let account = account(&run.env("PLIMSOLL_SIM_CUPTI_FAULT", fault).output().unwrap());
        assert_eq!(account.launches, launches, "{fault}");
        let counted: u64 = world.kernels().values().map(|(count, _)| count).sum();
        assert_eq!(counted, launches - missing, "{fault}");
        for (reason, count) in losses {
            assert_eq!(world.lost(reason), *count, "{fault}: {reason}");
        }
        if losses.is_empty() {
            world.nothing_lost();
        }
    }
}

#[test]
fn records_that_cannot_be_read_are_counted() {
    for fault in ["bad-record-length", "garbage-record"] {
        let world = prepared();
        let mut run = world.traced(&["--launches", "2000"]);
        account(&run.env("PLIMSOLL_SIM_CUPTI_FAULT", fault).output().unwrap());
        let counted: u64 = world.kernels().values().map(|(count, _)| count).sum();
        let lost = world.lost("bad_record");
        // The last record of a buffer need not be a kernel's.
        assert!(
            lost > 0 && counted < 2_000 && counted + lost >= 2_000,
            "{fault}: {counted} and {lost}"
        );
    }
}

#[test]
fn another_profiler_that_takes_over_is_told() {
    let world = prepared();
    let mut run = world.traced(&["--launches", "20000", "--rate", "4000"]);
    account(
        &run.env("PLIMSOLL_SIM_CUPTI_FAULT", "displaced:6")
            .output()
            .unwrap(),
    );
    let event = world.event("agent_displaced");
    assert!(
        event["message"]
            .as_str()
            .unwrap()
            .contains("was displaced by another profiler"),
        "{event}"
    );
    assert!(world.lost("displaced") > 0);
}

#[test]
fn single_kernels_are_kept_while_a_window_is_open() {
    let world = prepared();
    let mut run = world.with_cuda();
    run.args(["run", "--trace", "kernels", "--budget", "100%", "--"])
        .arg(env!("CARGO_BIN_EXE_plimsoll"))
        .args([
            "sim-cuda",
            "--launches",
            "500",
            "--rate",
            "1000",
            "--kernel-ns",
            "2000",
        ])
        .env("PLIMSOLL_WINDOW", "100ms")
        .env("PLIMSOLL_WINDOW_EVERY", "200ms");
    account(&run.output().unwrap());
    let spans =
        world.sql("SELECT DISTINCT end_ns - start_ns AS ns, device FROM kernel_spans WHERE run_id = 1");
    assert_eq!(
        spans,
        [json!({ "ns": 2_000, "device": "GPU-00000000-0000-4000-8000-000000000000" })]
    );
    let rows = world.sql(
        "SELECT count(*) AS n FROM kernel_spans AS s JOIN runs AS r ON r.id = s.run_id
                          WHERE s.start_ns BETWEEN r.started_ns AND r.ended_ns AND r.trace_tier = 'kernels'",
    );
    assert!(
        rows[0]["n"].as_u64().is_some_and(|n| (1..=500).contains(&n)),
        "{rows:?}"
    );
}

#[test]
fn what_was_flushed_before_a_sigkill_is_stored() {
    let world = prepared();
    let arguments = [
        "--rate",
        "4000",
        "--launches",
        "40000",
        "--sigkill-after",
        "10000",
    ];
    let output = world.traced(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    let account: Account = serde_json::from_slice(&output.stdout).unwrap();
    let counted: u64 = world.kernels().values().map(|(count, _)| count).sum();
    // A flush is due every 100 ms; on a busy machine the agent's thread may come to it late.
    let (end_ns, _) = *account.checkpoints.last().unwrap();
    let flushed = account
        .checkpoints
        .iter()
        .rfind(|(at_ns, _)| *at_ns < end_ns - 2_100_000_000);
    let (_, least) = *flushed.expect("it ran for longer than that");
    assert!(
        (least..=14_000).contains(&counted),
        "{counted} of 14000, of which {least} were flushed"
    );
    assert_eq!(world.lost("unfinished"), 1, "what is missing is said");
    let run = &world.sql("SELECT * FROM runs")[0];
    assert_eq!(run["outcome"], "killed");
}

/// Starts the program as a service manager would: with the agent in its environment and nothing of Plimsoll before it.
fn elsewhere(world: &World, program: &[&str]) -> Process {
    let mut command = world.with_cuda();
    command.arg("sim-cuda").args(program);
    injected(world, command)
}

pub(crate) fn injected(world: &World, mut command: Command) -> Process {
    command
        .env("CUDA_INJECTION64_PATH", plimsoll_agent::library_path().unwrap())
        .env("PLIMSOLL_SOCKET", world.path("plimsoll.sock"))
        .env("PLIMSOLL_TRACE", "graph")
        .env("PLIMSOLL_BUDGET", "100%")
        .stdout(Stdio::piped());
    Process(command.spawn().unwrap())
}

pub(crate) fn finished(mut process: Process) -> Account {
    let mut line = String::new();
    let mut output = BufReader::new(process.0.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(process.wait().success());
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_program_that_was_started_elsewhere_is_a_run_of_its_own() {
    let world = prepared();
    let daemon = world.daemon(&world.base_config());
    let account = finished(elsewhere(&world, &["--processes", "3", "--launches", "3000"]));
    let run = world.row("SELECT * FROM runs WHERE ended_ns IS NOT NULL");
    assert_eq!(
        (run["name"].as_str(), run["trace_tier"].as_str()),
        (Some("plimsoll"), Some("graph"))
    );
    assert_eq!(
        (run["pid"].as_u64(), &run["engine"]),
        (Some(account.pid.into()), &Value::Null)
    );
    assert!(run["command"].as_str().unwrap().contains("sim-cuda"), "{run}");
    assert_eq!(
        (run["outcome"].as_str(), run["exit_code"].as_i64()),
        (Some("ok"), Some(0))
    );
    let early =
        world.sql("SELECT count(*) AS n FROM kernel_windows WHERE start_ns < (SELECT started_ns FROM runs)");
    assert_eq!(early, [json!({ "n": 0 })], "it began with its program");
    assert!(daemon.stop().success());
    assert_eq!(world.sql("SELECT count(*) AS n FROM runs"), [json!({ "n": 1 })]);
    assert_eq!(world.kernels(), by_name(&account));
    world.nothing_lost();
}

#[test]
fn a_daemon_that_is_restarted_goes_on_where_the_last_one_read() {
    let world = prepared();
    let daemon = world.daemon(&world.base_config());
    let program = elsewhere(&world, &["--rate", "2000", "--launches", "12000"]);
    world.row("SELECT 1 FROM kernels WHERE count > 0");
    assert!(daemon.stop().success());
    let daemon = world.start_daemon();
    let account = finished(program);
    world.row("SELECT * FROM runs WHERE ended_ns IS NOT NULL");
    assert!(daemon.stop().success());
    assert_eq!(world.kernels(), by_name(&account));
    world.nothing_lost();
    let runs = world.sql("SELECT id, name, outcome FROM runs");
    assert_eq!(
        runs,
        [json!({ "id": 1, "name": "plimsoll", "outcome": "ok" })],
        "one run goes on"
    );
}

#[test]
fn what_a_killed_daemon_had_read_and_not_stored_is_counted() {
    let world = prepared();
    let daemon = world.daemon(&world.base_config());
    let program = elsewhere(&world, &["--rate", "2000", "--launches", "12000"]);
    world.row("SELECT 1 FROM kernels WHERE count > 0");
    daemon.kill();
    let daemon = world.start_daemon();
    let account = finished(program);
    world.row("SELECT * FROM runs WHERE ended_ns IS NOT NULL");
    assert!(daemon.stop().success());
    let count = |sql: &str| world.sql(sql)[0]["n"].as_u64().unwrap();
    let stored = count("SELECT sum(count) AS n FROM kernels");
    let launched: u64 = by_name(&account).values().map(|(count, _)| count).sum();
    let unconfirmed = "FROM losses WHERE source = 'agent' AND reason = 'unconfirmed'";
    let lost = count(&format!("SELECT coalesce(sum(count), 0) AS n {unconfirmed}"));
    assert!(
        stored == launched || (stored < launched && lost > 0),
        "{stored} of {launched}, {lost} in doubt"
    );
}
