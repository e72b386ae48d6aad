//! One name in one folder, and what can be done with it.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::{FileError, Snapshot, read};

/// The folder and the name in it.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) directory: Locked,
}

/// What the exchange did.
pub(super) enum Exchange {
    /// The files changed places.
    Both,
    /// The filesystem cannot do that: the new file replaced the old one.
    OneWay,
}

impl Place {
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self, FileError> {
        let path = snapshot.path.clone();
        let not_a_file = || FileError::NotRegular { path: path.clone() };
        let folder = path.parent().ok_or_else(not_a_file)?.to_owned();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(not_a_file)?
            .to_owned();
        let directory = Locked::folder(&folder)?;
        Ok(Self {
            path,
            folder,
            name,
            directory,
        })
    }

    pub(super) fn step(&self, step: &'static str) -> impl Fn(Errno) -> FileError {
        let path = self.path.clone();
        move |error| FileError::Step {
            path: path.clone(),
            step,
            source: error.into(),
        }
    }

    /// Root may write everywhere; a file without a single write bit is still its author's word that it stays.
    pub(super) fn permitted(&self, snapshot: &Snapshot) -> Result<(), FileError> {
        for (path, access) in [
            (&self.path, Access::WRITE_OK),
            (&self.folder, Access::WRITE_OK | Access::EXEC_OK),
        ] {
            let metadata = fs::metadata(path).map_err(|source| FileError::Unreadable {
                path: path.clone(),
                source,
            })?;
            let allowed = rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS);
            if metadata.mode() & 0o222 == 0 || allowed.is_err() {
                return Err(FileError::ReadOnly { path: path.clone() });
            }
            if metadata.is_file() && metadata.nlink() > 1 {
                return Err(FileError::HardLinked { path: path.clone() });
            }
        }
        self.unchanged(snapshot)
    }

    pub(super) fn unchanged(&self, snapshot: &Snapshot) -> Result<(), FileError> {
        let same = |now: &Snapshot| {
            (now.mode, now.uid, now.gid) == (snapshot.mode, snapshot.uid, snapshot.gid)
                && (&now.path, &now.hash) == (&snapshot.path, &snapshot.hash)
        };
        match read(&self.path) {
            Ok(now) if same(&now) => Ok(()),
            Ok(_)
            | Err(FileError::Missing { .. } | FileError::NotRegular { .. } | FileError::Link { .. }) => {
                Err(FileError::ChangedMeanwhile {
                    path: self.path.clone(),
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn exchange(&self, draft: &str) -> Result<Exchange, FileError> {
        let rename =
            |flags| rustix::fs::renameat_with(&self.directory, draft, &self.directory, &self.name, flags);
        let renamed = match rename(RenameFlags::EXCHANGE) {
            Ok(()) => Ok(Exchange::Both),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rename(RenameFlags::empty()).map(|()| Exchange::OneWay)
            }
            Err(error) => Err(error),
        };
        renamed.map_err(|error| match error {
            Errno::BUSY | Errno::XDEV => FileError::Mounted {
                path: self.path.clone(),
            },
            Errno::NOENT => FileError::ChangedMeanwhile {
                path: self.path.clone(),
            },
            Errno::ROFS | Errno::PERM | Errno::ACCESS => FileError::ReadOnly {
                path: self.path.clone(),
            },
            error => self.step("put the new file in place")(error),
        })
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), FileError> {
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())
            .map_err(self.step("remove our own file"))
    }

    /// After the exchange nothing may fail any more: what cannot be removed now goes at the next start.
    pub(super) fn tidy(&self, draft: &str) {
        if let Err(error) = self.remove(draft) {
            tracing::warn!("{error}: {:?}", std::error::Error::source(&error));
        }
        self.sync();
    }

    /// So that what was renamed is renamed after a power cut, too.
    pub(super) fn sync(&self) {
        if let Err(error) = rustix::fs::fsync(&self.directory) {
            tracing::warn!(
                "cannot write the folder {} to the disk: {error}",
                self.folder.display()
            );
        }
    }
}

/// So long another of us is waited for: engines may have their files in one folder, and a replacement takes
/// milliseconds, or a second where somebody has the file open.
const LOCKED_FOR: Duration = Duration::from_secs(3);

/// A folder that all others of us keep out of, in this process and in others, until this is dropped or the process ends.
///
/// It is given back by word, not by closing: a process that is just being started holds a copy of each of our
/// descriptors until it becomes another program.
pub(super) struct Locked(File);

impl Locked {
    pub(super) fn folder(folder: &Path) -> Result<Self, FileError> {
        let unreadable = |source| FileError::Unreadable {
            path: folder.to_owned(),
            source,
        };
        let directory = File::open(folder).map_err(unreadable)?;
        let deadline = Instant::now() + LOCKED_FOR;
        loop {
            return match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                // Some network filesystems have no locks.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL) => {
                    Ok(Self(directory))
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(Errno::WOULDBLOCK) => Err(FileError::Locked {
                    folder: folder.to_owned(),
                }),
                Err(error) => Err(FileError::Step {
                    path: folder.to_owned(),
                    step: "lock the folder",
                    source: error.into(),
                }),
            };
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::NonBlockingUnlock) {
            tracing::debug!("cannot unlock a folder, closing it will: {error}");
        }
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
