//! One test's world: a folder, a simulated GPU, a driver library beside its state, an engine, a daemon, a store.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use plimsoll_sim_gpu::{DeviceSpec, Gpu};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No wait in a test is longer; a busy machine with two cores needs a fraction of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const GIB: u64 = 1 << 30;

/// A request that the engine's model answers.
const PROBE: &str = r#"{"prompt": "ping", "max_tokens": 1}"#;

pub(crate) struct World {
    folder: TempDir,
    pub(crate) gpu: Gpu,
    pub(crate) port: u16,
}

impl World {
    /// A world with one 24 GiB card.
    pub(crate) fn new() -> Self {
        Self::with_devices(1)
    }

    pub(crate) fn with_devices(count: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("plimsoll-").tempdir().unwrap();
        let device = |index: usize| {
            let uuid = format!("GPU-00000000-0000-4000-8000-{index:012}");
            let mut device = DeviceSpec::new(&uuid, "Simulated GPU", 24 * GIB);
            device.reserved_bytes = 450 << 20;
            device
        };
        let devices: Vec<DeviceSpec> = (0..count).map(device).collect();
        let library = folder.path().join("libnvidia-ml.so.1");
        fs::copy(
            plimsoll_sim_driver::library_path().expect("the driver library is built with the tests"),
            &library,
        )
        .unwrap();
        let gpu = Gpu::create(&folder.path().join("libnvidia-ml.so.1.gpu"), &devices).unwrap();
        let port = free_port();
        Self { folder, gpu, port }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.path("libnvidia-ml.so.1")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The start of a configuration: store, fast sampling, this world's driver.
    pub(crate) fn base_config(&self) -> String {
        format!(
            "[store]\npath = {:?}\n\n[sampling]\ninterval = \"100ms\"\nnvml_library = {:?}\n\n",
            self.path("plimsoll.db"),
            self.library()
        )
    }

    /// A configuration with the engine of [`World::engine`], reloaded by SIGHUP and read back, and `rules` behind it.
    pub(crate) fn config(&self, rules: &str) -> String {
        self.config_with("reload = { signal = \"HUP\" }", rules)
    }

    /// The same with another way to reload.
    pub(crate) fn config_with(&self, reload: &str, rules: &str) -> String {
        let port = self.port;
        format!(
            "{}[engine.chat]\nprofile = \"custom\"\nmatch = {{ args = {:?} }}\nconfig = {:?}\n{reload}\n\
             health = {{ http = \"http://127.0.0.1:{port}/health\", within = \"15s\", probe = {{ http = \"POST http://127.0.0.1:{port}/v1/completions\", body = '{PROBE}' }} }}\n\
             applied = \"http://127.0.0.1:{port}/status#/applied\"\n\n{rules}",
            self.base_config(),
            format!("sim-engine.*{}", self.path("engine.yaml").display()),
            self.path("engine.yaml"),
        )
    }

    /// The engine's file as a person wrote it.
    pub(crate) fn engine_yaml(&self) -> String {
        format!(
            "# the team's server\nmodel:\n  name: harbor-7b   # clients ask for it\n  parameters_billions: 7\n  quantization: none  # none | int8 | int4\n\n\
             gradient_checkpointing: false   # slower, smaller\nmax_batch_size: 64\ncontext_length: 8192\nlisten: 127.0.0.1:{}\nload_secs: 0.2\n",
            self.port
        )
    }

    /// A command line of the real program, with nothing of this machine's own configuration in it.
    pub(crate) fn plimsoll(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            // A test may bring programs of its own.
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command
            .env("PLIMSOLL_CONFIG", self.path("plimsoll.toml"))
            .env("PLIMSOLL_DB", self.path("plimsoll.db"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        self.plimsoll().args(arguments).output().unwrap()
    }

    /// Starts the daemon with `config` and waits until it answers.
    pub(crate) fn daemon(&self, config: &str) -> Daemon {
        self.write("plimsoll.toml", config);
        let daemon = self.start_daemon();
        until("the daemon answers", || {
            self.call(&["status"]).status.success().then_some(())
        });
        daemon
    }

    /// Starts the daemon with the configuration that is there.
    pub(crate) fn start_daemon(&self) -> Daemon {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("daemon.log"))
            .unwrap();
        let mut command = self.plimsoll();
        command
            .arg("daemon")
            .env("PLIMSOLL_LOG", "plimsoll=debug,info")
            .stdout(Stdio::null())
            .stderr(log);
        Daemon {
            child: Process(command.spawn().unwrap()),
        }
    }

    /// Starts the engine on its file and waits until it serves. Without a scenario it has no load and holds its weights.
    pub(crate) fn engine(&self, arguments: &[&str]) -> Process {
        if !self.path("engine.yaml").exists() {
            self.write("engine.yaml", &self.engine_yaml());
        }
        let engine = self.start_engine(arguments);
        self.wait_healthy();
        engine
    }

    /// Starts the engine without waiting.
    pub(crate) fn start_engine(&self, arguments: &[&str]) -> Process {
        let epoch = plimsoll_trace::Stamp::now().unix_ns.to_string();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("engine.log"))
            .unwrap();
        let mut command = self.plimsoll();
        command
            .arg("sim-engine")
            .arg("--config")
            .arg(self.path("engine.yaml"));
        command.arg("--gpu").arg(self.path("libnvidia-ml.so.1.gpu"));
        command.args(["--epoch-ns", &epoch]);
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        Process(command.spawn().unwrap())
    }

    pub(crate) fn wait_healthy(&self) {
        until("the engine is healthy", || {
            (self.http("GET", "/health").0 == 200).then_some(())
        });
    }

    /// Asks the engine; status 0 when it does not answer.
    pub(crate) fn http(&self, method: &str, path: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false);
        let agent = config.build().new_agent();
        let answer = if method == "POST" {
            agent.post(&url).content_type("application/json").send(PROBE)
        } else {
            agent.get(&url).call()
        };
        answer.map_or((0, String::new()), |mut answer| {
            (
                answer.status().as_u16(),
                answer.body_mut().read_to_string().unwrap_or_default(),
            )
        })
    }

