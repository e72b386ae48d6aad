//! The configuration file of an engine, which belongs to the person who wrote it.
//!
//! [`read`] takes a [`Snapshot`]; [`replace`] puts new bytes in its place, in one step that a crash cannot halve, and only
//! if the file is still what the snapshot says. A person who saves the file at the same moment wins, whichever way their
//! editor writes: nothing that they wrote is ever lost. How: see [`replace`].
//!
//! Links are followed once, by [`read`]; what they lead to is what is written, so the link itself stays. A link that leads
//! into a folder in which everybody may write is refused, because others could then choose what is written to.

mod draft;
mod error;
mod leftovers;
mod place;
mod replace;
mod writers;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

pub use error::FileError;
pub use leftovers::{Leftover, clean_leftovers};
pub use replace::{Written, check, replace};

use crate::edit::MAX_BYTES;

/// A file as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it lies, links resolved.
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

/// Reads a file, following links.
///
/// # Errors
/// [`FileError`] when there is none, it is no regular file, cannot be read, is too large to be a configuration, or lies
/// behind a link that others control.
pub fn read(path: &Path) -> Result<Snapshot, FileError> {
    let resolved = resolve(path)?;
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // A pipe would make a plain open wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&resolved, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
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
    let resolved = fs::canonicalize(path).map_err(unreadable)?;
    if !fs::symlink_metadata(&resolved).map_err(unreadable)?.is_file() {
        return Err(FileError::NotRegular { path: resolved });
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let beside = fs::canonicalize(parent).map_err(unreadable)?;
    if let Some(folder) = resolved.parent().filter(|folder| **folder != beside) {
        let mode = fs::metadata(folder).map_err(unreadable)?.permissions().mode();
        if mode & 0o002 != 0 {
            return Err(FileError::LinkToOpenFolder {
                path: path.to_owned(),
                folder: folder.to_owned(),
            });
        }
    }
    Ok(resolved)
}
