//! The library in this process.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::constant::kind;
use crate::locate::{Candidate, Place, candidates};
use crate::{Answer, Functions};

/// A CUPTI library, which stays loaded until the process ends: its threads may be anywhere.
#[derive(Debug)]
pub struct Library {
    functions: Functions,
    found: Candidate,
    handle: *mut c_void,
}

// SAFETY: the handle is only looked up in; the linker locks for itself.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Why there is no CUPTI in this process.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No candidate could be loaded.
    #[error(
        "no CUPTI library was found (the last try: {last}); install the one of your CUDA release, or name it with \
         PLIMSOLL_CUPTI_LIBRARY"
    )]
    NotFound {
        /// What the linker said about the last candidate.
        last: String,
    },
    /// The one that the user named cannot be loaded.
    #[error("{path} cannot be loaded: {reason}")]
    Named {
        /// Which.
        path: PathBuf,
        /// What the linker said.
        reason: String,
    },
    /// It misses a function without which nothing works.
    #[error("{path} has no function {symbol}: it is no CUPTI library, or one older than 11")]
    Symbol {
        /// Which library.
        path: PathBuf,
        /// What it misses.
        symbol: &'static str,
    },
}

/// What happens while a library is searched, for whoever tells how far it came.
pub(crate) enum Search<'a> {
    /// It is loaded.
    Loaded(&'a Candidate),
    /// About to call this.
    Trying(&'static str),
    /// It answered that it cannot work with this driver, and the next is tried.
    PassedOver(&'a Candidate, Answer),
}

impl Library {
    /// Finds and loads CUPTI: a copy that the process has already, else the named file, else where it usually lies. Of
    /// several that lie there, the first that can work with this driver: one that is newer than the driver cannot. When
    /// none can it is the first, which says why.
    ///
    /// # Errors
    /// When there is none, or when it is not usable.
    pub fn open(named: Option<&Path>) -> Result<Self, LoadError> {
        Self::search(named, |_| {})
    }

    pub(crate) fn search(named: Option<&Path>, mut tell: impl FnMut(Search<'_>)) -> Result<Self, LoadError> {
        let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
        let candidates = candidates(
            named,
            &String::from_utf8_lossy(&maps),
            |name| std::env::var_os(name),
            Path::exists,
        );
        let mut first = None;
        let mut failed = LoadError::NotFound {
            last: String::from("none"),
        };
        for candidate in candidates {
            let place = candidate.place;
            match Self::load(candidate) {
                Ok(library) => {
                    tell(Search::Loaded(&library.found));
                    // What the process has, or the user wants, has no alternative.
                    if matches!(place, Place::Loaded | Place::Named) {
                        return Ok(library);
                    }
                    match library.try_driver(&mut tell) {
                        Ok(()) => return Ok(library),
                        Err(answer) => tell(Search::PassedOver(&library.found, answer)),
                    }
                    first = first.or(Some(library));
                }
                Err(error @ LoadError::Named { .. }) => return Err(error),
                Err(error @ LoadError::Symbol { .. }) if matches!(place, Place::Loaded | Place::Named) => {
                    return Err(error);
                }
                // A file that is there and is no CUPTI says more than one that is not.
                Err(error) if matches!(failed, LoadError::NotFound { .. }) => failed = error,
                Err(_) => {}
            }
        }
        let library = first.ok_or(failed)?;
        tell(Search::Loaded(&library.found));
        Ok(library)
    }

    fn load(found: Candidate) -> Result<Self, LoadError> {
        let only_loaded = if found.place == Place::Loaded {
            libc::RTLD_NOLOAD
        } else {
            0
        };
        let flags = libc::RTLD_LAZY | libc::RTLD_LOCAL | only_loaded;
        match dlopen(found.path.as_os_str(), flags) {
            Ok(handle) => Self::of(handle, found),
            Err(reason) if found.place == Place::Named => Err(LoadError::Named {
                path: found.path,
                reason,
            }),
            Err(last) => Err(LoadError::NotFound { last }),
        }
    }

    /// Whether it can work with the driver that is here. Only what says so plainly is passed over: what another profiler
    /// or a missing right refuses, another release would be refused too. It stays loaded, its threads may be anywhere.
    fn try_driver(&self, tell: &mut impl FnMut(Search<'_>)) -> Result<(), Answer> {
        tell(Search::Trying("enable MEMORY2"));
        // No context, no callbacks: nothing is recorded between the two.
        match self.functions.enable(kind::MEMORY2) {
            Ok(()) => {
                self.functions.disable(kind::MEMORY2).ok();
                Ok(())
            }
            Err(answer @ (Answer::NOT_INITIALIZED | Answer::UNKNOWN)) => Err(answer),
            Err(_) => Ok(()),
        }
    }

    fn of(handle: *mut c_void, found: Candidate) -> Result<Self, LoadError> {
        // SAFETY: the handle is never closed, so what is found stays; that a library with these names has CUPTI's
        // signatures is what its name or the user promised.
        match unsafe { Functions::resolve(|symbol| symbol_of(handle, symbol)) } {
            Ok(functions) => Ok(Self {
                functions,
                found,
                handle,
            }),
            Err(symbol) => Err(LoadError::Symbol {
                path: found.path,
                symbol,
            }),
        }
    }

    /// Its functions.
    #[must_use]
    pub const fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Where it was found.
    #[must_use]
    pub const fn found(&self) -> &Candidate {
        &self.found
    }

    /// The functions of [`Functions::OPTIONAL`] that it misses.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        Functions::OPTIONAL
            .iter()
            .copied()
            .filter(|symbol| symbol_of(self.handle, symbol).is_null())
    }

    /// The address of any function of it, null when it has none of this name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> *mut c_void {
        symbol_of(self.handle, name)
    }

    /// An answer for people: its number and word, and what it means or what CUPTI says to it.
    #[must_use]
    pub fn explain(&self, answer: Answer) -> String {
        if let Some(meaning) = answer.meaning() {
            return format!("{answer}: {meaning}");
        }
        let mut text = std::ptr::null();
        if answer.word().is_none()
            && let Some(get) = self.functions.get_result_string
            // SAFETY: writes a pointer to a local.
            && unsafe { get(answer, &raw mut text) } == Answer::SUCCESS
            && !text.is_null()
        {
            // SAFETY: CUPTI's texts are constants of the library, which stays loaded.
            let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
            return format!("{answer}: {text}");
        }
        answer.to_string()
    }
}

fn dlopen(path: &OsStr, flags: i32) -> Result<*mut c_void, String> {
    let path = CString::new(path.as_bytes()).map_err(|_| "its name contains a zero".to_owned())?;
    // SAFETY: the path is a C string. A library's constructors run; that is the purpose.
    let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: what it returns is null or a C string that lives until the thread's next such call.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return Err("it is not loaded".to_owned());
    }
    // SAFETY: as above.
    Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
}

fn symbol_of(handle: *mut c_void, name: &str) -> *mut c_void {
    CString::new(name).map_or(std::ptr::null_mut(), |name| {
        // SAFETY: the handle is open and the name is a C string.
        unsafe { libc::dlsym(handle, name.as_ptr()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_loaded_is_said_with_its_name() {
        let error = Library::open(Some(Path::new("/nowhere/libcupti.so"))).unwrap_err();
        assert!(matches!(error, LoadError::Named { .. }));
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/libcupti.so cannot be loaded: "),
            "{error}"
        );
    }

    #[test]
    fn a_library_that_is_not_cupti_is_refused() {
        let error = Library::open(Some(Path::new("libc.so.6"))).unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Symbol {
                    symbol: "cuptiActivityRegisterCallbacks",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libcupti.so.12");
        std::fs::write(&file, "garbage").unwrap();
        assert!(matches!(Library::open(Some(&file)), Err(LoadError::Named { .. })));
    }
}
