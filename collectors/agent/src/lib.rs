//! The agent: the small library that CUDA loads into an engine's process (`CUDA_INJECTION64_PATH`). It has CUPTI record
//! allocations and kernels, sums them up by name, and writes the sums into a ring that the daemon reads.
//!
//! It is a guest in somebody else's process. It never prints, never waits for the daemon, never touches signals or the
//! environment, lets no panic out, bounds everything it holds, and when in doubt does nothing. The hooks on the host's
//! threads (`hooks`) move buffers; all else happens on one thread (`cycle`), whose cost is kept below a budget
//! (`governor`). What is lost is counted by reason and told.
#![expect(unsafe_code, reason = "lives in a foreign process between two C libraries")]

use std::ffi::c_int;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

mod buffers;
mod calls;
mod clock;
mod control;
mod copies;
mod cycle;
mod descriptor;
mod devices;
mod exit;
mod governor;
mod hooks;
mod kernels;
mod losses;
#[doc(hidden)]
pub mod measured;
mod memory;
mod names;
mod options;
mod presence;
mod queue;
mod records;
mod ship;
mod socket;
mod spans;
mod start;
mod subscription;
mod virtual_memory;

static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// Called by the CUDA driver once it has loaded this library, on the thread that initialises CUDA. The answer is always
/// that all is well: whatever is not, the engine runs on.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> c_int {
    if !IS_STARTED.swap(true, Ordering::AcqRel) {
        // This library's own copy of Rust's runtime prints nothing, whatever happens; the host's is another.
        std::panic::set_hook(Box::new(|_| {}));
        drop(catch_unwind(start::start));
    }
    1
}

/// Where the library lies after a build or an installation: in the `deps` folder beside the running program, which is where
/// cargo builds it for a program that depends on it; beside the program; or in `../lib/plimsoll`.
#[must_use]
pub fn library_path() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let installed = folder.parent()?.join("lib").join("plimsoll");
    [folder.join("deps"), folder.to_owned(), installed]
        .into_iter()
        .map(|folder| folder.join("libplimsoll_agent.so"))
        .find(|path| path.is_file())
}
