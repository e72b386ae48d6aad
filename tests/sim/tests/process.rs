//! The engine as a process: what it takes on the simulated card, how it reloads, and how it dies.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plimsoll_sim::Supervisor;
use plimsoll_sim::demo::{Demo, DemoFiles, demo_device, demo_engine_config};
use plimsoll_sim_gpu::{DeviceSpec, Gpu};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const CONFIG: &str = "\
# the team's engine
model:
  name: small
  quantization: none   # full
load_secs: 0.2
";

/// The example that is the engine; `cargo test` builds it with the tests of this package.
fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("this test");
    let program = tests
        .parent()
        .and_then(Path::parent)
        .expect("target")
        .join("examples/sim_engine");
    assert!(
        program.exists(),
        "{} is missing: run `cargo test -p plimsoll-sim`",
        program.display()
    );
    program
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A card, a configuration file and a place for the rest.
struct World {
    folder: tempfile::TempDir,
    gpu: Gpu,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut card = DeviceSpec::new("GPU-1", "card", 24 << 30);
        card.reserved_bytes = 450 << 20;
        let gpu = Gpu::create(&folder.path().join("gpu"), &[card]).expect("card");
        let world = Self { folder, gpu };
        world.write("engine.yaml", CONFIG);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn used(&self) -> u64 {
        self.gpu.device(0).used_bytes()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .arg("--config")
            .arg(self.path("engine.yaml"))
            .arg("--gpu")
            .arg(self.path("gpu"));
        command
            .arg("--port-file")
            .arg(self.path("port"))
            .args(args)
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str]) -> Engine {
        std::fs::remove_file(self.path("port")).ok();
        let mut child = self.command(args).spawn().expect("started");
        let port = wait_for("the port", || {
            let died = child.try_wait().expect("child").is_some();
            let port = std::fs::read_to_string(self.path("port")).ok();
            assert!(port.is_some() || !died, "it died: {}", stderr(&mut child));
            port
        });
        Engine {
            child,
            base: format!("http://127.0.0.1:{port}"),
        }
    }

    /// Starts it and waits for its model.
    fn serve(&self, args: &[&str]) -> Engine {
        let engine = self.start(args);
        engine.wait_status("the model", |status| status["model"]["ready"] == true);
        engine
    }
}

struct Engine {
    child: Child,
    base: String,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Engine {
    /// Status code and body; `None` when no answer came.
    fn call(&self, request: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let (method, path) = request.split_once(' ').expect("method and path");
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let url = format!("{}{path}", self.base);
        let response = match (method, body) {
            ("GET", _) => agent.get(&url).call(),
            (_, Some(body)) => agent.post(&url).send_json(body),
            (_, None) => agent.post(&url).send_empty(),
        };
        let mut response = response.ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Some((response.status().as_u16(), body))
    }

    fn status(&self) -> Value {
        let (code, status) = self.call("GET /status", None).expect("an answer");
        assert_eq!(code, 200);
        status
    }

    fn wait_status(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(|status| holds(status)))
    }

    fn code(&self, request: &str) -> u16 {
        self.call(request, None).expect("an answer").0
    }

    fn completion(&self) -> (u16, Value) {
        self.call(
            "POST /v1/completions",
            Some(&json!({ "prompt": "How deep?", "max_tokens": 4 })),
        )
        .expect("an answer")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pid")).expect("pid");
        kill_process(pid, signal).expect("alive");
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("ended");
        (status, stderr(&mut self.child))
    }
}

fn stderr(child: &mut Child) -> String {
    let mut text = String::new();
    child
        .stderr
        .as_mut()
        .expect("piped")
        .read_to_string(&mut text)
        .expect("text");
    text
}

/// Whether a process catches signal 1, from `/proc/PID/status`.
fn catches_hup(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    let mask = text
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .expect("SigCgt");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") & 1 == 1
}

