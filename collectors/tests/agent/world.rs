//! A collector that delivers into a list, and an agent made of the writing side of a ring.
#![expect(unsafe_code, reason = "the ring's memory is shared, as a real agent's is")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use plimsoll_collectors::{AgentDesk, AgentId, AgentReport, Agents, Collector, Peer, Progress};
use plimsoll_trace::wire::ring::{HEADER_WORDS, MOST_BYTES, Writer};
use plimsoll_trace::wire::{Clock, Frame, Hello, KernelStats, Kernels, Process, VERSION};
use plimsoll_trace::{Record, RunId, Stamp, TraceTier, Work, sketch};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// No wait in a test is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The smallest ring.
pub(crate) const RING_BYTES: usize = (HEADER_WORDS + MOST_BYTES / 4) * 8;

/// A collector and what it delivered.
pub(crate) struct World {
    pub(crate) agents: Agents,
    reports: Arc<(Mutex<Vec<AgentReport>>, Condvar)>,
    pub(crate) room: Arc<AtomicUsize>,
    /// Whether what is delivered is taken in; otherwise it is thrown away.
    pub(crate) takes: Arc<AtomicBool>,
    /// How many deliveries are stored.
    pub(crate) stored: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new() -> Self {
        let reports = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let room = Arc::new(AtomicUsize::new(usize::MAX));
        let deliveries = Arc::new(AtomicU64::new(0));
        let takes = Arc::new(AtomicBool::new(true));
        let stored = Arc::new(AtomicU64::new(u64::MAX));
        let agents = Agents::spawn(
            Arc::new({
                let reports = Arc::clone(&reports);
                let (deliveries, takes) = (Arc::clone(&deliveries), Arc::clone(&takes));
                move |report| {
                    if !takes.load(Ordering::Relaxed) {
                        return false;
                    }
                    deliveries.fetch_add(1, Ordering::Relaxed);
                    reports.0.lock().unwrap().push(report);
                    reports.1.notify_all();
                    true
                }
            }),
            Arc::new({
                let room = Arc::clone(&room);
                move || room.load(Ordering::Relaxed)
            }),
            Arc::new({
                let (deliveries, stored) = (Arc::clone(&deliveries), Arc::clone(&stored));
                move || Progress {
                    taken_in: deliveries.load(Ordering::Relaxed),
                    stored: stored.load(Ordering::Relaxed),
                }
            }),
        );
        Self {
            agents: agents.unwrap(),
            reports,
            room,
            takes,
            stored,
        }
    }

    pub(crate) fn desk(&self) -> AgentDesk {
        self.agents.desk()
    }

    /// Waits until a report is found, and answers with what was found in it.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut found: impl FnMut(&[AgentReport]) -> Option<T>) -> T {
        let began = Instant::now();
        let mut reports = self.reports.0.lock().unwrap();
        loop {
            if let Some(found) = found(&reports) {
                return found;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain for {what}: {reports:?}"
            );
            reports = self.reports.1.wait_timeout(reports, PATIENCE).unwrap().0;
        }
    }

    /// Waits for the agents that arrived, so many of them.
    pub(crate) fn arrived(&self, count: usize) -> Vec<AgentId> {
        self.wait("arrivals", |reports| {
            let arrived: Vec<AgentId> = reports
                .iter()
                .filter_map(|report| match report {
                    AgentReport::Arrived(arrival) => Some(arrival.agent),
                    _ => None,
                })
                .collect();
            (arrived.len() == count).then_some(arrived)
        })
    }

    /// Connects an agent and binds it to a run.
    pub(crate) fn agent(&self, run: i64) -> FakeAgent {
        let before = self.wait("the arrivals so far", |reports| {
            Some(
                reports
                    .iter()
                    .filter(|report| matches!(report, AgentReport::Arrived(_)))
                    .count(),
            )
        });
        let agent = FakeAgent::connect(&self.desk());
        let arrived = self.arrived(before + 1);
        self.desk().bind(arrived[before], RunId(run));
        agent
    }

    /// Waits until all that agents have written is delivered.
    pub(crate) fn flush(&self) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.desk().flush(false, move || done.send(()).unwrap());
        is_done.recv_timeout(PATIENCE).expect("flushed");
    }

    pub(crate) fn tick(&mut self) {
        self.agents.tick(Stamp::now());
    }

    /// Everything that was delivered so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        let reports = self.reports.0.lock().unwrap();
        let records = reports.iter().filter_map(|report| match report {
            AgentReport::Work(batch) => Some(batch.records.clone()),
            _ => None,
        });
        records.flatten().collect()
    }

    /// Count and total of a kernel so far.
    pub(crate) fn total(&self, name: &str) -> (u64, u64) {
        self.records()
            .iter()
            .fold((0, 0), |(count, total), record| match record {
                Record::Traced(traced) => match &traced.work {
                    Work::Kernels(window) if &*window.name == name => {
                        (count + window.count, total + window.total_ns)
                    }
                    _ => (count, total),
                },
                _ => (count, total),
            })
    }

    /// How much was lost so far for a reason.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        let count = |record: &Record| match record {
            Record::Loss(loss) if loss.source == "agent" && loss.reason == reason => loss.count,
            _ => 0,
        };
        self.records().iter().map(count).sum()
    }

    pub(crate) fn wait_lost(&self, reason: &str, count: u64) {
        let began = Instant::now();
        while self.lost(reason) < count {
            assert!(began.elapsed() < PATIENCE, "{reason}: {:?}", self.records());
            let reports = self.reports.0.lock().unwrap();
            drop(
                self.reports
                    .1
                    .wait_timeout(reports, Duration::from_millis(50))
                    .unwrap(),
            );
        }
        assert_eq!(self.lost(reason), count, "{reason}");
    }
}

