//! This library's file, and the state file that lies beside it.

use std::path::PathBuf;

/// `<this library's file>.gpu`, if there is such a file.
pub(crate) fn state_file() -> Option<PathBuf> {
    plimsoll_sim_gpu::state_file_beside(state_file as fn() -> Option<PathBuf> as usize)
}

/// Whether this library's file has this name.
pub(crate) fn is_named(name: &str) -> bool {
    let file = plimsoll_sim_gpu::file_of(is_named as fn(&str) -> bool as usize);
    file.is_some_and(|file| file.file_name().is_some_and(|found| found == name))
}