    /// What the engine says it serves with.
    pub(crate) fn applied(&self, pointer: &str) -> Value {
        let (_, body) = self.http("GET", "/status");
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        status
            .pointer(&format!("/applied{pointer}"))
            .cloned()
            .unwrap_or_default()
    }

    /// The rows of a query, through the real `plimsoll sql`.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let output = self.call(&["sql", "--format", "json", query]);
        assert!(
            output.status.success(),
            "{query}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until a query has a row, and answers with the first.
    pub(crate) fn row(&self, query: &str) -> Value {
        let what = format!("a row of {query}");
        until(&what, || {
            let output = self.call(&["sql", "--format", "json", query]);
            let rows: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
            rows.into_iter().next()
        })
    }

    /// Waits until a decision of `rule` has come to `outcome`.
    pub(crate) fn decision(&self, rule: &str, outcome: &str) -> Value {
        self.row(&format!(
            "SELECT * FROM decisions WHERE rule = '{rule}' AND outcome = '{outcome}' ORDER BY id DESC"
        ))
    }

    /// Waits until an event of a kind is stored.
    pub(crate) fn event(&self, kind: &str) -> Value {
        self.row(&format!(
            "SELECT * FROM events WHERE kind = '{kind}' ORDER BY id DESC"
        ))
    }
}

/// A port that nobody has, below those that the kernel gives out to others in the meantime.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 100).unwrap() * 100;
    (0..)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

impl Drop for World {
    /// A test that fails shows what the processes said.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for view in ["runs", "events", "decisions"] {
            let output = self.call(&["sql", "--format", "ndjson", &format!("SELECT * FROM {view}")]);
            eprintln!("-- {view}\n{}", text(&output.stdout));
        }
        for log in ["daemon.log", "engine.log"] {
            let said = fs::read_to_string(self.path(log)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!(
                "-- the end of {log}\n{}",
                lines[lines.len().saturating_sub(25)..].join("\n")
            );
        }
    }
}

/// A child process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap(), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        until("the process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) struct Daemon {
    pub(crate) child: Process,
}

impl Daemon {
    /// SIGTERM, as a service manager stops it.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        self.child.signal(Signal::TERM);
        self.child.wait()
    }

    pub(crate) fn kill(mut self) {
        self.child.signal(Signal::KILL);
        self.child.wait();
    }
}

/// Waits for something that another process does.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
