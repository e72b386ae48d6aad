//! The engine as CUDA and PyTorch would show it. When a library is to be injected (`CUDA_INJECTION64_PATH`), the engine uses
//! the simulated CUDA library: its work becomes launches of kernels, its memory pieces that are taken and given back. When
//! `PLIMSOLL_SOCKET` names a daemon, the engine tells it what its caching allocator holds, as Plimsoll's helper for PyTorch
//! does. What it has on the card stands there already, so the library takes nothing there a second time.

mod allocator;
mod kernels;
mod segments;

use std::path::Path;
use std::time::Duration;

use plimsoll_sim_cuda::{Cuda, CudaError, library_path};

use self::allocator::Reporter;
use self::kernels::Kernels;
use self::segments::Segments;
use crate::config::Quantization;
use crate::memory::Memory;

/// The engine's CUDA and PyTorch.
pub(crate) struct Traced {
    driver: Option<Driver>,
    reporter: Option<Reporter>,
}

struct Driver {
    cuda: Cuda,
    kernels: Kernels,
    segments: Segments,
}

/// Pieces in which weights are taken.
const SHARD_BYTES: u64 = 128 << 20;

impl Traced {
    /// What of it is wanted. An engine whose driver cannot be used serves all the same, and says why it is not traced.
    pub(crate) fn start(state: &Path, device: usize, uuid: &str) -> (Self, Option<String>) {
        let injected = std::env::var_os("CUDA_INJECTION64_PATH");
        let is_traced = injected.is_some_and(|value| !value.is_empty() && value != "none");
        let driver = is_traced.then(|| Driver::start(state, device));
        let (driver, problem) = match driver.transpose() {
            Ok(driver) => (driver, None),
            Err(problem) => (None, Some(problem)),
        };
        let reporter = std::env::var_os("PLIMSOLL_SOCKET")
            .filter(|path| !path.is_empty())
            .and_then(|path| Reporter::start(path.into(), uuid));
        (Self { driver, reporter }, problem)
    }

    /// Shows what was done since the last call: `busy` of that time, with this memory.
    pub(crate) fn show(&mut self, elapsed: Duration, busy: f64, memory: &Memory, weights: Quantization) {
        if let Some(reporter) = &self.reporter {
            reporter.tell(memory);
        }
        // Once the driver fails the engine is not traced any further.
        if let Some(driver) = &mut self.driver
            && driver.show(elapsed, busy, memory, weights).is_err()
        {
            self.driver = None;
        }
    }
}

impl Drop for Driver {
    /// Waits for the device, as a process does that ends in order: what is not done has no end in any recording.
    fn drop(&mut self) {
        let _failed_or_done = self.cuda.synchronize();
    }
}

impl Driver {
    fn start(state: &Path, device: usize) -> Result<Self, String> {
        let path = std::env::var_os("PLIMSOLL_SIM_CUDA")
            .map(Into::into)
            .or_else(library_path);
        let path = path.ok_or("libplimsoll_sim_cuda.so is not beside this program")?;
        let cuda = Cuda::load(&path).map_err(|error| error.to_string())?;
        cuda.set("PLIMSOLL_SIM_GPU", &state.to_string_lossy());
        cuda.set("PLIMSOLL_SIM_CUDA_TAKES_MEMORY", "0");
        cuda.set("CUDA_VISIBLE_DEVICES", &device.to_string());
        let started = || -> Result<Self, CudaError> {
            cuda.init()?;
            Ok(Self {
                cuda,
                kernels: Kernels::new(cuda)?,
                segments: Segments::new(cuda, SHARD_BYTES),
            })
        };
        started().map_err(|error| error.to_string())
    }

    fn show(
        &mut self,
        elapsed: Duration,
        busy: f64,
        memory: &Memory,
        weights: Quantization,
    ) -> Result<(), CudaError> {
        self.segments.follow(memory)?;
        self.kernels.work(elapsed, busy, weights)
    }
}
