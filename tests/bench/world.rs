//! A folder with a simulated GPU, its driver library, the program's configuration and its store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use plimsoll_sim_gpu::{DeviceSpec, Gpu, Process};
use plimsoll_store::{Reader, Value};
use tempfile::TempDir;

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct World {
    folder: TempDir,
    pub(crate) gpu: Gpu,
}

impl World {
    /// A world with so many cards of 80 GiB, on the disk that the build is on.
    pub(crate) fn new(devices: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let card = |index: usize| DeviceSpec {
            reserved_bytes: 600 << 20,
            ..DeviceSpec::new(
                &format!("GPU-00000000-0000-4000-8000-{index:012}"),
                "Simulated GPU",
                80 * GIB,
            )
        };
        fs::create_dir(folder.path().join("store"))?;
        let library = plimsoll_sim_driver::library_path().context("the simulated driver is not built")?;
        fs::copy(library, folder.path().join("libnvidia-ml.so.1"))?;
        let cards: Vec<DeviceSpec> = (0..devices).map(card).collect();
        let gpu = Gpu::create(&folder.path().join("libnvidia-ml.so.1.gpu"), &cards)?;
        Ok(Self { folder, gpu })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.path("libnvidia-ml.so.1")
    }

    /// In a folder of its own, as an installed service has it.
    pub(crate) fn database(&self) -> PathBuf {
        self.path("store/plimsoll.db")
    }

    /// A command line of the program, with nothing of this machine's own configuration in it.
    pub(crate) fn plimsoll(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("HOME", self.folder.path())
            .env("PLIMSOLL_CONFIG", self.path("plimsoll.toml"));
        command
    }

    /// Starts the daemon and waits until it answers. `rest` is what the configuration says beyond store and sampling.
    pub(crate) fn daemon(&self, interval: &str, rest: &str) -> anyhow::Result<Running> {
        let config = format!(
            "[store]\npath = {:?}\n\n[sampling]\ninterval = \"{interval}\"\nnvml_library = {:?}\n\n{rest}",
            self.database(),
            self.library()
        );
        fs::write(self.path("plimsoll.toml"), config)?;
        let log = fs::File::create(self.path("daemon.log"))?;
        let mut daemon = Running(self.plimsoll().arg("daemon").stderr(log).spawn()?);
        wait_until("the daemon answers", || {
            if let Some(status) = daemon.0.try_wait()? {
                bail!(
                    "the daemon ended with {status}: {}",
                    fs::read_to_string(self.path("daemon.log"))?
                );
            }
            Ok(self.plimsoll().arg("status").output()?.status.success())
        })?;
        Ok(daemon)
    }

    /// The number that a query on the store answers.
    pub(crate) fn number(&self, sql: &str) -> anyhow::Result<f64> {
        number(&self.database(), sql)
    }
}

/// The number that a query on a store answers.
pub(crate) fn number(database: &Path, sql: &str) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let table = runtime.block_on(async { Reader::open(database).await?.query(sql, &[]).await })?;
    let value = table.rows.first().and_then(|row| row.first());
    value
        .and_then(Value::as_f64)
        .with_context(|| format!("no number: {sql}"))
}

/// Waits for something that another process does.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > Duration::from_secs(60) {
            bail!("waited in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A child process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Processes on the devices of a world.
pub(crate) struct Crowd {
    gpu: Gpu,
    places: Vec<Process>,
    _sleepers: Vec<Running>,
}

impl Crowd {
    /// So many processes on each device. They sleep; what they hold is set from here.
    pub(crate) fn new(world: &World, per_device: usize) -> anyhow::Result<Self> {
        let (mut places, mut sleepers) = (Vec::new(), Vec::new());
        for index in 0..world.gpu.device_count() * per_device {
            let sleeper = Running(Command::new("sleep").arg("86400").spawn()?);
            // A place that the simulated driver does not check for life: that work is not what is measured.
            places.push(
                world
                    .gpu
                    .attach_phantom(index / per_device, sleeper.pid(), 20 * GIB)?,
            );
            sleepers.push(sleeper);
        }
        let crowd = Self {
            gpu: world.gpu.clone(),
            places,
            _sleepers: sleepers,
        };
        crowd.move_on(0);
        Ok(crowd)
    }

    /// Sets another value everywhere, so that no reading is like the one before it.
    fn move_on(&self, step: u32) {
        for (index, place) in (0_u32..).zip(&self.places) {
            let wave = (step + index * 7) % 64;
            if let Err(error) = place.resize(20 * GIB + u64::from(wave) * (64 << 20)) {
                eprintln!("{error}");
            }
            place.set_sm_busy_percent(10 + wave);
        }
        for (index, device) in (0_u32..).zip(self.gpu.devices()) {
            let wave = (step + index * 5) % 64;
            device.set_gpu_busy_percent(30 + wave);
            device.set_memory_busy_percent(20 + wave);
            device.set_power_milliwatts(300_000 + wave * 1_000);
            device.set_temperature_celsius(40 + wave / 2);
            device.set_sm_clock_mhz(1_400 + wave);
        }
    }

    /// Moves all values on every 50 ms, twice as often as the fastest sampling looks.
    pub(crate) fn keep_moving(self) -> anyhow::Result<Moving> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("moving".to_owned())
            .spawn(move || {
                for step in 0.. {
                    if told.load(Ordering::Relaxed) {
                        return;
                    }
                    self.move_on(step);
                    std::thread::sleep(Duration::from_millis(50));
                }
            })?;
        Ok(Moving {
            stop,
            thread: Some(thread),
        })
    }
}

/// Values move until this is dropped.
pub(crate) struct Moving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
