//! One name in one folder, and what can be done with it.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::lease::{Asked, Lease};
use super::{FileError, Identity, Snapshot, read, snapshot, writers};

/// So long after the exchange a program may still come to the old file: it had looked its name up before, and is inside the
/// very call of opening it. That takes a microsecond, and longer only for a program that lost its processor there.
const OPENED_WITHIN: Duration = Duration::from_millis(20);

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

/// What came out of an exchange.
#[derive(Clone)]
pub(super) struct Held {
    /// Unknown when it is gone.
    pub(super) identity: Option<Identity>,
    /// Unknown when it is no file, or cannot be read: then it is not ours.
    pub(super) text: Option<Snapshot>,
    /// Somebody can still write to it.
    pub(super) written: bool,
    /// Who, if that can be seen.
    pub(super) writer: Option<u32>,
}

impl Held {
    pub(super) fn hash(&self) -> Option<&str> {
        self.text.as_ref().map(|text| text.hash.as_str())
    }

    fn with_writer(self, writer: Option<u32>) -> Self {
        Self {
            written: true,
            writer: writer.or(self.writer),
            ..self
        }
    }
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

    /// A lease on what has this name; `None` where that is not possible.
    ///
    /// # Errors
    /// Somebody had it open for writing for as long as `patience`: they may be about to write, or be a process that is just
    /// being started and holds copies of another's descriptors.
    pub(super) fn lease(&self, name: &str, patience: Duration) -> Result<Option<Lease>, FileError> {
        let began = Instant::now();
        loop {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
            let Ok(file) = rustix::fs::openat(&self.directory, name, flags, Mode::empty()) else {
                return Ok(None);
            };
            match Lease::ask(File::from(file)) {
                Asked::Granted(lease) => return Ok(Some(lease)),
                Asked::Unknown => return Ok(None),
                Asked::BeingWritten if began.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Asked::BeingWritten => {
                    let writer = self.identity(name).and_then(|file| writers::find(file, name));
                    return Err(FileError::BeingWritten {
                        path: self.path.clone(),
                        pid: writer,
                    });
                }
            }
        }
    }

    fn identity(&self, name: &str) -> Option<Identity> {
        let metadata = fs::symlink_metadata(self.folder.join(name)).ok()?;
        Some(Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
        })
    }

    fn text(&self, name: &str) -> Option<Snapshot> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty()).ok()?;
        snapshot(File::from(file), self.folder.join(name)).ok()
    }

    /// What came out of an exchange. With a lease on what had been in place: once nobody can be about to write to it any
    /// more, or at once when somebody is, or when it is another file. Without one: once no writer is seen, or after
    /// `patience`.
    pub(super) fn look_at(&self, name: &str, lease: Option<&Lease>, patience: Duration) -> Held {
        let identity = self.identity(name);
        let leased = lease.filter(|lease| {
            lease.file().metadata().is_ok_and(|metadata| {
                identity
                    == Some(Identity {
                        dev: metadata.dev(),
                        ino: metadata.ino(),
                    })
            })
        });
        let Some(lease) = leased else {
            let expected = lease.is_none();
            return self.look_without_lease(name, if expected { patience } else { Duration::ZERO });
        };
        let began = Instant::now();
        while lease.is_whole() && began.elapsed() < OPENED_WITHIN {
            std::thread::sleep(Duration::from_millis(1));
        }
        let held = Held {
            identity,
            text: self.text(name),
            written: false,
            writer: None,
        };
        if lease.is_whole() {
            held
        } else {
            held.with_writer(None)
        }
    }

    fn look_without_lease(&self, name: &str, patience: Duration) -> Held {
        let began = Instant::now();
        loop {
            let identity = self.identity(name);
            // First who may still write, then what is there: the other way round, a write between the two went unseen.
            let writer = identity.and_then(|identity| writers::find(identity, name));
            let held = Held {
                identity,
                text: self.text(name),
                written: false,
                writer: None,
            };
            if writer.is_none() {
                return held;
            }
            if began.elapsed() >= patience {
                return held.with_writer(writer);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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
