//! What came out of an exchange, and who may still write to it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::lease::{Asked, Lease};
use super::place::Place;
use super::{FileError, Identity, Snapshot, snapshot, writers};

/// So long after the exchange a program may still come to the old file: it had looked its name up before, and is inside the
/// very call of opening it. That takes a microsecond, and longer only for a program that lost its processor there.
const OPENED_WITHIN: Duration = Duration::from_millis(20);

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
}
