//! The one place through which every call goes: it is counted here, suffers its faults here, and is turned away here
//! when the library is not initialised, the driver was reloaded or the device is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use plimsoll_sim_gpu::{DeviceState, Fired, Function, Gpu};

use crate::abi::{Answer, Handle, Numbers, Out};
use crate::session::{self, Session};

/// Counted in the state file when a function other than init is called without an initialised library.
pub(crate) const CALL_UNINITIALIZED: &str = "call while uninitialized";
/// Counted in the state file when a handle from an earlier life of the driver is used.
pub(crate) const CALL_STALE_HANDLE: &str = "call with a stale handle";

/// A call that nothing stood in the way of.
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    pub(crate) fired: Fired,
}

impl Call {
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.session.gpu
    }

    /// The handle of a device in this session.
    pub(crate) fn handle(&self, device: usize) -> nvml::nvmlDevice_t {
        Handle {
            device,
            generation: self.session.generation,
        }
        .to_c()
    }

    /// Writes a measured value, which is what [`plimsoll_sim_gpu::FaultKind::AllOnes`] spoils.
    pub(crate) fn put<T: Numbers>(&self, out: Out<T>, value: T) -> Answer {
        if self.fired.all_ones {
            out.put_all_ones()
        } else {
            out.put(value)
        }
    }

    /// Whether the driver still lives the life in which this session began.
    pub(crate) fn current_life(&self) -> Answer {
        match self.session.generation == self.gpu().driver_generation() {
            true => Ok(()),
            false => Err(nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST),
        }
    }
}

/// A call that begins or ends a session. No panic crosses the border to the C caller.
pub(crate) fn bare(body: impl FnOnce() -> Answer) -> nvml::nvmlReturn_t {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => nvml::nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

/// A call about no device.
pub(crate) fn system(function: Function, body: impl FnOnce(&Call) -> Answer) -> nvml::nvmlReturn_t {
    bare(|| {
        let session = session::current().ok_or_else(|| uninitialized(function))?;
        session.gpu.count_call(function);
        let fired = suffer(&session.gpu, function, None)?;
        body(&Call { session, fired })
    })
}

/// A call about one device.
pub(crate) fn device(
    function: Function,
    handle: nvml::nvmlDevice_t,
    body: impl FnOnce(&Call, &DeviceState) -> Answer,
) -> nvml::nvmlReturn_t {
    bare(|| {
        let session = session::current().ok_or_else(|| uninitialized(function))?;
        session.gpu.count_call(function);
        let handle = Handle::from_c(handle).ok_or(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let device = session
            .gpu
            .find(handle.device)
            .ok_or(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let fired = suffer(&session.gpu, function, Some(handle.device))?;
        let call = Call { session, fired };
        if handle.generation != call.session.generation {
            call.gpu().count_call(const { Function::new(CALL_STALE_HANDLE) });
            return Err(nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
        }
        call.current_life()?;
        reachable(call.gpu(), &device)?;
        body(&call, &device)
    })
}

/// Whether the device, and for a MIG instance its card, is where it belongs.
pub(crate) fn reachable(gpu: &Gpu, device: &DeviceState) -> Answer {
    let card = device.mig_parent().and_then(|parent| gpu.find(parent));
    let gone = |device: &DeviceState| device.lost() || !device.present();
    if gone(device) || card.as_ref().is_some_and(gone) {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    }
    // An instance ends with the MIG mode of its card.
    if card.is_some_and(|card| !card.mig_mode()) {
        return Err(nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    Ok(())
}

/// What the injected faults do to every kind of call, in the order in which a caller would notice. What is left in the
/// answer concerns only some functions.
pub(crate) fn suffer(
    gpu: &Gpu,
    function: Function,
    device: Option<usize>,
) -> Result<Fired, nvml::nvmlReturn_t> {
    let fired = gpu.faults(function, device);
    if let Some(fault) = fired.hang {
        loop {
            let heard = gpu.bell();
            if !gpu.is_on(fault) {
                break;
            }
            gpu.wait(heard, Duration::from_secs(1));
        }
    }
    if !fired.delay.is_zero() {
        std::thread::sleep(fired.delay);
    }
    let begin = Instant::now();
    while begin.elapsed() < fired.busy {
        std::hint::spin_loop();
    }
    fired.code.map_or(Ok(fired), Err)
}

/// Notes a call that came too early or too late, where a test can see it.
pub(crate) fn uninitialized(function: Function) -> nvml::nvmlReturn_t {
    if let Ok(gpu) = session::open_state() {
        gpu.count_call(function);
        gpu.count_call(const { Function::new(CALL_UNINITIALIZED) });
    }
    nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED
}
