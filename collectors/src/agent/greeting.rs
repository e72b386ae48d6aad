//! The first words of a connection: a hello, and with it the ring's memory.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use plimsoll_trace::Stamp;
use plimsoll_trace::wire::{HELLO_LENGTH, Hello};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::AgentId;
use super::peer::Peer;
use super::refused::Refused;

/// An agent says its hello at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that has not said its whole hello.
#[derive(Debug)]
pub(super) struct Greeting {
    /// The number that the agent will have.
    pub(super) id: AgentId,
    pub(super) stream: UnixStream,
    pub(super) peer: Peer,
    began: Stamp,
    bytes: [u8; HELLO_LENGTH],
    got: usize,
    descriptors: Vec<OwnedFd>,
    /// How many came in all; no more than one is kept.
    came: usize,
}

impl Greeting {
    pub(super) fn new(id: AgentId, stream: UnixStream, peer: Peer, now: Stamp) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            id,
            stream,
            peer,
            began: now,
            bytes: [0; HELLO_LENGTH],
            got: 0,
            descriptors: Vec::new(),
            came: 0,
        })
    }

    /// Reads what has come. `None` while there is more to come.
    pub(super) fn receive(&mut self, now: Stamp) -> Result<Option<(Hello, OwnedFd)>, Refused> {
        while self.got < HELLO_LENGTH {
            // Room for one; the kernel closes what does not fit, but rounds up to two.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut rest = [IoSliceMut::new(&mut self.bytes[self.got..])];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(&self.stream, &mut rest, &mut control, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if now.since(self.began) < PATIENCE => return Ok(None),
                Err(Errno::AGAIN) => return Err(Refused::Cut { got: self.got }),
                Err(error) => return Err(Refused::Socket(error.into())),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    for descriptor in descriptors {
                        self.came += 1;
                        if self.descriptors.is_empty() {
                            self.descriptors.push(descriptor);
                        }
                    }
                }
            }
            if received.bytes == 0 {
                return Err(Refused::Cut { got: self.got });
            }
            self.got += received.bytes;
        }
        let hello = Hello::from_bytes(&self.bytes)?;
        match self.descriptors.pop() {
            Some(ring) if self.came == 1 => Ok(Some((hello, ring))),
            _ => Err(Refused::Descriptors(self.came)),
        }
    }
}
