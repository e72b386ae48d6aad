//! Where the driver library lies after a build or an installation.

use std::path::PathBuf;

const FILE_NAME: &str = "libplimsoll_sim_driver.so";

/// The simulated driver library: beside the running program, in its `deps` folder, one folder up and in `deps` there
/// (which is where a test finds it), or in `../lib/plimsoll` (which is where an installation puts it).
pub fn library_path() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let up = folder.parent().unwrap_or(folder);
    let folders = [
        folder.to_owned(),
        folder.join("deps"),
        up.to_owned(),
        up.join("deps"),
        up.join("lib").join("plimsoll"),
    ];
    folders
        .into_iter()
        .map(|folder| folder.join(FILE_NAME))
        .find(|path| path.is_file())
}
