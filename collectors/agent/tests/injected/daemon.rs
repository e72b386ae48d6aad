//! A stand-in for the daemon: it takes the ring, reads it, and adds up what it finds.
#![expect(unsafe_code, reason = "maps the ring")]

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_trace::wire::ring::{Next, Reader};
use plimsoll_trace::wire::{Frame, HELLO_LENGTH, Hello, LossReason, State, Tell};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Listens where agents are told to connect.
pub(crate) struct Daemon {
    folder: TempDir,
    listener: UnixListener,
}

impl Daemon {
    pub(crate) fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The next agent that connects.
    pub(crate) fn accept(&self) -> Agent {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; HELLO_LENGTH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&stream, &mut slices, &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(received.bytes, HELLO_LENGTH);
        let files = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let length = Hello::from_bytes(&bytes).unwrap().bytes as usize;
        // SAFETY: a new mapping, used as atomic words alone, which is never unmapped.
        let words = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let start = mmap(
                std::ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                files.unwrap(),
                0,
            );
            std::slice::from_raw_parts(start.unwrap().cast::<AtomicU64>(), length / 8)
        };
        Agent {
            stream,
            ring: Reader::open(words).unwrap(),
            words,
            frames: Vec::new(),
        }
    }
}

/// One agent's ring and connection, and all that it told.
pub(crate) struct Agent {
    stream: UnixStream,
    ring: Reader<'static>,
    words: &'static [AtomicU64],
    pub(crate) frames: Vec<Frame>,
}

/// Count and total time.
pub(crate) type Sum = (u64, u64);

impl Agent {
    /// Reads what there is.
    pub(crate) fn read(&mut self) {
        let mut bytes = Vec::new();
        loop {
            match self.ring.next(&mut bytes) {
                Next::Frame(kind) => self.frames.push(Frame::decode(kind, &bytes).unwrap().unwrap()),
                Next::Empty => return,
                Next::Garbage => panic!("the ring makes no sense"),
            }
        }
    }

    /// Waits until so many words are in the ring, and leaves them there.
    pub(crate) fn wait_unread(&self, words: u64) {
        let began = Instant::now();
        // Where the writer is and where the reader is, as the ring's layout says.
        let at = |word: usize| self.words[word].load(Ordering::Acquire);
        while at(8) - at(16) < words {
            assert!(began.elapsed() < PATIENCE, "nothing more was written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads until something was told.
    pub(crate) fn read_until(&mut self, what: &str, found: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            self.read();
            if found(self) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what} was not told in {:#?}",
                self.frames
            );
            // A ring wakes nobody.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads until the process has ended.
    pub(crate) fn read_to_end(&mut self) {
        let mut rest = Vec::new();
        // An end by SIGKILL may come as an error.
        self.stream.read_to_end(&mut rest).ok();
        self.read();
    }

    pub(crate) fn tell(&mut self, tell: Tell) {
        self.stream.write_all(&[tell.to_byte()]).unwrap();
    }

    /// The frames that a function takes something from.
    pub(crate) fn each<'a, T: 'a>(
        &'a self,
        take: impl Fn(&'a Frame) -> Option<T> + 'a,
    ) -> impl Iterator<Item = T> {
        self.frames.iter().filter_map(take)
    }

    pub(crate) fn names(&self) -> BTreeMap<u32, String> {
        self.each(named).collect()
    }

    /// Kernels by name. A number stands for the name that was told last; what was said before any, for the first.
    pub(crate) fn kernels(&self) -> BTreeMap<String, Sum> {
        let mut names = self.names();
        for frame in self.frames.iter().rev() {
            names.extend(named(frame));
        }
        let mut sums = BTreeMap::<String, Sum>::new();
        for frame in &self.frames {
            names.extend(named(frame));
            let Frame::Kernels(kernels) = frame else { continue };
            for stat in &kernels.stats {
                let sum = sums.entry(names[&stat.name].clone()).or_default();
                *sum = (sum.0 + stat.count, sum.1 + stat.total_ns);
                assert_eq!(
                    stat.buckets.iter().map(|(_, count)| count).sum::<u64>(),
                    stat.count
                );
            }
        }
        sums
    }

    pub(crate) fn launches(&self) -> u64 {
        let stats = self.each(|frame| match frame {
            Frame::Kernels(kernels) => Some(&kernels.stats),
            _ => None,
        });
        stats.flatten().map(|stat| stat.count).sum()
    }

    pub(crate) fn lost(&self, wanted: LossReason) -> u64 {
        self.each(|frame| match frame {
            Frame::Loss { reason, count } if *reason == wanted => Some(*count),
            _ => None,
        })
        .sum()
    }

    pub(crate) fn states(&self) -> Vec<(State, &str)> {
        self.each(|frame| match frame {
            Frame::State { state, message } => Some((*state, message.as_str())),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn is(&self, state: State) -> bool {
        self.states().last().is_some_and(|(last, _)| *last == state)
    }
}

fn named(frame: &Frame) -> Option<(u32, String)> {
    match frame {
        Frame::Name { id, name } => Some((*id, String::from_utf8_lossy(name).into_owned())),
        _ => None,
    }
}
