//! One test's copy of the library, and its turn.

use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_sim_cuda::Cuda;
use plimsoll_sim_gpu::{DeviceSpec, Gpu};
use tempfile::TempDir;

use crate::agent::{self, Cupti};

pub(crate) const MEMCPY: u32 = 1;
pub(crate) const MEMSET: u32 = 2;
pub(crate) const CONCURRENT_KERNEL: u32 = 10;
pub(crate) const OVERHEAD: u32 = 17;
pub(crate) const SYNCHRONIZATION: u32 = 38;
pub(crate) const MEMORY2: u32 = 49;
pub(crate) const MEMORY_POOL: u32 = 50;
pub(crate) const GRAPH_TRACE: u32 = 51;

static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct World {
    pub(crate) cuda: Cuda,
    pub(crate) cupti: Cupti,
    pub(crate) library: PathBuf,
    pub(crate) folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// A copy of the library of this release, with these faults.
    pub(crate) fn new(release: &str, faults: &str) -> Self {
        Self::with(&[
            ("PLIMSOLL_SIM_CUPTI", release),
            ("PLIMSOLL_SIM_CUPTI_FAULT", faults),
        ])
    }

    /// A copy of the library with these settings, before its first call.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libcuda.so.1");
        std::fs::copy(plimsoll_sim_cuda::library_path().unwrap(), &library).unwrap();
        let cuda = Cuda::load(&library).unwrap();
        for (name, value) in settings {
            cuda.set(name, value);
        }
        agent::BUFFER_BYTES.store(64 << 10, SeqCst);
        agent::REFUSES.store(false, SeqCst);
        agent::FILLED_WITH_ONES.store(false, SeqCst);
        drop((agent::take(), agent::take_ends()));
        let cupti = Cupti::open(&library);
        Self {
            cuda,
            cupti,
            library,
            folder,
            _turn: turn,
        }
    }

    /// Puts a machine with one card of 8 GiB beside the library, before its first call.
    pub(crate) fn add_gpu(&self) -> Gpu {
        let card = DeviceSpec::new("GPU-00112233-4455-6677-8899-aabbccddeeff", "Simulated", 8 << 30);
        Gpu::create(&self.folder.path().join("libcuda.so.1.gpu"), &[card]).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Nothing of this copy may come while the next test collects.
        self.cupti.call("cuptiFinalize", [0; 5]);
    }
}

/// Waits for something that happens by itself.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "never happened: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
