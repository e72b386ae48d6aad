//! The time between the first initialisation and the last shutdown in this process.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::{DriverState, Function, Gpu, GpuError};

use crate::abi::Answer;
use crate::beside;
use crate::call;
use crate::events::EventSets;

/// Names the state file of the simulated GPU.
pub(crate) const STATE_VARIABLE: &str = "PLIMSOLL_SIM_GPU";

/// How long a process is believed to live once it was seen: as long as a fast sampling interval, so that each process
/// is looked at about once per round of calls.
const LIVENESS_PERIOD: Duration = Duration::from_millis(100);

/// One life of the library in this process, bound to the life of the driver in which it began.
pub(crate) struct Session {
    pub(crate) gpu: Gpu,
    pub(crate) generation: u32,
    pub(crate) event_sets: EventSets,
}

struct Open {
    session: Arc<Session>,
    inits: u64,
}

static OPEN: RwLock<Option<Open>> = RwLock::new(None);

/// The session of this process, if it is initialised.
pub(crate) fn current() -> Option<Arc<Session>> {
    let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
    open.as_ref().map(|open| Arc::clone(&open.session))
}

/// The state file beside the library, else the one that the environment names.
pub(crate) fn open_state() -> Result<Gpu, nvml::nvmlReturn_t> {
    let path = beside::state_file().or_else(|| std::env::var_os(STATE_VARIABLE).map(PathBuf::from));
    let path = path.ok_or(nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED)?;
    match Gpu::open(&path) {
        Ok(gpu) => Ok(gpu.cache_liveness(LIVENESS_PERIOD)),
        // No file is no driver; any other file is something that went wrong.
        Err(GpuError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED)
        }
        Err(_) => Err(nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN),
    }
}

/// Begins a session, or counts one more use of the one there is, which then refreshes nothing.
pub(crate) fn init(function: Function, flags: u32) -> Answer {
    let gpu = match current() {
        Some(session) => session.gpu.clone(),
        None => open_state()?,
    };
    gpu.count_call(function);
    call::suffer(&gpu, function, None)?;
    let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = &mut *open {
        open.inits += 1;
    } else {
        let no_gpu_is_fine = flags & nvml::NVML_INIT_FLAG_NO_GPUS != 0;
        match gpu.driver() {
            DriverState::NotLoaded => return Err(nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED),
            DriverState::VersionMismatch => {
                return Err(nvml::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH);
            }
            DriverState::Loaded if !no_gpu_is_fine && !gpu.devices().any(|device| device.present()) => {
                return Err(nvml::nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND);
            }
            DriverState::Loaded => {}
        }
        let generation = gpu.driver_generation();
        let session = Session {
            gpu: gpu.clone(),
            generation,
            event_sets: EventSets::default(),
        };
        *open = Some(Open {
            session: Arc::new(session),
            inits: 1,
        });
    }
    gpu.count_init(1);
    Ok(())
}

/// Takes back one initialisation; the last one ends the session.
pub(crate) fn shutdown(function: Function) -> Answer {
    let Some(session) = current() else {
        return Err(call::uninitialized(function));
    };
    session.gpu.count_call(function);
    call::suffer(&session.gpu, function, None)?;
    let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
    let Some(counted) = &mut *open else {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
    };
    counted.inits -= 1;
    if counted.inits == 0 {
        *open = None;
    }
    session.gpu.count_init(-1);
    Ok(())
}
