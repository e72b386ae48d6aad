//! Putting new bytes in a file's place.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::leftovers::Name;
use super::{FileError, Identity, Snapshot, hash, read, snapshot, writers};

/// What is in the file's place now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The hash of the new bytes.
    pub hash: String,
    /// The new file.
    pub identity: Identity,
}

/// A moment in [`replace`], for tests that stop there or interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Permitted,
    Drafted,
    Named,
    Checked,
    Exchanged,
    GivingBack,
    Done,
}

/// Puts new bytes in the place of a snapshot's, if the file is still what the snapshot says.
///
/// The new text is written to a file of its own in the same folder, with the old one's mode, owner and extended
/// attributes, and reaches the disk before it gets a name there (`.plimsoll-…`, hidden from engines that list their
/// folder). Then the two files change places in one step (`renameat2` with `RENAME_EXCHANGE`), so at every moment, also
/// that of a crash, the path leads to the old text or to the new one. What came out is compared with the snapshot: if a
/// person saved in the instant between the last check and the exchange, or is still writing, the files change back
/// until the path leads to what they saved last.
///
/// Three limits remain. A program of another user that holds the file open for writing is only seen by root. A filesystem without the
/// exchange (NFS, some FUSE) gets a plain rename, where a person's save in the microseconds after the last check would be
/// replaced. And a program that keeps the path open and writes long after is writing to a file without a name, as with
/// every editor that saves by renaming.
///
/// # Errors
/// [`FileError`]; the file is then as its author left it.
pub fn replace(snapshot: &Snapshot, new: &[u8]) -> Result<Written, FileError> {
    replace_with(snapshot, new, &mut |_| {})
}

pub(super) fn replace_with(
    snapshot: &Snapshot,
    new: &[u8],
    at: &mut dyn FnMut(Step),
) -> Result<Written, FileError> {
    let place = Place::of(snapshot)?;
    place.lock()?;
    place.permitted(snapshot)?;
    at(Step::Permitted);
    let draft = place.draft(snapshot, new)?;
    at(Step::Drafted);
    let written = Written {
        hash: hash(new),
        identity: draft.identity,
    };
    let draft_name = draft.named(&place, snapshot, &written)?;
    at(Step::Named);
    let outcome = place.unchanged(snapshot).and_then(|()| {
        at(Step::Checked);
        place.exchange(&draft_name)
    });
    match outcome {
        Ok(Exchange::Both) => {}
        Ok(Exchange::OneWay) => {
            place.sync();
            at(Step::Done);
            return Ok(written);
        }
        Err(error) => {
            place.remove(&draft_name)?;
            return Err(error);
        }
    }
    at(Step::Exchanged);
    let held = place.look_at(&draft_name);
    // Nobody can reach it by its path any more, so without a writer it is final.
    if held.writer.is_some() || held.hash.as_ref() != Some(&snapshot.hash) {
        at(Step::GivingBack);
        return Err(place.give_back(&draft_name, &written, held));
    }
    place.tidy(&draft_name);
    at(Step::Done);
    Ok(written)
}

/// The folder and the name in it.
struct Place {
    path: PathBuf,
    folder: PathBuf,
    name: String,
    directory: File,
}

/// What the exchange did.
enum Exchange {
    /// The files changed places.
    Both,
    /// The filesystem cannot do that: the new file replaced the old one.
    OneWay,
}

/// What came out of an exchange.
#[derive(PartialEq, Eq)]
struct Held {
    /// Unknown when it is gone.
    identity: Option<Identity>,
    /// Unknown when it is no file, or cannot be read: then it is not ours.
    hash: Option<String>,
    /// A process that can still write to it.
    writer: Option<u32>,
}

