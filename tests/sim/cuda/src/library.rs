//! Where the library lies after a build or an installation.

use std::path::PathBuf;

const FILE_NAME: &str = "libplimsoll_sim_cuda.so";

/// The simulated CUDA library: in the `deps` folder beside the running program, which is where cargo builds it anew for a
/// program that depends on it; beside the program; or in `../lib/plimsoll`, where an installation puts it.
pub fn library_path() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let installed = folder.parent()?.join("lib").join("plimsoll");
    [folder.join("deps"), folder.to_owned(), installed]
        .into_iter()
        .map(|folder| folder.join(FILE_NAME))
        .find(|path| path.is_file())
}
