//! Why a state file could not be made, opened or used.

use std::io;
use std::path::PathBuf;

/// Why a state file could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The file system said no.
    #[error("{action} the simulated GPU's state file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The state file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else, or of another version.
    #[error("{} is not a state file of this simulated GPU: {reason}; create it anew", path.display())]
    WrongFile {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A device that cannot be created.
    #[error("device {index} cannot be simulated: {reason}")]
    BadDevice {
        /// Its place in the list.
        index: usize,
        /// What does not fit.
        reason: String,
    },
    /// There is no such device.
    #[error("the simulated GPU has no device {index}, only {count}")]
    NoDevice {
        /// What was asked for.
        index: usize,
        /// Number of devices there are.
        count: usize,
    },
    /// There is no process with this pid.
    #[error("there is no process {pid} that could use the simulated GPU")]
    NoProcess {
        /// The pid.
        pid: u32,
    },
    /// A table of the state file is full.
    #[error("the simulated GPU has no room for more {what} (at most {limit})")]
    Full {
        /// Processes or faults.
        what: &'static str,
        /// How many fit.
        limit: usize,
    },
}
