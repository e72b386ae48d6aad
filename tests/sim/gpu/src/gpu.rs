//! The state file itself: making it, opening it, and what belongs to the driver rather than to one device.
#![expect(
    unsafe_code,
    reason = "a shared memory map is read through a reference to its layout"
)]

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use memmap2::MmapRaw;

use crate::alive::Alive;
use crate::device::DeviceState;
use crate::layout::{self, Device, Layout, MAGIC, VERSION};

/// The most devices (MIG instances counted) that a state file holds.
pub const MAX_DEVICES: usize = layout::DEVICES;

/// A device to create: a card, or a MIG instance of a card that stands earlier in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// As NVML prints it: `GPU-…` or `MIG-…`, at most 95 bytes.
    pub uuid: String,
    /// Product name, at most 95 bytes.
    pub name: String,
    /// All memory of the device, what the driver reserves included.
    pub total_bytes: u64,
    /// Memory that the driver keeps for itself.
    pub reserved_bytes: u64,
    /// Index of the card that this is a MIG instance of.
    pub mig_parent: Option<usize>,
}

impl DeviceSpec {
    /// A card of which the driver reserves nothing.
    pub fn new(uuid: &str, name: &str, total_bytes: u64) -> Self {
        DeviceSpec {
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            total_bytes,
            reserved_bytes: 0,
            mig_parent: None,
        }
    }
}

/// Why a state file could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The file system said no.
    #[error("{action} the simulated GPU's state file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The state file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else, or of another version.
    #[error("{} is not a state file of this simulated GPU: {reason}; create it anew", path.display())]
    WrongFile {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A device that cannot be created.
    #[error("device {index} cannot be simulated: {reason}")]
    BadDevice {
        /// Its place in the list.
        index: usize,
        /// What does not fit.
        reason: String,
    },
    /// There is no such device.
    #[error("the simulated GPU has no device {index}, only {count}")]
    NoDevice {
        /// What was asked for.
        index: usize,
        /// Number of devices there are.
        count: usize,
    },
    /// There is no process with this pid.
    #[error("there is no process {pid} that could use the simulated GPU")]
    NoProcess {
        /// The pid.
        pid: u32,
    },
    /// A table of the state file is full.
    #[error("the simulated GPU has no room for more {what} (at most {limit})")]
    Full {
        /// Processes or faults.
        what: &'static str,
        /// How many fit.
        limit: usize,
    },
}

/// What the kernel side of the driver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// It works.
    Loaded,
    /// The kernel module is not loaded.
    NotLoaded,
    /// The library was upgraded and the module was not.
    VersionMismatch,
}

/// A state file in use. Clones share one map; other processes see each change at once.
///
/// The file must not be truncated while it is in use: as with any memory map, that is a SIGBUS.
#[derive(Clone)]
pub struct Gpu {
    map: Arc<Map>,
    pub(crate) alive: Alive,
}

struct Map {
    raw: MmapRaw,
    path: PathBuf,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("path", &self.map.path)
            .field("devices", &self.device_count())
            .finish()
    }
}

impl Gpu {
    /// Makes the state file. An older one at `path` is replaced as a whole: who has it open keeps the old one.
    ///
    /// # Errors
    /// When a device's text is too long, its memory does not add up, its parent is no card before it, there are more
    /// than [`MAX_DEVICES`], or the file cannot be written.
    pub fn create(path: &Path, devices: &[DeviceSpec]) -> Result<Gpu, GpuError> {
        check(devices)?;
        let draft = path.with_extension(format!("new.{}", std::process::id()));
        let made = Gpu::make(&draft, path, devices);
        if made.is_err() {
            let _removed = std::fs::remove_file(&draft);
        }
        made
    }

