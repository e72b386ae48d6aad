//! The driver's functions, for programs that are written in Rust. They load the library as a real program loads `libcuda.so.1`.
#![expect(unsafe_code, reason = "functions of a library are looked up and called")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not load.
    #[error("{path} cannot be loaded: {reason}")]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// It is another library, or an older one.
    #[error("{path} has no function {symbol}")]
    Symbol {
        /// The library.
        path: PathBuf,
        /// What it misses.
        symbol: &'static str,
    },
}

/// What a call answered instead of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} answered {code}")]
pub struct CudaError {
    /// The function.
    pub call: &'static str,
    /// Its `CUresult`.
    pub code: u32,
}

impl CudaError {
    /// Whether memory is out.
    #[must_use]
    pub const fn is_out_of_memory(self) -> bool {
        self.code == 2
    }
}

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(usize);

/// A graph of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(usize);

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(usize);

impl Stream {
    /// The one that is there from the start.
    pub const DEFAULT: Self = Self(0);
}

/// The loaded library. It stays loaded until the process ends, as the driver does.
#[derive(Clone, Copy, Debug)]
pub struct Cuda {
    symbols: Symbols,
}

macro_rules! symbols {
    ($($name:ident: fn($($argument:ty),*) $(-> $answer:ty)?;)+) => {
        #[derive(Clone, Copy, Debug)]
        #[expect(non_snake_case, reason = "these are the functions' names")]
        struct Symbols { $($name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)+ }

        impl Symbols {
            fn find(library: *mut c_void) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        let symbol = symbol(library, stringify!($name));
                        if symbol.is_null() {
                            return Err(stringify!($name));
                        }
                        // SAFETY: a library that has a function of this name has it with the driver's signature.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $answer)?>(symbol)
                        }
                    },)+
                })
            }
        }
    };
}

symbols! {
    cuInit: fn(c_uint) -> u32;
    cuDevicePrimaryCtxRetain: fn(*mut usize, c_int) -> u32;
    cuCtxSetCurrent: fn(usize) -> u32;
    cuCtxSynchronize: fn() -> u32;
    cuStreamCreate: fn(*mut usize, c_uint) -> u32;
    cuStreamSynchronize: fn(usize) -> u32;
    cuMemGetInfo_v2: fn(*mut usize, *mut usize) -> u32;
    cuMemAlloc_v2: fn(*mut u64, usize) -> u32;
    cuMemFree_v2: fn(u64) -> u32;
    cuMemAllocAsync: fn(*mut u64, usize, usize) -> u32;
    cuMemFreeAsync: fn(u64, usize) -> u32;
    cuMemAllocHost_v2: fn(*mut u64, usize) -> u32;
    cuMemFreeHost: fn(u64) -> u32;
    cuMemAddressReserve: fn(*mut u64, usize, usize, u64, u64) -> u32;
    cuMemAddressFree: fn(u64, usize) -> u32;
    cuMemCreate: fn(*mut u64, usize, *const [u32; 8], u64) -> u32;
    cuMemRelease: fn(u64) -> u32;
    cuMemMap: fn(u64, usize, usize, u64, u64) -> u32;
    cuMemUnmap: fn(u64, usize) -> u32;
    cuMemcpyHtoD_v2: fn(u64, usize, usize) -> u32;
    cuMemcpyDtoH_v2: fn(usize, u64, usize) -> u32;
    cuMemcpyDtoD_v2: fn(u64, u64, usize) -> u32;
    cuMemcpyHtoDAsync_v2: fn(u64, usize, usize, usize) -> u32;
    cuMemcpyDtoHAsync_v2: fn(usize, u64, usize, usize) -> u32;
    cuMemcpyDtoDAsync_v2: fn(u64, u64, usize, usize) -> u32;
    cuMemsetD8Async: fn(u64, u8, usize, usize) -> u32;
    cuLaunchKernel: fn(usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize, *mut c_void, *mut c_void) -> u32;
    cuGraphLaunch: fn(usize, usize) -> u32;
    plimsoll_sim_function: fn(*const c_char, u64) -> usize;
    plimsoll_sim_duration: fn(*const c_char) -> u64;
    plimsoll_sim_graph: fn(*const usize, usize) -> usize;
    plimsoll_sim_copy_ns: fn(u32, u64) -> u64;
    plimsoll_sim_set: fn(*const c_char, *const c_char) -> u32;
}

