//! Why the driver gave no answer, and what that means.

use std::io;
use std::path::Path;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND as GPU_NOT_FOUND;
use plimsoll_trace::units::show_duration;

/// What a failed question says about whom was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The library has no such function: not before another library is loaded.
    Absent,
    /// This device, or this user, cannot have it. Nothing is wrong.
    Unsupported,
    /// The handle is bad, or the driver is: if nothing else answers either, the device is lost.
    Dead,
    /// Anything else; it may work the next time.
    Passing,
}

impl Refusal {
    pub(super) fn of(error: &NvmlError) -> Self {
        match error {
            NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Self::Absent,
            NvmlError::NotSupported | NvmlError::NoPermission => Self::Unsupported,
            NvmlError::GpuLost
            | NvmlError::ResetRequired
            | NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::LibRmVersionMismatch
            | NvmlError::OperatingSystem
            | NvmlError::IrqIssue
            | NvmlError::InvalidArg
            | NvmlError::Unknown => Self::Dead,
            _ => Self::Passing,
        }
    }
}

/// Why there is no driver to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The library could not be loaded.
    Library(String),
    /// The library lacks what is needed to start.
    TooOld,
    /// The kernel module is not loaded.
    NotLoaded,
    /// Library and kernel module are of different versions.
    Mismatch,
    /// It started and shows no device.
    NoDevice,
    /// A call to it has not returned.
    Hangs(Duration),
    /// It may not be used by this user.
    NotPermitted,
    /// It refused to start for another reason.
    Failed(String),
}

impl Missing {
    /// Why the driver could not be started.
    pub(super) fn of(error: &NvmlError) -> Self {
        match error {
            NvmlError::LibloadingError(error) => Self::Library(innermost(error)),
            NvmlError::FailedToLoadSymbol(_) => Self::TooOld,
            NvmlError::DriverNotLoaded => Self::NotLoaded,
            NvmlError::LibRmVersionMismatch => Self::Mismatch,
            NvmlError::NoPermission => Self::NotPermitted,
            // The wrapper has no name for it.
            NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Self::NoDevice,
            error => Self::Failed(error.to_string()),
        }
    }

    /// The stable word for it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Library(_) => "library_missing",
            Self::TooOld => "library_too_old",
            Self::NotLoaded => "driver_not_loaded",
            Self::Mismatch => "version_mismatch",
            Self::NoDevice => "no_device",
            Self::Hangs(_) => "driver_hangs",
            Self::NotPermitted => "not_permitted",
            Self::Failed(_) => "driver_failed",
        }
    }

    /// A sentence for people: what, why, and what to do.
    pub(super) fn message(&self, library: &Path) -> String {
        let library = library.display();
        match self {
            Self::Library(cause) => format!(
                "no NVIDIA driver library: {library} could not be loaded ({cause}); install the driver, or name its \
                 library in sampling.nvml_library"
            ),
            Self::TooOld => format!(
                "{library} is too old or no NVIDIA driver library: it lacks the functions to start with; install a \
                 newer driver, or name another library in sampling.nvml_library"
            ),
            Self::NotLoaded => {
                "the NVIDIA driver is not loaded, although its library is there; load the kernel \
                                module (modprobe nvidia), or see dmesg for why it does not load"
                    .to_owned()
            }
            Self::Mismatch => {
                "the NVIDIA library and the loaded kernel module have different versions, as after an \
                               upgrade; reload the module or restart the machine"
                    .to_owned()
            }
            Self::NoDevice => {
                "the NVIDIA driver runs but shows no device; see dmesg, and whether a container was \
                               given one"
                    .to_owned()
            }
            Self::Hangs(lasted) => format!(
                "the NVIDIA driver hangs: a call to it has not returned for {}; sampling goes on when it does",
                show_duration(*lasted)
            ),
            Self::NotPermitted => {
                "the NVIDIA driver may not be used by this user; check the access to /dev/nvidiactl"
                    .to_owned()
            }
            Self::Failed(cause) => format!("the NVIDIA driver did not start ({cause}); see dmesg"),
        }
    }
}

/// The dynamic linker's own words. The outer error says no more than that loading failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A thread could not be started; the driver is asked again with the next tick.
pub(super) fn no_thread(error: &io::Error) -> Missing {
    Missing::Failed(format!("no thread for it: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_a_remedy_of_its_own() {
        let library = Path::new("/opt/libnvidia-ml.so.1");
        let all = [
            Missing::Library("no such file".into()),
            Missing::TooOld,
            Missing::NotLoaded,
            Missing::Mismatch,
            Missing::NoDevice,
            Missing::Hangs(Duration::from_secs(2)),
            Missing::NotPermitted,
            Missing::Failed("unknown".into()),
        ];
        let text: Vec<String> = all
            .iter()
            .map(|missing| format!("{}: {}", missing.word(), missing.message(library)))
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