    fn make(draft: &Path, path: &Path, devices: &[DeviceSpec]) -> Result<Gpu, GpuError> {
        let failed = |action| {
            move |source| GpuError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(draft);
        let mut file = file.map_err(failed("creating"))?;
        // Written, not only sized: a disk without room must say so here and not by SIGBUS at the first store.
        file.write_all(&vec![0; size_of::<Layout>()])
            .map_err(failed("filling"))?;
        let gpu = Gpu::map(&file, path)?;
        gpu.describe(devices);
        std::fs::rename(draft, path).map_err(failed("naming"))?;
        Ok(gpu)
    }

    /// Opens a state file that [`Gpu::create`] made, in this process or another.
    ///
    /// # Errors
    /// When the file is missing, not readable and writable, or not a state file of this layout.
    pub fn open(path: &Path) -> Result<Gpu, GpuError> {
        let failed = |source| GpuError::Io {
            action: "opening",
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        let wrong = |reason| GpuError::WrongFile {
            path: path.to_owned(),
            reason,
        };
        if found != size_of::<Layout>() as u64 {
            return Err(wrong(format!(
                "it has {found} bytes instead of {}",
                size_of::<Layout>()
            )));
        }
        let gpu = Gpu::map(&file, path)?;
        let (magic, version) = (gpu.layout().magic.load(SeqCst), gpu.layout().version.load(SeqCst));
        if magic != MAGIC {
            return Err(wrong("it does not begin with PLIMSGPU".to_owned()));
        }
        if version != VERSION || u64::from(gpu.layout().size_bytes.load(SeqCst)) != found {
            return Err(wrong(format!(
                "it has layout version {version} instead of {VERSION}"
            )));
        }
        Ok(gpu)
    }

    /// Believes a process to be alive for `period` after it was last looked at, so that a busy reader stays cheap.
    /// Without this each question looks anew, as each request for memory always does.
    #[must_use]
    pub fn cache_liveness(mut self, period: Duration) -> Gpu {
        self.alive = Alive::cached(period);
        self
    }

    fn map(file: &File, path: &Path) -> Result<Gpu, GpuError> {
        let raw = MmapRaw::map_raw(file).map_err(|source| GpuError::Io {
            action: "mapping",
            path: path.to_owned(),
            source,
        })?;
        if raw.len() < size_of::<Layout>() {
            let reason = format!("it has {} bytes instead of {}", raw.len(), size_of::<Layout>());
            return Err(GpuError::WrongFile {
                path: path.to_owned(),
                reason,
            });
        }
        Ok(Gpu {
            map: Arc::new(Map {
                raw,
                path: path.to_owned(),
            }),
            alive: Alive::fresh(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        // SAFETY: `map` checked that the mapping is as long as the layout, a mapping is page-aligned and lives as long
        // as `self.map`. The layout consists of atomics only, for which any bytes are valid and shared writing is fine.
        unsafe { &*self.map.raw.as_mut_ptr().cast::<Layout>() }
    }

    fn describe(&self, devices: &[DeviceSpec]) {
        let layout = self.layout();
        let mut instances = [0_u32; MAX_DEVICES];
        for (spec, device) in devices.iter().zip(&layout.devices) {
            device.uuid.set(&spec.uuid);
            device.name.set(&spec.name);
            device.total_bytes.store(spec.total_bytes, SeqCst);
            device.reserved_bytes.store(spec.reserved_bytes, SeqCst);
            at_rest(device, spec);
            if let Some(parent) = spec.mig_parent {
                device
                    .parent
                    .store(u32::try_from(parent + 1).unwrap_or_default(), SeqCst);
                device.gpu_instance.store(instances[parent], SeqCst);
                layout.devices[parent].mig_mode.store(1, SeqCst);
                instances[parent] += 1;
            }
        }
        layout
            .device_count
            .store(u32::try_from(devices.len()).unwrap_or_default(), SeqCst);
        layout.driver_generation.store(1, SeqCst);
        layout.driver_version.set("580.95.05");
        layout
            .size_bytes
            .store(u32::try_from(size_of::<Layout>()).unwrap_or_default(), SeqCst);
        layout.version.store(VERSION, SeqCst);
        layout.magic.store(MAGIC, SeqCst);
    }

    /// The state file's path.
    pub fn path(&self) -> &Path {
        &self.map.path
    }

    /// Cards and MIG instances together.
    pub fn device_count(&self) -> usize {
        (self.layout().device_count.load(SeqCst) as usize).min(MAX_DEVICES)
    }

    /// The device with this index in the list that the file was created from.
    ///
    /// # Panics
    /// When there is no such device; [`Gpu::find`] asks.
    pub fn device(&self, index: usize) -> DeviceState {
        assert!(
            index < self.device_count(),
            "the simulated GPU has no device {index}, only {}",
            self.device_count()
        );
        DeviceState::new(self.clone(), index)
    }

    /// The device with this index, if there is one.
    pub fn find(&self, index: usize) -> Option<DeviceState> {
        (index < self.device_count()).then(|| DeviceState::new(self.clone(), index))
    }

    /// All devices in the order in which they were created.
    pub fn devices(&self) -> impl Iterator<Item = DeviceState> + '_ {
        (0..self.device_count()).map(|index| DeviceState::new(self.clone(), index))
    }

    /// What the driver is doing.
    pub fn driver(&self) -> DriverState {
        match self.layout().driver_state.load(SeqCst) {
            1 => DriverState::NotLoaded,
            2 => DriverState::VersionMismatch,
            _ => DriverState::Loaded,
        }
    }

    /// Unloads, breaks or loads the driver. Unloading ends this life of the driver: handles from before are lost even
    /// when it is loaded again. A version mismatch meets only who initialises from now on.
    pub fn set_driver(&self, state: DriverState) {
        self.layout().driver_state.store(state as u32, SeqCst);
        if state == DriverState::NotLoaded {
            self.layout().driver_generation.fetch_add(1, SeqCst);
        }
        self.ring();
    }

    /// Unloads and loads the driver: handles from before answer that the GPU is lost until their process has shut NVML
    /// down as often as it had initialised it, and initialises anew.
    pub fn reload_driver(&self) {
        self.layout().driver_generation.fetch_add(1, SeqCst);
        self.ring();
    }

    /// Which life of the driver this is.
    pub fn driver_generation(&self) -> u32 {
        self.layout().driver_generation.load(SeqCst)
    }

    /// Version of the driver, such as `580.95.05`.
    pub fn driver_version(&self) -> String {
        self.layout().driver_version.get()
    }

    /// Sets [`Gpu::driver_version`], cut to 95 bytes.
    pub fn set_driver_version(&self, version: &str) {
        self.layout().driver_version.set(version);
    }

    /// Calls of `nvmlInit*` that no `nvmlShutdown` has answered yet, over all processes. What a killed process left
    /// open stays counted.
    pub fn open_inits(&self) -> i64 {
        self.layout().open_inits.load(SeqCst)
    }

    /// Event sets alive, over all processes. What a killed process left open stays counted.
    pub fn open_event_sets(&self) -> i64 {
        self.layout().open_event_sets.load(SeqCst)
    }

    /// For the driver library: one more (1) or one less (-1) initialisation.
    pub fn count_init(&self, change: i64) {
        self.layout().open_inits.fetch_add(change, SeqCst);
    }

    /// For the driver library: one more (1) or one less (-1) event set.
    pub fn count_event_set(&self, change: i64) {
        self.layout().open_event_sets.fetch_add(change, SeqCst);
    }
}

fn check(devices: &[DeviceSpec]) -> Result<(), GpuError> {
    for (index, spec) in devices.iter().enumerate() {
        let is_card =
            |parent: usize| parent < index && devices.get(parent).is_some_and(|d| d.mig_parent.is_none());
        let reason = if index >= MAX_DEVICES {
            format!("there is room for {MAX_DEVICES} devices only")
        } else if spec.uuid.len() >= layout::TEXT || spec.name.len() >= layout::TEXT {
            format!("UUID and name have at most {} bytes each", layout::TEXT - 1)
        } else if devices[..index].iter().any(|earlier| earlier.uuid == spec.uuid) {
            format!("its UUID {} is taken", spec.uuid)
        } else if spec.reserved_bytes > spec.total_bytes {
            format!(
                "{} bytes are reserved of a total of {}",
                spec.reserved_bytes, spec.total_bytes
            )
        } else if spec.mig_parent.is_some_and(|parent| !is_card(parent)) {
            "its parent is not a card that stands before it".to_owned()
        } else {
            continue;
        };
        return Err(GpuError::BadDevice { index, reason });
    }
    Ok(())
}

/// The figures of an idle card of the Hopper generation, so that every reading is believable before a scene is set.
fn at_rest(device: &Device, spec: &DeviceSpec) {
    device
        .bar1_total_bytes
        .store(spec.total_bytes.next_power_of_two(), SeqCst);
    for (figure, value) in [
        (&device.temperature_celsius, 34),
        (&device.power_milliwatts, 72_000),
        (&device.power_limit_milliwatts, 700_000),
        (&device.sm_clock_mhz, 345),
        (&device.memory_clock_mhz, 2_619),
        (&device.max_sm_clock_mhz, 1_980),
        (&device.max_memory_clock_mhz, 2_619),
        (&device.brand, 14),
        (&device.architecture, 9),
    ] {
        figure.store(value, SeqCst);
    }
}