fn symbol(library: *mut c_void, name: &str) -> *mut c_void {
    let Ok(name) = CString::new(name) else {
        return std::ptr::null_mut();
    };
    // SAFETY: a handle of dlopen and a text.
    unsafe { libc::dlsym(library, name.as_ptr()) }
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

macro_rules! ask {
    ($self:ident.$call:ident($($argument:expr),*)) => {{
        // SAFETY: the library is this crate's own, whose functions take any numbers; places are writable.
        let code = unsafe { ($self.symbols.$call)($($argument),*) };
        if code == 0 { Ok(()) } else { Err(CudaError { call: stringify!($call), code }) }
    }};
}

impl Cuda {
    /// Loads the library.
    ///
    /// # Errors
    /// When it does not load or is another library.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let failed = |reason: String| LoadError::Library {
            path: path.to_owned(),
            reason,
        };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
        // SAFETY: loading this crate's own library has no effect outside of it.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(failed(last_error()));
        }
        let symbols = Symbols::find(library).map_err(|symbol| LoadError::Symbol {
            path: path.to_owned(),
            symbol,
        })?;
        Ok(Self { symbols })
    }

    /// In this copy of the library an environment variable has this value; only before all other calls.
    ///
    /// # Panics
    /// When one of the texts contains a NUL.
    #[expect(clippy::expect_used, reason = "documented")]
    pub fn set(&self, name: &str, value: &str) {
        let text = |text: &str| CString::new(text).expect("no NUL");
        let (name, value) = (text(name), text(value));
        // SAFETY: two texts.
        unsafe { (self.symbols.plimsoll_sim_set)(name.as_ptr(), value.as_ptr()) };
    }

    /// `cuInit`, and the context of the first device.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn init(&self) -> Result<(), CudaError> {
        ask!(self.cuInit(0))?;
        let mut context = 0;
        ask!(self.cuDevicePrimaryCtxRetain(&raw mut context, 0))?;
        ask!(self.cuCtxSetCurrent(context))
    }

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

    /// Memory that is free on the device, and all of it, bytes.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        ask!(self.cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        Ok((free as u64, total as u64))
    }

    /// Takes memory on the device.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn alloc(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAlloc_v2(&raw mut address, size(bytes)))?;
        Ok(address)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free(&self, address: u64) -> Result<(), CudaError> {
        ask!(self.cuMemFree_v2(address))
    }

    /// Takes memory from the device's pool.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn alloc_async(&self, bytes: u64, stream: Stream) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAllocAsync(&raw mut address, size(bytes), stream.0))?;
        Ok(address)
    }

    /// Gives it back to the pool.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_async(&self, address: u64, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuMemFreeAsync(address, stream.0))
    }

    /// Takes pinned memory of the host.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn alloc_host(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAllocHost_v2(&raw mut address, size(bytes)))?;
        Ok(address)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_host(&self, address: u64) -> Result<(), CudaError> {
        ask!(self.cuMemFreeHost(address))
    }

    /// Reserves addresses, whole pieces of 2 MiB.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn reserve(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAddressReserve(&raw mut address, size(bytes), 0, 0, 0))?;
        Ok(address)
    }

    /// Gives reserved addresses back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_reservation(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        ask!(self.cuMemAddressFree(address, size(bytes)))
    }

    /// Takes physical memory of the first device, whole pieces of 2 MiB. The answer is its handle.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn create(&self, bytes: u64) -> Result<u64, CudaError> {
        // Pinned memory of a device, whose number is 0.
        let properties = [1, 0, 1, 0, 0, 0, 0, 0];
        let mut handle = 0;
        ask!(self.cuMemCreate(&raw mut handle, size(bytes), &raw const properties, 0))?;
        Ok(handle)
    }

    /// Gives a handle back; the memory goes when it is mapped nowhere.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn release(&self, handle: u64) -> Result<(), CudaError> {
        ask!(self.cuMemRelease(handle))
    }

    /// Maps physical memory to reserved addresses.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn map(&self, address: u64, bytes: u64, handle: u64) -> Result<(), CudaError> {
        ask!(self.cuMemMap(address, size(bytes), 0, handle, 0))
    }

    /// Ends mappings.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn unmap(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        ask!(self.cuMemUnmap(address, size(bytes)))
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
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn last_error() -> String {
    // SAFETY: called after dlopen failed; the text is copied before any other call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown reason".to_owned();
    }
    // SAFETY: not null, so a text.
    unsafe { std::ffi::CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
