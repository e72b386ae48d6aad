//! The shared state of the simulated GPU: one memory-mapped file that the simulated driver library reads, that simulated
//! engines take their memory in, and that a test or a demo sets the scene in.
//!
//! The file has one fixed layout and holds atomics only. There is no lock in it, because any participant may be
//! killed at any instant: whatever was left half done is either ignored or taken over by the next one who looks.
//! As with a real driver, the memory of a process that dies is free again: a process slot counts only while the
//! process with that pid *and* that start time lives.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use plimsoll_sim_gpu::{DeviceSpec, Fault, FaultKind, Gpu};
//! use std::path::Path;
//!
//! let gpu = Gpu::create(Path::new("gpu.state"), &[DeviceSpec::new("GPU-1", "Simulated 24 GiB", 24 << 30)])?;
//! let process = gpu.attach(0, std::process::id())?;
//! process.resize(8 << 30)?;
//! gpu.raise_xid(0, 79);
//! gpu.inject(Fault { device: Some(0), times: Some(3), ..Fault::new("nvmlDeviceGetMemoryInfo_v2", FaultKind::Code(999)) })?;
//! # Ok(())
//! # }
//! ```

mod alive;
mod beside;
mod calls;
mod device;
mod driver;
mod error;
mod event;
mod fault;
mod gpu;
mod layout;
mod process;
mod spec;

pub use beside::{file_of, state_file_beside};
pub use calls::Function;
pub use device::DeviceState;
pub use driver::DriverState;
pub use error::GpuError;
pub use event::XidEvent;
pub use fault::{Fault, FaultId, FaultKind, Fired};
pub use gpu::Gpu;
pub use process::{Context, OutOfMemory, Process, ProcessView};
pub use spec::{DeviceSpec, MAX_DEVICES};