#[test]
fn its_memory_is_on_the_card_until_it_ends() {
    let world = World::new();
    let engine = world.serve(&[]);
    let status = engine.status();
    assert_eq!(status["memory"]["weights_bytes"], 16_000_000_000_u64);
    assert_eq!(status["memory"]["total_bytes"], world.used());
    assert_eq!(status["pid"], engine.child.id());
    assert_eq!(
        world
            .gpu
            .processes(0)
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [engine.child.id()]
    );
    assert!(world.gpu.device(0).power_milliwatts() > 0);

    engine.signal(Signal::TERM);
    assert_eq!(engine.end().0.code(), Some(0));
    assert_eq!(world.used(), 0);
}

#[test]
fn it_answers_requests_and_tells_its_metrics() {
    let world = World::new();
    let engine = world.serve(&[]);
    let (code, answer) = engine.completion();
    assert_eq!((code, &answer["usage"]["completion_tokens"]), (200, &json!(4)));
    let (code, page) = engine.call("GET /metrics", None).expect("an answer");
    let page = page.as_str().expect("text");
    assert_eq!(code, 200);
    assert!(
        page.contains("engine_requests_finished_total{model=\"small\"} 1\n"),
        "{page}"
    );
    assert!(
        page.contains("engine_time_to_first_token_seconds_count{model=\"small\"} 1\n"),
        "{page}"
    );
    assert_eq!(engine.status()["requests"]["served"], 1);
}

#[test]
fn while_it_loads_it_is_not_healthy_and_answers_nothing() {
    let world = World::new();
    world.write("engine.yaml", "model: {name: slow}\nload_secs: 3600");
    let engine = world.start(&[]);
    assert_eq!(engine.code("GET /health"), 503);
    assert_eq!(engine.completion().0, 503);
    assert_eq!(engine.status()["model"]["state"], "loading");
    engine.signal(Signal::TERM);
    assert_eq!(engine.end().0.code(), Some(0));
}

#[test]
fn a_hangup_applies_a_changed_value() {
    let world = World::new();
    let engine = world.serve(&[]);
    let before = world.used();
    assert!(catches_hup(engine.child.id()));
    world.write("engine.yaml", &CONFIG.replace("none ", "int8 "));
    engine.signal(Signal::HUP);
    let status = engine.wait_status("the reload", |status| {
        status["reloads"] == 1 && status["model"]["ready"] == true
    });
    assert_eq!(status["applied"]["model"]["quantization"], "int8");
    assert_eq!(status["last_reload_error"], Value::Null);
    let saved = before - world.used();
    assert!(saved > 6 << 30, "{saved}");
    assert_eq!(engine.completion().0, 200);
}

#[test]
fn a_reload_over_http_answers_when_the_model_is_back() {
    let world = World::new();
    let engine = world.serve(&[]);
    let hash = engine.status()["config_sha256"].clone();
    world.write(
        "engine.yaml",
        &CONFIG.replace("load_secs", "gradient_checkpointing: true\nload_secs"),
    );
    let (code, answer) = engine.call("POST /reload", None).expect("an answer");
    assert_eq!(code, 200);
    let status = engine.status();
    assert_eq!(status["model"]["ready"], true);
    assert_eq!(status["applied"]["gradient_checkpointing"], true);
    assert_eq!(status["config_sha256"], answer["config_sha256"]);
    assert_ne!(status["config_sha256"], hash);
}

#[test]
fn an_invalid_file_keeps_the_old_configuration() {
    let world = World::new();
    let engine = world.serve(&[]);
    let before = engine.status();
    for (failures, (text, reason)) in (1..).zip([
        ("model: {name: small, quantization: int3}", "model.quantization"),
        ("model: {name: small}\nbatch: 3", "unknown key batch"),
        ("model: {name", "invalid syntax"),
        ("", "the file"),
    ]) {
        world.write("engine.yaml", text);
        let (code, answer) = engine.call("POST /reload", None).expect("an answer");
        let answer = answer["error"].as_str().expect("a reason").to_owned();
        assert_eq!(code, 400);
        assert!(answer.contains(reason), "{answer:?} does not say {reason:?}");
        let status = engine.status();
        assert_eq!(status["last_reload_error"], answer);
        assert_eq!(
            (&status["reloads"], &status["reloads_failed"]),
            (&json!(0), &json!(failures))
        );
        assert_eq!(status["applied"], before["applied"]);
        assert_eq!(status["config_sha256"], before["config_sha256"]);
    }
    std::fs::remove_file(world.path("engine.yaml")).expect("removed");
    engine.signal(Signal::HUP);
    engine.wait_status("the refused hangup", |status| status["reloads_failed"] == 5);
    assert_eq!(engine.completion().0, 200);
    assert_eq!(engine.code("GET /health"), 200);
}

