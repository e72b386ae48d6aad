//! A lease (fcntl(2), `F_SETLEASE`): the kernel says whether anybody, of any user, has a file open for writing, and makes
//! whoever opens it for writing wait until it is given back. Readers notice nothing.
#![expect(unsafe_code, reason = "rustix has no call for leases")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// `F_SETSIG` of `<fcntl.h>`, the same on every architecture, which libc does not have.
const SET_SIGNAL: libc::c_int = 10;
const READ: libc::c_int = libc::F_RDLCK as libc::c_int;
const NONE: libc::c_int = libc::F_UNLCK as libc::c_int;

/// A file that nobody has open for writing. It ends with this value, or with the process; the kernel ends it by force when
/// somebody has waited for long (`/proc/sys/fs/lease-break-time`, 45 s).
pub(super) struct Lease(File);

/// What came of asking for one.
pub(super) enum Asked {
    Granted(Lease),
    /// Somebody has it open for writing.
    BeingWritten,
    /// The filesystem has no leases, or the file belongs to somebody else and we are not root: nothing is known.
    Unknown,
}

impl Lease {
    /// Asks for one on a file that is open for reading only.
    pub(super) fn ask(file: File) -> Asked {
        // Whoever waits is announced with a signal, SIGIO by default, which would end this process. SIGURG is ignored by
        // default.
        let asked = call(&file, SET_SIGNAL, libc::SIGURG).and_then(|_| call(&file, libc::F_SETLEASE, READ));
        match asked {
            Ok(_) => Asked::Granted(Self(file)),
            Err(Errno::AGAIN) => Asked::BeingWritten,
            Err(_) => Asked::Unknown,
        }
    }

    /// Whether nobody came to write. While this is so, what is in the file has not changed.
    pub(super) fn is_whole(&self) -> bool {
        call(&self.0, libc::F_GETLEASE, 0) == Ok(READ)
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lease {
    /// By word, not by closing: a process that is just being started holds a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(error) = call(&self.0, libc::F_SETLEASE, NONE) {
            tracing::debug!("cannot give a lease back, closing the file will: {error}");
        }
    }
}

fn call(file: &File, command: libc::c_int, argument: libc::c_int) -> Result<libc::c_int, Errno> {
    // SAFETY: these commands take and give numbers only, and the descriptor is open for as long as `file` is borrowed.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if answer < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn a_writer_waits_and_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        fs::write(&path, "x").expect("written");
        let open = || File::open(&path).expect("opened");
        let lease = match Lease::ask(open()) {
            Asked::Granted(lease) => lease,
            Asked::BeingWritten => panic!("nobody writes"),
            // A filesystem without leases.
            Asked::Unknown => return,
        };
        let reader = open();
        assert!(lease.is_whole());
        let impatient = OpenOptions::new()
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        assert_eq!(
            impatient.expect_err("refused").raw_os_error(),
            Some(libc::EWOULDBLOCK)
        );
        assert!(!lease.is_whole());
        drop((lease, reader));
        let writer = OpenOptions::new().append(true).open(&path).expect("opened");
        assert!(matches!(Lease::ask(open()), Asked::BeingWritten));
        drop(writer);
        assert!(matches!(Lease::ask(open()), Asked::Granted(_)));
    }
}
