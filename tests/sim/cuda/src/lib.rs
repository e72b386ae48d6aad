//! The simulated CUDA driver and CUPTI in one library, with the ABIs of both: whatever loads `libcuda.so.1` or `libcupti.so`
//! can load this instead. It answers to the name `libcuda.so.1`, as the driver does (its SONAME).
//!
//! `cuda` is the driver. Each stream works in real time, one thing after the other; kernels of a name always take the same
//! time. Memory is taken on the simulated GPU when there is one: the state file beside the library (`LIBRARY.gpu`), else the
//! one that `PLIMSOLL_SIM_GPU` names. `cupti` writes what happens into the buffers of its client, in the layout of the release
//! that `PLIMSOLL_SIM_CUPTI` chooses (`11.8` to `13.5`, `future`); `PLIMSOLL_SIM_CUPTI_FAULT` makes it go wrong (the words are in
//! `fault.rs`).
//!
//! At the first `cuInit` the library named by `CUDA_INJECTION64_PATH` is loaded, as the real driver does.
//!
//! As a Rust library this crate tells where the shared library lies, and [`Cuda`] calls it.

mod beside;
mod client;
mod clock;
mod cuda;
mod cupti;
mod fault;
mod library;
mod missing;
mod process;
mod record;
mod release;
mod settings;

pub use crate::client::{Cuda, CudaError, Direction, Function, Graph, LoadError, Stream};
pub use crate::library::library_path;
pub use crate::process::{exit_hard, fork_child};