/// The memory of a ring.
pub(crate) struct Ring {
    pub(crate) descriptor: OwnedFd,
    pub(crate) words: &'static [AtomicU64],
}

impl Ring {
    pub(crate) fn new(bytes: usize, seals: SealFlags) -> Self {
        let descriptor = memfd_create(c"ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&descriptor, bytes as u64).unwrap();
        let memory = Box::leak(Box::new(MmapRaw::map_raw(&descriptor).unwrap()));
        fcntl_add_seals(&descriptor, seals).unwrap();
        // SAFETY: mapped for good, page-aligned, and of this size for good as far as this process is concerned.
        let words = unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<AtomicU64>(), bytes / 8) };
        Self { descriptor, words }
    }

    /// A sealed one.
    pub(crate) fn sealed() -> Self {
        Self::new(RING_BYTES, SealFlags::SHRINK | SealFlags::GROW)
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            bytes: u32::try_from(self.words.len() * 8).unwrap(),
        }
    }
}

/// This process, as the socket would say.
pub(crate) fn own() -> Peer {
    Peer {
        pid: Some(std::process::id()),
        uid: rustix::process::getuid().as_raw(),
    }
}

/// A connection that the collector has been given.
pub(crate) fn connection(desk: &AgentDesk) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    desk.take(theirs, own());
    ours
}

/// Sends bytes and descriptors in one message.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// An agent as it should be.
pub(crate) struct FakeAgent {
    pub(crate) stream: UnixStream,
    pub(crate) ring: Ring,
    pub(crate) writer: Writer<'static>,
    buffer: Vec<u8>,
}

impl FakeAgent {
    pub(crate) fn connect(desk: &AgentDesk) -> Self {
        let ring = Ring::sealed();
        let writer = Writer::create(ring.words).unwrap();
        let stream = connection(desk);
        send(&stream, &ring.hello().to_bytes(), &[ring.descriptor.as_fd()]);
        Self {
            stream,
            ring,
            writer,
            buffer: Vec::new(),
        }
    }

    /// The same agent with another connection, as after a restart of the daemon.
    pub(crate) fn reconnect(&mut self, desk: &AgentDesk) {
        self.stream = connection(desk);
        send(
            &self.stream,
            &self.ring.hello().to_bytes(),
            &[self.ring.descriptor.as_fd()],
        );
    }

    /// Says something; whether the ring had room.
    pub(crate) fn tell(&mut self, frame: &Frame) -> bool {
        let kind = frame.encode(&mut self.buffer);
        self.writer.append(kind, &self.buffer)
    }

    /// Says who it is, the time, the device 0, and names from 0 on.
    pub(crate) fn introduce(&mut self, names: &[&str]) {
        assert!(self.tell(&Frame::Process(Process {
            pid: 1,
            tier: TraceTier::Graph,
            cupti: Some(18),
            flush_ms: 1_000,
            rank: Some(3),
            local_rank: None,
            visible_devices: "0".into(),
            exe: "/usr/bin/fake".into(),
            budget_ppm: Some(10_000),
        })));
        assert!(self.tell(&clock_now()));
        assert!(self.tell(&Frame::Device {
            index: 0,
            uuid: [0xab; 16],
        }));
        for (id, name) in (0..).zip(names) {
            assert!(self.tell(&Frame::Name {
                id,
                name: name.as_bytes().to_vec(),
            }));
        }
    }
}

/// A reading of clocks of which CUPTI's is Unix time.
pub(crate) fn clock_now() -> Frame {
    let now = Stamp::now();
    let unix = u64::try_from(now.unix_ns).unwrap();
    Frame::Clock(Clock {
        cupti_ns: unix,
        monotonic_ns: u64::try_from(now.mono_ns).unwrap(),
        realtime_ns: unix,
    })
}

/// Launches of kernel `name` on device 0 that all lasted as long, in the second that ends now.
pub(crate) fn kernels(name: u32, count: u64, each_ns: u64) -> Frame {
    let end_ns = u64::try_from(Stamp::now().unix_ns).unwrap();
    Frame::Kernels(Kernels {
        start_ns: end_ns - 1_000_000_000,
        end_ns,
        stats: vec![KernelStats {
            name,
            device: 0,
            count,
            total_ns: count * each_ns,
            min_ns: each_ns,
            max_ns: each_ns,
            buckets: vec![(sketch::bucket(each_ns), count)],
        }],
    })
}
