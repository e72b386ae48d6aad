//! The demo's world: its files, the simulated GPU, the engine under a supervisor, and the daemon.

use std::ffi::OsString;
use std::fs::{DirEntry, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use plimsoll_sim::Supervisor;
use plimsoll_sim::demo::{Demo, DemoFiles, demo_device, demo_engine_config};
use plimsoll_sim_gpu::Gpu;
use plimsoll_store::Reader;
use plimsoll_trace::{Stamp, TraceTier};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::commands::injection::{self, Tracing};

/// The first line of the demo's configuration, by which its folder is known.
const MARK: &str = "# The configuration of `plimsoll demo`.";

/// How long the daemon may take until it has stored its first sample.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the demo leaves behind, and what it needs meanwhile.
pub(super) struct Files {
    pub(super) store: PathBuf,
    pub(super) timeline: PathBuf,
    pub(super) report: PathBuf,
    /// The engine's configuration as its human wrote it.
    pub(super) before: PathBuf,
    /// The engine's configuration, which the tuner rewrites.
    pub(super) engine: PathBuf,
    pub(super) daemon_log: PathBuf,
    config: PathBuf,
    engine_log: PathBuf,
    gpu: PathBuf,
    port: PathBuf,
    journal: PathBuf,
    /// Locked by the demo that runs here.
    claim: PathBuf,
}

impl Files {
    fn within(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            store: file("plimsoll.db"),
            timeline: file("timeline.svg"),
            report: file("report.html"),
            before: file("engine.before.yaml"),
            engine: file("engine.yaml"),
            daemon_log: file("daemon.log"),
            config: file("plimsoll.toml"),
            engine_log: file("engine.log"),
            gpu: file("gpu.state"),
            port: file("engine.port"),
            journal: file("engine.journal"),
            claim: file("demo.lock"),
        }
    }

    /// Makes an empty place: a new folder, an empty one, or that of an earlier demo, whose own files are removed.
    ///
    /// The folder stays this demo's as long as the answer is kept.
    fn clear(&self, folder: &Path) -> anyhow::Result<File> {
        if folder.is_file() {
            bail!("{} is a file; name a folder with --out", folder.display());
        }
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "the folder {} cannot be made; name another with --out",
                folder.display()
            )
        })?;
        let ours = std::fs::read_to_string(&self.config).is_ok_and(|text| text.starts_with(MARK));
        let is_claim = |entry: std::io::Result<DirEntry>| entry.is_ok_and(|entry| entry.path() == self.claim);
        let empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_claim));
        if !ours && !empty {
            bail!(
                "{} is not empty and not from an earlier demo; name another folder with --out",
                folder.display()
            );
        }
        // The folder itself is what writers of the engine's file lock.
        let claim = File::options()
            .create(true)
            .append(true)
            .open(&self.claim)
            .with_context(|| {
                format!(
                    "this user may not write into {}; name another folder with --out",
                    folder.display()
                )
            })?;
        if flock(&claim, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another demo runs in {}; name another folder with --out",
                folder.display()
            );
        }
        let store = ["db", "db-wal", "db-shm", "db.lock", "sock"].map(|end| self.store.with_extension(end));
        let own = [
            &self.timeline,
            &self.report,
            &self.before,
            &self.engine,
            &self.daemon_log,
            &self.config,
        ];
        let inner = [&self.engine_log, &self.gpu, &self.port, &self.journal];
        for file in own.into_iter().chain(inner).chain(&store) {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be removed", file.display()));
                }
                _ => {}
            }
        }
        Ok(claim)
    }
}

/// What makes the simulated CUDA load the agent into the engine, as the real one would.
fn tracing(socket: &Path) -> anyhow::Result<Vec<(&'static str, OsString)>> {
    let tracing = Tracing {
        tier: TraceTier::Graph,
        budget: None,
    };
    let mut variables = injection::variables(tracing, socket).map_err(anyhow::Error::msg)?;
    let cupti = plimsoll_sim_cuda::library_path().context(
        "the simulated CUDA libplimsoll_sim_cuda.so is not beside this program; build it with `cargo build --release --workspace`",
    )?;
    variables.push(("PLIMSOLL_CUPTI_LIBRARY", cupti.into_os_string()));
    Ok(variables)
}

/// Everything that runs. What still runs when it is dropped is ended.
pub(super) struct World {
    pub(super) files: Files,
    pub(super) engine_text: String,
    demo: Demo,
    program: PathBuf,
    daemon: Child,
    engine: Option<Supervisor>,
    _gpu: Gpu,
    _claim: File,
}

