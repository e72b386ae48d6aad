//! Launches and copies.
#![expect(unsafe_code, reason = "functions of a library are called")]

use std::ffi::CString;

use super::{Cuda, CudaError, ask, size};

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(usize);

/// A graph of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(usize);

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(super) usize);

impl Stream {
    /// The one that is there from the start.
    pub const DEFAULT: Self = Self(0);
}

/// From where to where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Host to device.
    HostToDevice = 1,
    /// Device to host.
    DeviceToHost = 2,
    /// Within a device.
    DeviceToDevice = 8,
}

impl Cuda {
    /// A kernel of this name that takes so long; `None` for a time that follows from the name.
    ///
    /// # Errors
    /// When there are too many.
    pub fn function(&self, name: &str, duration_ns: Option<u64>) -> Result<Function, CudaError> {
        let failed = CudaError {
            call: "plimsoll_sim_function",
            code: 1,
        };
        let name = CString::new(name).map_err(|_| failed)?;
        // SAFETY: a text.
        let handle = unsafe { (self.symbols.plimsoll_sim_function)(name.as_ptr(), duration_ns.unwrap_or(0)) };
        if handle == 0 {
            Err(failed)
        } else {
            Ok(Function(handle))
        }
    }

    /// How long a kernel of this name takes when nobody says otherwise, ns.
    #[must_use]
    pub fn usual_duration_ns(&self, name: &str) -> u64 {
        // SAFETY: a text.
        CString::new(name).map_or(0, |name| unsafe {
            (self.symbols.plimsoll_sim_duration)(name.as_ptr())
        })
    }

    /// How long a copy takes, ns.
    #[must_use]
    pub fn copy_duration_ns(&self, direction: Direction, bytes: u64) -> u64 {
        // SAFETY: two numbers.
        unsafe { (self.symbols.plimsoll_sim_copy_ns)(direction as u32, bytes) }
    }

    /// A graph that launches these kernels one after the other.
    ///
    /// # Errors
    /// When there are too many.
    pub fn graph(&self, functions: &[Function]) -> Result<Graph, CudaError> {
        let handles: Vec<usize> = functions.iter().map(|function| function.0).collect();
        // SAFETY: handles and their number.
        let handle = unsafe { (self.symbols.plimsoll_sim_graph)(handles.as_ptr(), handles.len()) };
        if handle == 0 {
            return Err(CudaError {
                call: "plimsoll_sim_graph",
                code: 1,
            });
        }
        Ok(Graph(handle))
    }

    /// A new stream.
    ///
    /// # Errors
    /// When there are too many.
    pub fn stream(&self) -> Result<Stream, CudaError> {
        let mut handle = 0;
        ask!(self.cuStreamCreate(&raw mut handle, 0))?;
        Ok(Stream(handle))
    }

    /// Launches a kernel.
    ///
    /// # Errors
    /// What the driver answers.
    #[inline]
    pub fn launch(&self, function: Function, stream: Stream) -> Result<(), CudaError> {
        let none = std::ptr::null_mut();
        ask!(self.cuLaunchKernel(function.0, 108, 1, 1, 256, 1, 1, 0, stream.0, none, none))
    }

    /// Launches a graph.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn launch_graph(&self, graph: Graph, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuGraphLaunch(graph.0, stream.0))
    }

    /// Waits until the device is done with everything.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        ask!(self.cuCtxSynchronize())
    }

    /// Waits until a stream is done.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn synchronize_stream(&self, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuStreamSynchronize(stream.0))
    }

    /// Copies, on a stream or (without one) until it is done.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn copy(&self, direction: Direction, bytes: u64, stream: Option<Stream>) -> Result<(), CudaError> {
        let bytes = size(bytes);
        match (direction, stream) {
            (Direction::HostToDevice, None) => ask!(self.cuMemcpyHtoD_v2(0, 0, bytes)),
            (Direction::DeviceToHost, None) => ask!(self.cuMemcpyDtoH_v2(0, 0, bytes)),
            (Direction::DeviceToDevice, None) => ask!(self.cuMemcpyDtoD_v2(0, 0, bytes)),
            (Direction::HostToDevice, Some(stream)) => ask!(self.cuMemcpyHtoDAsync_v2(0, 0, bytes, stream.0)),
            (Direction::DeviceToHost, Some(stream)) => ask!(self.cuMemcpyDtoHAsync_v2(0, 0, bytes, stream.0)),
            (Direction::DeviceToDevice, Some(stream)) => {
                ask!(self.cuMemcpyDtoDAsync_v2(0, 0, bytes, stream.0))
            }
        }
    }

    /// Fills memory with a byte.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn fill(&self, value: u8, bytes: u64, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuMemsetD8Async(0, value, size(bytes), stream.0))
    }

    /// Fills memory with a word of 32 bits, so many times.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn fill_words(&self, value: u32, words: u64, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuMemsetD32Async(0, value, size(words), stream.0))
    }
}
