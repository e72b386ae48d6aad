//! The connection to the daemon. Nothing here waits: a daemon that is not there, or does nothing, costs a failed call now
//! and then.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use plimsoll_trace::wire::Tell;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};

use crate::descriptor::Descriptor;
use crate::ship::Ship;

const FIRST_WAIT_NS: u64 = 1_000_000_000;
const LONGEST_WAIT_NS: u64 = 60_000_000_000;
/// A connection that lasts so long was wanted. One that is closed at once is tried again as seldom as one that fails.
const LASTING_NS: u64 = 10_000_000_000;

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Connection {
    path: PathBuf,
    socket: Option<Descriptor>,
    connected_ns: u64,
    next_try_ns: u64,
    wait_ns: u64,
}

/// What tending the connection brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// A daemon has just been told about the ring.
    pub(crate) is_new: bool,
    /// What it says.
    pub(crate) told: Vec<Tell>,
}

impl Connection {
    pub(crate) fn to(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            socket: None,
            connected_ns: 0,
            next_try_ns: 0,
            wait_ns: FIRST_WAIT_NS,
        }
    }

    /// Connects if it is time to, and reads what the daemon says.
    pub(crate) fn tend(&mut self, now_ns: u64, ship: &Ship) -> News {
        let mut news = News::default();
        if self.socket.is_none() && now_ns >= self.next_try_ns {
            self.socket = self.connect(ship);
            news.is_new = self.socket.is_some();
            if news.is_new {
                self.connected_ns = now_ns;
            } else {
                self.put_off(now_ns);
            }
        }
        if let Some(socket) = &self.socket
            && !listen(socket, &mut news.told)
        {
            self.socket = None;
            if now_ns.saturating_sub(self.connected_ns) >= LASTING_NS {
                self.wait_ns = FIRST_WAIT_NS;
            }
            self.put_off(now_ns);
        }
        news
    }

    fn put_off(&mut self, now_ns: u64) {
        self.next_try_ns = now_ns.saturating_add(self.wait_ns);
        self.wait_ns = (self.wait_ns * 2).min(LONGEST_WAIT_NS);
    }

    fn connect(&self, ship: &Ship) -> Option<Descriptor> {
        let (hello, memory) = ship.introduction()?;
        let address = SocketAddrUnix::new(&self.path).ok()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            Descriptor::new(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?)?;
        // A full queue of connections answers at once, like one that nobody listens to.
        connect(socket.file()?, &address).ok()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let memory = [memory.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&memory)) {
            return None;
        }
        let bytes = hello.to_bytes();
        let sent = sendmsg(
            socket.file()?,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .ok()?;
        (sent == bytes.len()).then_some(socket)
    }
}

/// Reads what the daemon says; `false` when it is gone.
fn listen(socket: &Descriptor, told: &mut Vec<Tell>) -> bool {
    let Some(socket) = socket.file() else { return false };
    let mut bytes = [0; 64];
    match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) => false,
        Ok((length, _)) => {
            told.extend(bytes[..length].iter().copied().filter_map(Tell::from_byte));
            true
        }
        Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use plimsoll_trace::wire::{HELLO_LENGTH, Hello};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};

    use super::*;

    #[test]
    fn a_daemon_that_comes_and_goes_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let ship = Ship::create(0).unwrap();
        let mut connection = Connection::to(&path);
        let mut waits = Vec::new();
        assert_eq!(connection.tend(0, &ship), News::default());

        let listener = UnixListener::bind(&path).unwrap();
        assert!(
            !connection.tend(1, &ship).is_new,
            "it waits before it tries again"
        );
        assert!(connection.tend(FIRST_WAIT_NS, &ship).is_new);
        let (mut daemon, _) = listener.accept().unwrap();
        let mut bytes = [0; HELLO_LENGTH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&daemon, &mut slices, &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(received.bytes, HELLO_LENGTH);
        let files: Vec<_> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        let hello = Hello::from_bytes(&bytes).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            rustix::fs::fstat(&files[0]).unwrap().st_size,
            i64::from(hello.bytes)
        );

        daemon.write_all(b"wy?").unwrap();
        let news = connection.tend(FIRST_WAIT_NS, &ship);
        assert_eq!(
            (news.is_new, &news.told[..]),
            (false, &[Tell::Window, Tell::Yield][..])
        );
        drop(daemon);
        let mut now = LASTING_NS + FIRST_WAIT_NS;
        assert_eq!(connection.tend(now, &ship), News::default());
        now += FIRST_WAIT_NS;
        assert!(connection.tend(now, &ship).is_new);

        // One that is refused each time comes back less and less often.
        for _ in 0..8 {
            drop(listener.accept().unwrap());
            assert!(!connection.tend(now, &ship).is_new);
            let before = now;
            while !connection.tend(now, &ship).is_new {
                now += FIRST_WAIT_NS;
            }
            waits.push((now - before) / FIRST_WAIT_NS);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_daemon_that_never_accepts_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let ship = Ship::create(0).unwrap();
        let mut connection = Connection::to(&path);
        assert!(connection.tend(0, &ship).is_new);
        for now in 1..100 {
            assert_eq!(connection.tend(now, &ship), News::default());
        }
    }
}
