//! The state file itself: making it, opening it, and finding the devices in it.
#![expect(
    unsafe_code,
    reason = "a shared memory map is read through a reference to its layout"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use memmap2::MmapRaw;

use crate::alive::Alive;
use crate::device::DeviceState;
use crate::error::GpuError;
use crate::layout::{Layout, MAGIC, VERSION};
use crate::spec::{DeviceSpec, MAX_DEVICES, check, describe};

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
        describe(devices, gpu.layout());
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
}