#[test]
fn without_the_handler_a_hangup_kills_it() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1 {
        eprintln!("skipped: under nohup every process ignores SIGHUP");
        return;
    }
    let world = World::new();
    let engine = world.serve(&["--no-hup"]);
    assert!(!catches_hup(engine.child.id()));
    engine.signal(Signal::HUP);
    assert_eq!(engine.end().0.signal(), Some(1));
    assert_eq!(world.used(), 0);
}

#[test]
fn out_of_memory_kills_it_with_the_known_line_and_frees_its_memory() {
    let world = World::new();
    let rows = "0.0,7000,900\n".repeat(60);
    world.write("load.csv", &format!("t_s,input_tokens,output_tokens\n{rows}"));
    let load = world.path("load.csv");
    let (status, log) = world
        .start(&["--workload", load.to_str().expect("text"), "--speed", "10"])
        .end();
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().expect("a log");
    let start = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate ";
    assert!(
        last.starts_with(start) && last.contains("GPU 0 has a total capacity of 24.00 GiB of which "),
        "{last}"
    );
    assert_eq!(world.used(), 0);
}

#[test]
fn what_others_took_of_the_card_is_not_there_for_it() {
    let world = World::new();
    world.gpu.device(0).set_other_used_bytes(10 << 30);
    let (status, log) = world.start(&[]).end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("CUDA out of memory"), "{log}");
}