impl Place {
    fn of(snapshot: &Snapshot) -> Result<Self, FileError> {
        let path = snapshot.path.clone();
        let not_a_file = || FileError::NotRegular { path: path.clone() };
        let folder = path.parent().ok_or_else(not_a_file)?.to_owned();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(not_a_file)?
            .to_owned();
        let directory = File::open(&folder).map_err(|source| FileError::Unreadable {
            path: folder.clone(),
            source,
        })?;
        Ok(Self {
            path,
            folder,
            name,
            directory,
        })
    }

    fn step(&self, step: &'static str) -> impl Fn(Errno) -> FileError {
        let path = self.path.clone();
        move |error| FileError::Step {
            path: path.clone(),
            step,
            source: error.into(),
        }
    }

    /// Held until the directory is closed, by crash or return.
    fn lock(&self) -> Result<(), FileError> {
        lock(&self.directory, &self.folder)
    }

    /// Root may write everywhere; a file without a single write bit is still its author's word that it stays.
    fn permitted(&self, snapshot: &Snapshot) -> Result<(), FileError> {
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

    fn unchanged(&self, snapshot: &Snapshot) -> Result<(), FileError> {
        let same = |now: &Snapshot| {
            (now.mode, now.uid, now.gid) == (snapshot.mode, snapshot.uid, snapshot.gid)
                && (&now.path, &now.hash) == (&snapshot.path, &snapshot.hash)
        };
        match read(&self.path) {
            Ok(now) if same(&now) => Ok(()),
            Ok(_) | Err(FileError::Missing { .. } | FileError::NotRegular { .. }) => {
                Err(FileError::ChangedMeanwhile {
                    path: self.path.clone(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The new text as a complete file, on the disk, without a name where the filesystem can do that.
    fn draft(&self, snapshot: &Snapshot, new: &[u8]) -> Result<Draft, FileError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let nameless = rustix::fs::openat(&self.directory, ".", flags | OFlags::TMPFILE, private);
        let (file, name) = match nameless {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let name = Name::part();
                let create = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(&self.directory, &name, create, private);
                (file.map_err(self.step("create a file"))?, Some(name))
            }
            Err(error) => return Err(self.step("create a file")(error)),
        };
        let mut file = File::from(file);
        let filled = self.fill(&mut file, snapshot, new);
        let metadata = filled.and_then(|()| {
            file.metadata().map_err(|source| FileError::Step {
                path: self.path.clone(),
                step: "write",
                source,
            })
        });
        match metadata {
            Ok(metadata) => {
                let identity = Identity {
                    dev: metadata.dev(),
                    ino: metadata.ino(),
                };
                Ok(Draft { file, name, identity })
            }
            Err(error) => {
                if let Some(name) = name {
                    self.remove(&name)?;
                }
                Err(error)
            }
        }
    }

    fn fill(&self, file: &mut File, snapshot: &Snapshot, new: &[u8]) -> Result<(), FileError> {
        let step = |step| {
            move |source| FileError::Step {
                path: self.path.clone(),
                step,
                source,
            }
        };
        let kept = |what| {
            move |error: Errno| FileError::Attributes {
                path: self.path.clone(),
                what,
                source: error.into(),
            }
        };
        file.write_all(new).map_err(step("write the new text"))?;
        let (uid, gid) = (Uid::from_raw(snapshot.uid), Gid::from_raw(snapshot.gid));
        rustix::fs::fchown(&*file, Some(uid), Some(gid)).map_err(kept("owner"))?;
        copy_attributes(&self.path, file).map_err(kept("extended attributes"))?;
        // After the owner, whose change clears the set-id bits.
        rustix::fs::fchmod(&*file, Mode::from_raw_mode(snapshot.mode)).map_err(kept("mode"))?;
        file.sync_all().map_err(step("write the new text to the disk"))
    }

    fn exchange(&self, draft: &str) -> Result<Exchange, FileError> {
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

    fn look_at(&self, name: &str) -> Held {
        let metadata = fs::symlink_metadata(self.folder.join(name));
        let identity = metadata.ok().map(|metadata| Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
        });
        // First who may still write, then what is there: the other way round, a write between the two went unseen.
        let writer = identity.and_then(|identity| writers::find(identity, name));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty()).ok();
        let held = file.and_then(|file| snapshot(File::from(file), self.folder.join(name)).ok());
        Held {
            identity,
            hash: held.map(|held| held.hash),
            writer,
        }
    }

    /// The file that came out of the exchange has a person's edit in it. It goes back to its path; and if meanwhile the
    /// person saved once more, over our text, that goes back instead.
    fn give_back(&self, draft: &str, ours: &Written, mut held: Held) -> FileError {
        let error = match held.writer {
            Some(pid) => FileError::BeingWritten {
                path: self.path.clone(),
                pid,
            },
            None => FileError::ChangedMeanwhile {
                path: self.path.clone(),
            },
        };
        let mut in_place = Held {
            identity: Some(ours.identity),
            hash: Some(ours.hash.clone()),
            writer: None,
        };
        for _ in 0..64 {
            // Without a file to change places with, the person has taken the path away.
            let Ok(Exchange::Both) = self.exchange(draft) else {
                break;
            };
            let out = self.look_at(draft);
            if out == in_place {
                self.tidy(draft);
                return error;
            }
            in_place = Held { writer: None, ..held };
            held = out;
        }
        let step = |source| FileError::Step {
            path: self.path.clone(),
            step: "keep the other text",
            source,
        };
        match super::leftovers::keep(&self.directory, &self.folder, draft, &self.name) {
            Ok(kept) => FileError::Contended {
                path: self.path.clone(),
                kept,
            },
            Err(source) => step(source),
        }
    }

    fn remove(&self, name: &str) -> Result<(), FileError> {
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())
            .map_err(self.step("remove our own file"))
    }

    /// After the exchange nothing may fail any more: what cannot be removed now goes at the next start.
    fn tidy(&self, draft: &str) {
        if let Err(error) = self.remove(draft) {
            tracing::warn!("{error}: {:?}", std::error::Error::source(&error));
        }
        self.sync();
    }

    /// So that what was renamed is renamed after a power cut, too.
    fn sync(&self) {
        if let Err(error) = rustix::fs::fsync(&self.directory) {
            tracing::warn!(
                "cannot write the folder {} to the disk: {error}",
                self.folder.display()
            );
        }
    }
}

/// Among Plimsoll's own processes.
pub(super) fn lock(directory: &File, folder: &Path) -> Result<(), FileError> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        // Some network filesystems have no locks.
        Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(FileError::Locked {
            folder: folder.to_owned(),
        }),
        Err(error) => Err(FileError::Step {
            path: folder.to_owned(),
            step: "lock the folder",
            source: error.into(),
        }),
    }
}

/// The new file before it is in place.
struct Draft {
    file: File,
    name: Option<String>,
    identity: Identity,
}

impl Draft {
    /// Gives the complete file a name that says what it is, should we never come back to it.
    fn named(self, place: &Place, old: &Snapshot, new: &Written) -> Result<String, FileError> {
        let name = Name::complete(&old.hash, &new.hash, &place.name);
        let named = match &self.name {
            Some(part) => rustix::fs::renameat(&place.directory, part, &place.directory, &name),
            None => {
                let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, nameless, &place.directory, &name, AtFlags::SYMLINK_FOLLOW)
            }
        };
        if let (Err(_), Some(part)) = (&named, &self.name) {
            place.remove(part)?;
        }
        named.map_err(place.step("name our own file"))?;
        Ok(name)
    }
}

/// Access lists, security labels and what else hangs on a file.
fn copy_attributes(from: &Path, to: &File) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::listxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error),
    };
    names.truncate(length);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::getxattr(from, &name, &mut value[..])?;
        value.truncate(length);
        let mut present = vec![0_u8; 64 * 1024];
        let same = rustix::fs::fgetxattr(to, &name, &mut present[..])
            .is_ok_and(|length| present.get(..length) == Some(&value[..]));
        if !same {
            rustix::fs::fsetxattr(to, &name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
