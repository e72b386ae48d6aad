//! What a test chose: by the environment, or by `plimsoll_sim_set` for one copy of the library.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::fault::Faults;
use crate::release::{Release, Sizes};

/// The release of CUPTI: `11.8` to `13.5`, or `future`.
const RELEASE: &str = "PLIMSOLL_SIM_CUPTI";
/// See [`crate::fault`].
pub(crate) const FAULTS: &str = "PLIMSOLL_SIM_CUPTI_FAULT";
/// The state file of the simulated GPU.
const STATE: &str = "PLIMSOLL_SIM_GPU";
/// Which devices of the state file, and in which order; as in CUDA.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// `0`: memory is taken without the simulated GPU knowing, because somebody else accounts for it there.
const TAKES_MEMORY: &str = "PLIMSOLL_SIM_CUDA_TAKES_MEMORY";
/// The library that CUDA loads when a program initialises it.
pub(crate) const INJECTION: &str = "CUDA_INJECTION64_PATH";

static CHOSEN: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// For this copy of the library `name` has this value, whatever the environment says.
pub(crate) fn choose(name: &str, value: &str) {
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.push((name.to_owned(), value.to_owned()));
}

/// The value of a variable; an empty one is none.
pub(crate) fn value(name: &str) -> Option<String> {
    as_set(name).filter(|value| !value.is_empty())
}

/// The value of a variable, which may be empty.
fn as_set(name: &str) -> Option<String> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    let last = chosen.iter().rev().find(|(key, _)| key == name);
    match last {
        Some((_, value)) => Some(value.clone()),
        None => std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
    }
}

/// All that is chosen before the first call.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) release: Release,
    pub(crate) sizes: Sizes,
    pub(crate) faults: Faults,
    pub(crate) state: Option<PathBuf>,
    pub(crate) visible_devices: Option<String>,
    pub(crate) takes_memory: bool,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// The settings, read once.
pub(crate) fn get() -> &'static Settings {
    SETTINGS.get_or_init(read)
}

fn read() -> Settings {
    let release = Release::parse(value(RELEASE).as_deref());
    let faults = Faults::parse(&value(FAULTS).unwrap_or_default()).unwrap_or_else(|word| {
        eprintln!("{FAULTS}: there is no fault {word}; see tests/sim/cuda/src/fault.rs");
        std::process::abort()
    });
    Settings {
        release,
        sizes: Sizes::of(release),
        faults,
        state: value(STATE).map(PathBuf::from).or_else(crate::beside::state_file),
        visible_devices: as_set(VISIBLE),
        takes_memory: value(TAKES_MEMORY).is_none_or(|value| value != "0"),
    }
}