#[test]
fn the_next_life_finds_its_backlog_and_knows_what_was_lost() {
    let world = World::new();
    // Two requests that take long, then one while nobody lives.
    world.write(
        "load.csv",
        "t_s,input_tokens,output_tokens\n0.0,100,8000\n0.0,100,8000\n1000.0,100,5\n",
    );
    let (load, journal) = (world.path("load.csv"), world.path("journal"));
    let args = |epoch: i64| {
        let paths = [load.to_str().expect("text"), journal.to_str().expect("text")];
        [
            "--workload",
            paths[0],
            "--journal",
            paths[1],
            "--epoch-ns",
            &epoch.to_string(),
        ]
        .map(str::to_owned)
    };
    let now = plimsoll_trace::Stamp::now().unix_ns;
    let first: Vec<String> = args(now).to_vec();
    let engine = world.start(&first.iter().map(String::as_str).collect::<Vec<_>>());
    engine.wait_status("both running", |status| status["requests"]["running"] == 2);
    engine.signal(Signal::KILL);
    assert_eq!(engine.end().0.signal(), Some(9));

    // The same books, read when the third request is due: the load's begin is moved into the past in both.
    let past = now - 2_000_000_000_000;
    let books = std::fs::read_to_string(&journal)
        .expect("books")
        .replace(&now.to_string(), &past.to_string());
    std::fs::write(&journal, books).expect("written");
    let second: Vec<String> = args(past).to_vec();
    let engine = world.start(&second.iter().map(String::as_str).collect::<Vec<_>>());
    let status = engine.wait_status("the backlog", |status| status["requests"]["served"] == 1);
    assert_eq!(
        (&status["restarts"], &status["requests"]["lost"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn what_is_invalid_at_the_start_is_said_with_exit_code_2() {
    let world = World::new();
    let fails = |args: &[&str], reason: &str| {
        let output = world.command(args).output().expect("ran");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(reason), "{log}");
    };
    fails(&["--speed", "0"], "--speed");
    fails(&["--duration", "1e12"], "--duration");
    fails(&["--workload", "/nowhere.csv"], "/nowhere.csv");
    world.write("engine.yaml", "model: {name: a}\nbatch: 1");
    fails(&[], "unknown key batch");
}

#[test]
fn the_demo_left_alone_runs_out_of_memory_again_and_again_in_both_worlds() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let gpu = Gpu::create(&path("gpu"), &[demo_device()]).expect("card");
    let config = demo_engine_config(([127, 0, 0, 1], 0).into());
    std::fs::write(path("engine.yaml"), &config).expect("written");
    let demo = Demo {
        seed: 3,
        duration: Duration::from_secs(4),
    };
    let (yaml, card, port, journal) = (path("engine.yaml"), path("gpu"), path("port"), path("journal"));
    let files = DemoFiles {
        config: &yaml,
        gpu: &card,
        port_file: &port,
        journal: &journal,
    };
    let args = demo.engine_args(&files, plimsoll_trace::Stamp::now().unix_ns);
    let command = move || {
        let mut command = Command::new(program());
        command.args(&args).stderr(Stdio::null());
        command
    };
    let supervisor = Supervisor::start(command, demo.restart_delay()).expect("started");
    wait_for("the second death", || {
        (supervisor.exits().len() >= 2).then_some(())
    });
    let ends: Vec<_> = supervisor.exits().iter().map(ExitStatus::code).collect();
    assert!(ends.iter().all(|code| *code == Some(1)), "{ends:?}");
    drop(supervisor);
    assert_eq!(gpu.device(0).used_bytes(), 0);
    assert!(demo.without_tuner(&config).expect("valid").out_of_memory >= 2);
}

#[test]
fn faults_of_a_reload() {
    let unload = Faulty::new("unload");
    assert_eq!(unload.engine.code("POST /reload"), 200);
    assert_eq!(unload.engine.code("GET /health"), 200);
    assert_eq!(unload.engine.status()["model"]["ready"], false);
    assert_eq!(unload.engine.completion().0, 503);
    wait_for("the freed memory", || {
        (unload.world.used() < 1 << 30).then_some(())
    });
    unload.heals();

    let unhealthy = Faulty::new("unhealthy");
    assert_eq!(unhealthy.engine.code("POST /reload"), 200);
    assert_eq!(unhealthy.engine.code("GET /health"), 503);
    assert_eq!(unhealthy.engine.status()["model"]["ready"], true);
    unhealthy.heals();

    let no_effect = Faulty::new("no-effect");
    let before = no_effect.world.used();
    no_effect
        .world
        .write("engine.yaml", &CONFIG.replace("none ", "int8 "));
    assert_eq!(no_effect.engine.code("POST /reload"), 200);
    assert_eq!(
        no_effect.engine.status()["applied"]["model"]["quantization"],
        "int8"
    );
    assert_eq!(no_effect.world.used(), before);
    no_effect.heals();
    assert!(no_effect.world.used() < before);

    let hang = Faulty::new("hang");
    hang.engine.signal(Signal::HUP);
    hang.engine
        .wait_status("the hanging reload", |status| status["reloads"] == 1);
    assert_eq!(hang.engine.code("GET /health"), 503);
    assert_eq!(hang.engine.completion().0, 503);
    hang.heals();

    let crash = Faulty::new("crash");
    assert_eq!(crash.engine.call("POST /reload", None), None);
    assert_eq!(crash.engine.end().0.code(), Some(1));
    assert_eq!(crash.world.used(), 0);
}

/// An engine whose first reload goes wrong.
struct Faulty {
    engine: Engine,
    world: World,
}

impl Faulty {
    fn new(fault: &str) -> Self {
        let world = World::new();
        let engine = world.serve(&["--reload-fault", fault, "--reload-fault-times", "1"]);
        Self { engine, world }
    }

    #[track_caller]
    fn heals(&self) {
        assert_eq!(self.engine.code("POST /reload"), 200);
        assert_eq!(self.engine.code("GET /health"), 200);
        assert_eq!(self.engine.completion().0, 200);
    }
}
