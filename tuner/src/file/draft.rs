//! The new text before it is in place.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::leftovers::Name;
use super::place::Place;
use super::replace::Written;
use super::{FileError, Identity, Snapshot};

/// The new file before it is in place.
pub(super) struct Draft {
    file: File,
    name: Option<String>,
    pub(super) identity: Identity,
}

impl Draft {
    /// Gives the complete file a name that says what it is, should we never come back to it.
    pub(super) fn named(self, place: &Place, old: &Snapshot, new: &Written) -> Result<String, FileError> {
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

/// The new text as a complete file, on the disk, without a name where the filesystem can do that.
pub(super) fn draft(place: &Place, snapshot: &Snapshot, new: &[u8]) -> Result<Draft, FileError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let nameless = rustix::fs::openat(&place.directory, ".", flags | OFlags::TMPFILE, private);
    let (file, name) = match nameless {
        Ok(file) => (file, None),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let name = Name::part();
            let create = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&place.directory, &name, create, private);
            (file.map_err(place.step("create a file"))?, Some(name))
        }
        Err(error) => return Err(place.step("create a file")(error)),
    };
    let mut file = File::from(file);
    let filled = fill(place, &mut file, snapshot, new);
    let metadata = filled.and_then(|()| {
        file.metadata().map_err(|source| FileError::Step {
            path: place.path.clone(),
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
                place.remove(&name)?;
            }
            Err(error)
        }
    }
}

fn fill(place: &Place, file: &mut File, snapshot: &Snapshot, new: &[u8]) -> Result<(), FileError> {
    let step = |step| {
        move |source| FileError::Step {
            path: place.path.clone(),
            step,
            source,
        }
    };
    let kept = |what| {
        move |error: Errno| FileError::Attributes {
            path: place.path.clone(),
            what,
            source: error.into(),
        }
    };
    file.write_all(new).map_err(step("write the new text"))?;
    let (uid, gid) = (Uid::from_raw(snapshot.uid), Gid::from_raw(snapshot.gid));
    rustix::fs::fchown(&*file, Some(uid), Some(gid)).map_err(kept("owner"))?;
    copy_attributes(&place.path, file).map_err(kept("extended attributes"))?;
    // After the owner, whose change clears the set-id bits.
    rustix::fs::fchmod(&*file, Mode::from_raw_mode(snapshot.mode)).map_err(kept("mode"))?;
    file.sync_all().map_err(step("write the new text to the disk"))
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
