//! Where things are: the configuration, the database, the control socket. The environment is read here only.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError};

/// The configuration file to read: named, else from the environment, else the first of the usual places that exists.
pub(crate) fn find(named: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = named {
        let path = path.to_owned();
        return if path.exists() { Ok(Some(path)) } else { Err(ConfigError::Missing { path }) };
    }
    let user = directory("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("plimsoll/plimsoll.toml"));
    let system = Some(PathBuf::from("/etc/plimsoll/plimsoll.toml"));
    Ok([user, system].into_iter().flatten().find(|path| path.exists()))
}

/// The database to read: named (`--db` or `PLIMSOLL_DB`, which the command line has merged), else the configuration's.
pub(crate) fn store_path(named: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, ConfigError> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => Ok(Config::load(config)?.store_path()),
    }
}

/// The database without any configuration: the system's for root, else the user's.
pub(crate) fn default_store_path() -> PathBuf {
    let user = directory("XDG_DATA_HOME", ".local/share").filter(|_| !rustix::process::geteuid().is_root());
    user.unwrap_or_else(|| PathBuf::from("/var/lib")).join("plimsoll/plimsoll.db")
}

/// The daemon's control socket: `PLIMSOLL_SOCKET`, else beside its database.
pub(crate) fn socket_path(store: &Path) -> PathBuf {
    match std::env::var_os("PLIMSOLL_SOCKET") {
        Some(path) if !path.is_empty() => path.into(),
        _ => store.with_extension("sock"),
    }
}

fn directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(below_home)))
}