impl World {
    pub(super) fn build(demo: &Demo, folder: &Path) -> anyhow::Result<Self> {
        let library = plimsoll_sim_driver::library_path().context(
            "the simulated driver libplimsoll_sim_driver.so is not beside this program; build it with `cargo build --release --workspace`",
        )?;
        let files = Files::within(folder);
        let claim = files.clear(folder)?;
        let folder = folder
            .canonicalize()
            .with_context(|| format!("{} cannot be found", folder.display()))?;
        let files = Files::within(&folder);
        let gpu = Gpu::create(&files.gpu, &[demo_device()]).context("the simulated GPU cannot be made")?;
        let listen = free_address()?;
        let engine_text = demo_engine_config(listen);
        write(&files.engine, &engine_text)?;
        write(&files.before, &engine_text)?;
        write(&files.config, &daemon_config(&files, &library, listen))?;
        let program = std::env::current_exe().context("this program cannot find itself")?;
        let daemon = Command::new(&program)
            .args(["daemon", "--die-with-parent", "--config"])
            .arg(&files.config)
            // Ctrl-C is for the demo, which ends everything in its order.
            .process_group(0)
            .env("PLIMSOLL_SIM_GPU", &files.gpu)
            .env_remove("PLIMSOLL_SOCKET")
            .env_remove("PLIMSOLL_DB")
            .env_remove("PLIMSOLL_NVML_LIBRARY")
            .env_remove("PLIMSOLL_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&files.daemon_log).context("the daemon's log cannot be made")?)
            .spawn()
            .context("the daemon cannot be started")?;
        Ok(Self {
            files,
            engine_text,
            demo: *demo,
            program,
            daemon,
            engine: None,
            _gpu: gpu,
            _claim: claim,
        })
    }

    /// Waits until the daemon's database answers.
    pub(super) async fn wait_for_daemon(&mut self) -> anyhow::Result<Reader> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check()?;
            if Instant::now() > deadline {
                bail!(
                    "the daemon recorded nothing; its log is {}",
                    self.files.daemon_log.display()
                );
            }
            if let Ok(reader) = Reader::open(&self.files.store).await
                && reader
                    .query("SELECT 1 FROM device_samples LIMIT 1", &[])
                    .await
                    .is_ok_and(|table| !table.rows.is_empty())
            {
                return Ok(reader);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the engine under its supervisor; its load begins now.
    pub(super) fn start_engine(&mut self) -> anyhow::Result<()> {
        let files = DemoFiles {
            config: &self.files.engine,
            gpu: &self.files.gpu,
            port_file: &self.files.port,
            journal: &self.files.journal,
        };
        let arguments = self.demo.engine_args(&files, Stamp::now().unix_ns);
        let log = File::create(&self.files.engine_log).context("the engine's log cannot be made")?;
        let program = self.program.clone();
        let tracing = tracing(&self.files.store.with_extension("sock"))?;
        let command = move || {
            let mut command = Command::new(&program);
            command
                .envs(tracing.iter().map(|(name, value)| (*name, value)))
                .arg("sim-engine")
                .args(&arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            // Without its log the engine still tells its story through the driver.
            command.stderr(log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from));
            command
        };
        let engine = Supervisor::start(command, self.demo.restart_delay());
        self.engine = Some(engine.context("the engine cannot be started")?);
        Ok(())
    }

    /// An error if the daemon has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.daemon.try_wait().context("the daemon is lost")? {
            let log = std::fs::read_to_string(&self.files.daemon_log).unwrap_or_default();
            bail!("the daemon ended with {status}:\n{log}");
        }
        Ok(())
    }

    /// Ends the engine, and waits until the daemon has seen it. Answers how often it had to be restarted.
    pub(super) async fn end_engine(&mut self, reader: &Reader) -> anyhow::Result<u32> {
        let Some(engine) = self.engine.take() else {
            return Ok(0);
        };
        let restarts = engine.restarts();
        drop(engine.stop());
        let deadline = Instant::now() + PATIENCE;
        let running = "SELECT 1 FROM runs WHERE outcome = 'running'";
        while !reader.query(running, &[]).await?.rows.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(restarts)
    }

    /// Ends the daemon as a service manager would.
    pub(super) async fn end_daemon(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).context("the daemon cannot be told to stop")?;
        }
        while self.daemon.try_wait().context("the daemon is lost")?.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The first life of the engine; it has only one, if the tuner does its work.
    pub(super) fn run_name(&self) -> String {
        "engine".to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    file.with_context(|| format!("{} cannot be written", path.display()))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on the loopback interface")?;
    listener
        .local_addr()
        .context("no free port on the loopback interface")
}

fn daemon_config(files: &Files, library: &Path, listen: SocketAddr) -> String {
    let quoted = |path: &Path| toml_edit::value(path.to_string_lossy().into_owned()).to_string();
    format!(
        r#"{MARK}
[store]
path = {store}

[sampling]
interval = "200ms"
nvml_library = {library}        # a simulated driver; the default is the real one

[engine.engine]
profile = "custom"
match = {{ args = {config} }}
config = {engine}
reload = {{ signal = "HUP" }}     # the simulated engine installs a handler for it
health = {{ http = "http://{listen}/health", within = "20s", probe = {{ http = "POST http://{listen}/v1/completions", body = '{{"prompt": "ping", "max_tokens": 1}}' }} }}
applied = "http://{listen}/status#/applied"

[[rule]]
name = "checkpointing"
engine = "engine"
mode = "act"
when = {{ signal = "vram.used_ratio", enter = "80%", exit = "65%" }}
set = {{ gradient_checkpointing = true }}
for = "0"

[[rule]]
name = "quantize"
engine = "engine"
mode = "act"
when = {{ signal = "vram.used_ratio", enter = "92%", exit = "75%" }}
set = {{ "model.quantization" = "int8" }}
saves = "6GiB"
for = "0"
"#,
        store = quoted(&files.store),
        library = quoted(library),
        config = toml_edit::value(format!("sim-engine.*{}", files.engine.display())),
        engine = quoted(&files.engine),
    )
}
