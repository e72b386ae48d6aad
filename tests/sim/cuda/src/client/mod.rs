//! The driver's functions, for programs that are written in Rust. They load the library as a real program loads `libcuda.so.1`.
#![expect(unsafe_code, reason = "a library is loaded and its functions are called")]

mod memory;
mod symbols;
mod work;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::symbols::Symbols;

pub use self::work::{Direction, Function, Graph, Stream};

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

/// The loaded library. It stays loaded until the process ends, as the driver does.
#[derive(Clone, Copy, Debug)]
pub struct Cuda {
    symbols: Symbols,
}

macro_rules! ask {
    ($self:ident.$call:ident($($argument:expr),*)) => {{
        // SAFETY: the library is this crate's own, whose functions take any numbers; places are writable.
        let code = unsafe { ($self.symbols.$call)($($argument),*) };
        if code == 0 { Ok(()) } else { Err(CudaError { call: stringify!($call), code }) }
    }};
}

use ask;

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
