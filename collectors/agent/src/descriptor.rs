//! File descriptors inside somebody else's process. A program may close all descriptors it finds, and open others that get
//! the same numbers; so each is checked to be still ours before it is used, and closed only if it is.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};

/// So many at most: the ring's memory and the socket.
const MOST: usize = 4;

/// One that is open, for the child of a fork to close.
struct Place {
    is_taken: AtomicBool,
    number: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

static OPEN: [Place; MOST] = [const {
    Place {
        is_taken: AtomicBool::new(false),
        number: AtomicI32::new(-1),
        device: AtomicU64::new(0),
        inode: AtomicU64::new(0),
    }
}; MOST];

/// A descriptor of the agent's.
#[derive(Debug)]
pub(crate) struct Descriptor {
    file: ManuallyDrop<OwnedFd>,
    place: usize,
}

impl Descriptor {
    /// Takes a descriptor; `None` when there are too many, which there never are.
    pub(crate) fn new(file: OwnedFd) -> Option<Self> {
        // From here on it is never closed without a look.
        let file = ManuallyDrop::new(file);
        let (device, inode) = identity(file.as_raw_fd())?;
        let place = OPEN
            .iter()
            .position(|place| !place.is_taken.swap(true, Acquire))?;
        OPEN[place].device.store(device, Relaxed);
        OPEN[place].inode.store(inode, Relaxed);
        OPEN[place].number.store(file.as_raw_fd(), Release);
        Some(Self { file, place })
    }

    /// The file, if the number still stands for it.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        OPEN[self.place].is_ours().then(|| self.file.as_fd())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        OPEN[self.place].close();
        OPEN[self.place].is_taken.store(false, Release);
    }
}

impl Place {
    fn is_ours(&self) -> bool {
        let number = self.number.load(Acquire);
        let known = (self.device.load(Relaxed), self.inode.load(Relaxed));
        number >= 0 && identity(number) == Some(known)
    }

    fn close(&self) {
        if self.is_ours() {
            // SAFETY: the number stands for a file that this crate opened and owns.
            unsafe { libc::close(self.number.load(Relaxed)) };
        }
        self.number.store(-1, Release);
    }
}

/// What a number stands for. Nothing here may not be done in the child of a fork.
fn identity(number: i32) -> Option<(u64, u64)> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: writes to a local of the right type, and only if it succeeds.
    let status = unsafe {
        if libc::fstat(number, status.as_mut_ptr()) != 0 {
            return None;
        }
        status.assume_init()
    };
    Some((status.st_dev, status.st_ino))
}

/// Closes all, in the child of a fork: the ring and the connection are the parent's.
pub(crate) fn close_all() {
    OPEN.iter().for_each(Place::close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_stands_for_another_file_is_left_alone() {
        use rustix::io::dup2;
        let first = tempfile::tempfile().unwrap();
        let other = tempfile::tempfile().unwrap();
        let number = first.as_raw_fd();
        let mut file = ManuallyDrop::new(OwnedFd::from(first));
        let ours = Descriptor::new(rustix::io::dup(&*file).unwrap()).unwrap();
        assert!(ours.file().is_some());
        drop(ours);
        // The program puts another file where ours was.
        // SAFETY: the number is this test's own, and from here on stands for the other file.
        let again = Descriptor::new(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }).unwrap();
        dup2(&other, &mut file).unwrap();
        assert!(again.file().is_none());
        drop(again);
        assert!(identity(number).is_some(), "it was closed");
        drop(ManuallyDrop::into_inner(file));
    }
}
