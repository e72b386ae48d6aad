//! The state file that lies beside this library.

use std::path::PathBuf;

/// `<this library's file>.gpu`, if there is such a file.
pub(crate) fn state_file() -> Option<PathBuf> {
    plimsoll_sim_gpu::state_file_beside(state_file as fn() -> Option<PathBuf> as usize)
}
