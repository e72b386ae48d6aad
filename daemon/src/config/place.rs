//! Where things are: the configuration, the database, the control socket. The environment is read here only.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Config, ConfigError};

/// The configuration file to read: named by `--config`, else by the environment, else the first of the usual places
/// where there is one. One that is there but cannot be read counts: to pass it over would be to run with another.
pub(super) fn find(named: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
    let given = named.map(|path| (path.to_owned(), "named with --config"));
    let given = given.or_else(|| variable("PLIMSOLL_CONFIG").map(|path| (path, "named by PLIMSOLL_CONFIG")));
    if let Some((path, named_by)) = given {
        return if path.exists() {
            Ok(Some(path))
        } else {
            Err(ConfigError::Missing { path, named_by })
        };
    }
    let user = directory("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("plimsoll/plimsoll.toml"));
    let system = Some(PathBuf::from("/etc/plimsoll/plimsoll.toml"));
    // A home that may not be entered is somebody else's.
    let user = user.filter(|path| path.symlink_metadata().is_ok());
    let system = system.filter(|path| !path.symlink_metadata().is_err_and(|error| is_nothing(&error)));
    match user.or(system) {
        Some(path) if path.metadata().is_err_and(|error| is_nothing(&error)) => Err(ConfigError::Missing {
            path,
            named_by: "the usual place",
        }),
        found => Ok(found),
    }
}

/// Nothing has this name; a home that is a file, such as /dev/null, holds nothing either.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The database that the environment names; it wins over the configuration's, for the daemon as for those who ask it.
pub(super) fn store_from_environment() -> Option<PathBuf> {
    variable("PLIMSOLL_DB")
}

/// The driver's library that the environment names, by name or path; it wins over the configuration's.
pub(super) fn nvml_library_from_environment() -> Option<PathBuf> {
    variable("PLIMSOLL_NVML_LIBRARY")
}

/// The database to read: `--db`, else `PLIMSOLL_DB`, else the configuration's.
pub(crate) fn store_path(named: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, ConfigError> {
    // Somebody who names a database needs no configuration, so a mistake in it is no hindrance.
    match named.map(Path::to_owned).or_else(store_from_environment) {
        Some(path) => Ok(path),
        None => Ok(Config::load(config)?.store_path()),
    }
}

/// Makes the folder of the default database, for this user only. Any other folder is its owner's to make: a missing
/// one is rather a typing error or a disk that is not mounted.
pub(crate) fn make_default_folder(store: &Path) -> anyhow::Result<()> {
    let Some(folder) = store.parent().filter(|_| store == default_store_path()) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    let made = folder.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(folder)).with_context(|| {
        format!("the folder {} for the database cannot be made; name a database with PLIMSOLL_DB or in [store] path", folder.display())
    })
}

/// The database without any configuration: the system's for root, else the user's.
pub(crate) fn default_store_path() -> PathBuf {
    let user = directory("XDG_DATA_HOME", ".local/share").filter(|_| !rustix::process::geteuid().is_root());
    user.unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("plimsoll/plimsoll.db")
}

/// The daemon's control socket: `PLIMSOLL_SOCKET`, else beside its database.
pub(crate) fn socket_path(store: &Path) -> PathBuf {
    variable("PLIMSOLL_SOCKET").unwrap_or_else(|| socket_beside(store))
}

/// Where the daemon of a database listens when the environment names no other place.
pub(crate) fn socket_beside(store: &Path) -> PathBuf {
    store.with_extension("sock")
}

/// Whether the kernel takes the path of a socket: it has room for few bytes (unix(7)), and an agent that is told a longer one
/// could not connect.
pub(crate) fn fits_socket(socket: &Path) -> anyhow::Result<()> {
    /// Of `sun_path`, without the zero at its end.
    const MOST: usize = 107;
    let bytes = socket.as_os_str().len();
    anyhow::ensure!(
        bytes <= MOST,
        "the path of the control socket {} has {bytes} bytes, and sockets take {MOST}; name a shorter one with PLIMSOLL_SOCKET",
        socket.display()
    );
    Ok(())
}

/// A path from the environment; an empty variable is as good as none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn directory(xdg: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    absolute(xdg).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}
