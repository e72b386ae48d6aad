//! The configuration file of an engine, which belongs to the person who wrote it.
//!
//! [`read`] takes a [`Snapshot`]; [`replace`] puts new bytes in its place, in one step that a crash cannot halve, and only
//! if the file is still what the snapshot says. A person who saves the file at the same moment wins, whichever way their
//! editor writes: nothing that they wrote is ever lost. How: see [`replace`].
//!
//! A file that is a symbolic link is refused: to replace it would cut the link, to write behind it would change a file that
//! nobody named. Folders on the way may be links, unless they lead into one in which everybody may write, because others
//! could then choose what is written to.

mod draft;
mod error;
mod give_back;
mod held;
mod lease;
mod leftovers;
mod place;
mod replace;
mod writers;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

pub use error::FileError;
pub use leftovers::{Leftover, clean_leftovers};
pub use replace::{Written, check, replace};

use crate::edit::MAX_BYTES;

/// A file as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it lies, links among its folders resolved.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// The [`hash`] of that.
    pub hash: String,
    /// Its permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Its owner's user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Which file it is.
    pub identity: Identity,
}

/// Which file, whatever its name: a file that was replaced has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The filesystem's device number.
    pub dev: u64,
    /// The inode number there.
    pub ino: u64,
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a file.
///
/// # Errors
/// [`FileError`] when there is none, it is a link or no regular file, cannot be read, is too large to be a configuration,
/// or lies in a folder that others control.
pub fn read(path: &Path) -> Result<Snapshot, FileError> {
    let resolved = resolve(path)?;
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // A pipe would make a plain open wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&resolved, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => FileError::Missing {
            path: path.to_owned(),
        },
        Errno::LOOP => link(&resolved),
        error => unreadable(error.into()),
    })?;
    snapshot(File::from(file), resolved)
}

fn snapshot(mut file: File, path: PathBuf) -> Result<Snapshot, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.clone(),
        source,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path });
    }
    let mut bytes = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    file.by_ref()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(FileError::TooLarge {
            path,
            bytes: metadata.len(),
        });
    }
    Ok(Snapshot {
        hash: hash(&bytes),
        path,
        bytes,
        mode: metadata.permissions().mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        identity: Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
        },
    })
}

/// The refusal of a link, with what it leads to.
fn link(path: &Path) -> FileError {
    let aim = || {
        let target = fs::read_link(path).ok()?;
        Some(path.parent()?.join(target))
    };
    FileError::Link {
        path: path.to_owned(),
        target: fs::canonicalize(path).ok().or_else(aim),
    }
}

/// The path with the links among its folders resolved, so that nobody can turn them meanwhile.
fn resolve(path: &Path) -> Result<PathBuf, FileError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => FileError::Missing {
            path: path.to_owned(),
        },
        _ => FileError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let (Some(named), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FileError::NotRegular {
            path: path.to_owned(),
        });
    };
    let folder = fs::canonicalize(named).map_err(unreadable)?;
    if folder != named {
        let mode = fs::metadata(&folder).map_err(unreadable)?.permissions().mode();
        if mode & 0o002 != 0 {
            return Err(FileError::LinkToOpenFolder {
                path: path.to_owned(),
                folder,
            });
        }
    }
    Ok(folder.join(name))
}
