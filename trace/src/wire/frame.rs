//! The frames. Times are CUPTI's clock in ns unless said otherwise; [`Clock`] tells how it lies to the others. Devices are
//! the process's own numbers; [`Frame::Device`] tells which UUID each is.

use super::codec::{Malformed, Reader, Writer};
use crate::{TraceTier, words::UnknownWord};

/// The longest kernel name that travels, bytes. The agent cuts longer ones and tells them apart by their numbers.
pub const MAX_NAME: usize = 4096;

/// Anything an agent tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Who is speaking; again after each connection.
    Process(Process),
    /// A number that stands for a name from here on; again after each connection.
    Name {
        /// The number.
        id: u32,
        /// The name as CUPTI gave it, at most [`MAX_NAME`] bytes, UTF-8 or not.
        name: Vec<u8>,
    },
    /// Which device a number stands for; again after each connection.
    Device {
        /// The number.
        index: u32,
        /// The UUID's 16 bytes as CUDA gives them.
        uuid: [u8; 16],
    },
    /// All clocks at one instant.
    Clock(Clock),
    /// What ran in one flush period, by name.
    Kernels(Kernels),
    /// What was copied in one flush period.
    Copies(Copies),
    /// Allocations and releases, in order of time.
    Memory(Vec<AllocationEvent>),
    /// How much is allocated now, by level.
    Levels(Levels),
    /// Single kernels of an open window.
    Spans(Spans),
    /// Something was lost.
    Loss {
        /// Why.
        reason: LossReason,
        /// How many records since the last such frame.
        count: u64,
    },
    /// What the agent cost its host since the last such frame.
    Cost(Cost),
    /// The agent is in another state now.
    State {
        /// Which.
        state: State,
        /// One sentence for people.
        message: String,
    },
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process's number in its own pid namespace; the daemon asks the socket for the one in its own.
    pub pid: u32,
    /// What is recorded at most; the governor may go below.
    pub tier: TraceTier,
    /// CUPTI's version as it reports it; `None` without CUPTI.
    pub cupti: Option<u32>,
    /// How often aggregates come, ms.
    pub flush_ms: u32,
    /// `RANK` of distributed programs.
    pub rank: Option<u32>,
    /// `LOCAL_RANK` of distributed programs.
    pub local_rank: Option<u32>,
    /// `CUDA_VISIBLE_DEVICES`, empty when unset.
    pub visible_devices: String,
    /// The program.
    pub exe: String,
}

/// All clocks at one instant, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// CUPTI's.
    pub cupti_ns: u64,
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME.
    pub realtime_ns: u64,
}

/// What ran in one flush period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// When the period began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// By name and device.
    pub stats: Vec<KernelStats>,
}

/// What one kernel did on one device in one period.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KernelStats {
    /// Its name's number.
    pub name: u32,
    /// The device's number.
    pub device: u32,
    /// Launches that ended.
    pub count: u64,
    /// Sum of their durations.
    pub total_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many fell into which bucket of [`crate::sketch`]; ascending, none empty.
    pub buckets: Vec<(u8, u64)>,
}

/// What was copied in one flush period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// When the period began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// By device and direction.
    pub stats: Vec<CopyStats>,
}

/// What was copied in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStats {
    /// The device's number.
    pub device: u32,
    /// From where to where.
    pub direction: Direction,
    /// How many copies.
    pub count: u64,
    /// How much.
    pub bytes: u64,
    /// Sum of their durations.
    pub total_ns: u64,
}

words! {
    /// From where to where a copy went (`copies.direction`).
    pub enum Direction {
        /// Host to device.
        HostToDevice = "htod",
        /// Device to host.
        DeviceToHost = "dtoh",
        /// Within a device.
        DeviceToDevice = "dtod",
        /// From one device to another.
        PeerToPeer = "ptop",
        /// Within the host.
        HostToHost = "htoh",
    }
}

words! {
    /// What happened to memory (`allocations.operation`).
    pub enum MemoryOperation {
        /// It was taken.
        Alloc = "alloc",
        /// It was given back.
        Free = "free",
    }
}

words! {
    /// Which kind of memory it is (`allocations.kind`).
    pub enum MemoryKind {
        /// Of the device.
        Device = "device",
        /// Of the device, from a stream-ordered pool.
        Pool = "pool",
        /// Of the device, through the virtual memory calls (`cuMemCreate`).
        Physical = "physical",
        /// Moved by the driver.
        Managed = "managed",
        /// Pinned, of the host.
        Pinned = "pinned",
    }
}

/// Memory was taken or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationEvent {
    /// When.
    pub at_ns: u64,
    /// The device's number.
    pub device: u32,
    /// What happened.
    pub operation: MemoryOperation,
    /// To which kind of memory.
    pub kind: MemoryKind,
    /// Where it begins; for physical memory its handle.
    pub address: u64,
    /// How large it is. Unknown for a release of what was taken before the agent looked.
    pub bytes: Option<u64>,
}

/// How much one process holds on one device, as the agent counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Levels {
    /// The device's number.
    pub device: u32,
    /// Taken and not given back through the driver: device, pool and physical memory, bytes.
    pub live_bytes: u64,
    /// In so many pieces.
    pub segments: u64,
    /// What rounding each piece up to 2 MiB can cost at most, bytes.
    pub rounding_bytes: u64,
    /// What stream-ordered pools hold, bytes; unknown without such records.
    pub pool_bytes: Option<u64>,
    /// What of it is in use, bytes.
    pub pool_used_bytes: Option<u64>,
    /// Virtual addresses reserved, bytes; unknown where the calls are not observed.
    pub reserved_bytes: Option<u64>,
    /// Physical memory mapped into them, bytes.
    pub mapped_bytes: Option<u64>,
}

/// Single kernels of an open window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// In the order CUPTI delivered them.
    pub spans: Vec<Span>,
}

/// One kernel, one graph or one copy that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its name's number.
    pub name: u32,
    /// The device's number.
    pub device: u32,
    /// The stream.
    pub stream: u32,
    /// When it began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

words! {
    /// Why an agent's records are missing (`losses.reason`).
    pub enum LossReason {
        /// CUPTI says that it dropped them.
        DroppedByCupti = "dropped_by_cupti",
        /// No start or no end.
        ZeroTimestamp = "zero_timestamp",
        /// An end before the start.
        InvertedTimestamp = "inverted_timestamp",
        /// The ring was full.
        RingFull = "ring_full",
        /// A record that ends beyond its buffer or is of no known length.
        BadRecord = "bad_record",
        /// More names than the agent keeps.
        NamesFull = "names_full",
        /// More events of memory at once than the agent keeps.
        QueueFull = "queue_full",
        /// No buffer was free.
        NoBuffer = "no_buffer",
        /// Not looked at, to stay inside the budget.
        OverBudget = "over_budget",
        /// A frame that the daemon could not read.
        Malformed = "malformed",
        /// Another profiler took CUPTI over.
        Displaced = "displaced",
    }
}

/// What the agent cost its host since the last such frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How long that was, ns.
    pub wall_ns: u64,
    /// Processor time of the agent's own thread, ns.
    pub thread_ns: u64,
    /// Estimated time inside the hooks on the host's threads, ns.
    pub hooks_ns: u64,
    /// For how much of the time kernels were recorded, ns.
    pub traced_ns: u64,
    /// Device memory that CUPTI holds for it by its settings, bytes; unknown without CUPTI.
    pub device_bytes: Option<u64>,
    /// The tier in force.
    pub tier: TraceTier,
}

words! {
    /// What an agent is doing.
    pub enum State {
        /// It records.
        Tracing = "tracing",
        /// It was asked to leave CUPTI to another.
        Yielded = "yielded",
        /// Another profiler took CUPTI over.
        Displaced = "displaced",
        /// It records less than it was asked to.
        Degraded = "degraded",
        /// It records nothing and says why.
        Off = "off",
    }
}

impl Frame {
    /// Writes the frame's bytes over `buffer` and returns its kind.
    pub fn encode(&self, buffer: &mut Vec<u8>) -> u16 {
        buffer.clear();
        let mut to = Writer(buffer);
        match self {
            Self::Process(process) => {
                to.number(process.pid.into());
                to.text(process.tier.as_str().as_bytes());
                to.maybe(process.cupti.map(u64::from));
                to.number(process.flush_ms.into());
                to.maybe(process.rank.map(u64::from));
                to.maybe(process.local_rank.map(u64::from));
                to.text(process.visible_devices.as_bytes());
                to.text(process.exe.as_bytes());
                1
            }
            Self::Name { id, name } => {
                to.number((*id).into());
                to.text(&name[..name.len().min(MAX_NAME)]);
                2
            }
            Self::Device { index, uuid } => {
                to.number((*index).into());
                to.text(uuid);
                3
            }
            Self::Clock(clock) => {
                to.number(clock.cupti_ns);
                to.number(clock.monotonic_ns);
                to.number(clock.realtime_ns);
                4
            }
            Self::Kernels(kernels) => {
                period(&mut to, kernels.start_ns, kernels.end_ns);
                to.number(kernels.stats.len() as u64);
                kernels.stats.iter().for_each(|stats| kernel(&mut to, stats));
                5
            }
            Self::Copies(copies) => {
                period(&mut to, copies.start_ns, copies.end_ns);
                to.number(copies.stats.len() as u64);
                for stats in &copies.stats {
                    to.number(stats.device.into());
                    to.text(stats.direction.as_str().as_bytes());
                    to.number(stats.count);
                    to.number(stats.bytes);
                    to.number(stats.total_ns);
                }
                6
            }
            Self::Memory(events) => {
                to.number(events.len() as u64);
                for event in events {
                    to.number(event.at_ns);
                    to.number(event.device.into());
                    to.byte(place(MemoryOperation::ALL, event.operation));
                    to.byte(place(MemoryKind::ALL, event.kind));
                    to.number(event.address);
                    to.maybe(event.bytes);
                }
                7
            }
            Self::Levels(levels) => {
                to.number(levels.device.into());
                to.number(levels.live_bytes);
                to.number(levels.segments);
                to.number(levels.rounding_bytes);
                to.maybe(levels.pool_bytes);
                to.maybe(levels.pool_used_bytes);
                to.maybe(levels.reserved_bytes);
                to.maybe(levels.mapped_bytes);
                8
            }
            Self::Spans(spans) => {
                to.number(spans.spans.len() as u64);
                for span in &spans.spans {
                    to.number(span.name.into());
                    to.number(span.device.into());
                    to.number(span.stream.into());
                    period(&mut to, span.start_ns, span.end_ns);
                }
                9
            }
            Self::Loss { reason, count } => {
                to.text(reason.as_str().as_bytes());
                to.number(*count);
                10
            }
            Self::Cost(cost) => {
                to.number(cost.wall_ns);
                to.number(cost.thread_ns);
                to.number(cost.hooks_ns);
                to.number(cost.traced_ns);
                to.maybe(cost.device_bytes);
                to.text(cost.tier.as_str().as_bytes());
                11
            }
            Self::State { state, message } => {
                to.text(state.as_str().as_bytes());
                to.text(message.as_bytes());
                12
            }
        }
    }

    /// Reads what a ring held. `None` is a frame that only newer agents write.
    ///
    /// # Errors
    /// When the bytes are not those of a frame of this kind. Bytes after the last known field are a newer agent's and are
    /// ignored.
    pub fn decode(kind: u16, bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut from = Reader(bytes);
        let from = &mut from;
        Ok(Some(match kind {
            1 => Self::Process(Process {
                pid: from.small()?,
                tier: word(from)?,
                cupti: maybe_small(from)?,
                flush_ms: from.small()?,
                rank: maybe_small(from)?,
                local_rank: maybe_small(from)?,
                visible_devices: lossy(from)?,
                exe: lossy(from)?,
            }),
            2 => Self::Name {
                id: from.small()?,
                name: match from.text()? {
                    name if name.len() <= MAX_NAME => name.to_vec(),
                    _ => return Err(Malformed("a name that is too long")),
                },
            },
            3 => Self::Device {
                index: from.small()?,
                uuid: from
                    .text()?
                    .try_into()
                    .map_err(|_| Malformed("a UUID of another length"))?,
            },
            4 => Self::Clock(Clock {
                cupti_ns: from.number()?,
                monotonic_ns: from.number()?,
                realtime_ns: from.number()?,
            }),
            5 => {
                let (start_ns, end_ns) = read_period(from)?;
                let count = from.count()?;
                let stats = (0..count).map(|_| read_kernel(from)).collect::<Result<_, _>>()?;
                Self::Kernels(Kernels {
                    start_ns,
                    end_ns,
                    stats,
                })
            }
            6 => {
                let (start_ns, end_ns) = read_period(from)?;
                let count = from.count()?;
                let stats = (0..count)
                    .map(|_| {
                        Ok(CopyStats {
                            device: from.small()?,
                            direction: word(from)?,
                            count: from.number()?,
                            bytes: from.number()?,
                            total_ns: from.number()?,
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Self::Copies(Copies {
                    start_ns,
                    end_ns,
                    stats,
                })
            }
            7 => {
                let count = from.count()?;
                let events = (0..count)
                    .map(|_| {
                        Ok(AllocationEvent {
                            at_ns: from.number()?,
                            device: from.small()?,
                            operation: at_place(MemoryOperation::ALL, from.byte()?)?,
                            kind: at_place(MemoryKind::ALL, from.byte()?)?,
                            address: from.number()?,
                            bytes: from.maybe()?,
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Self::Memory(events)
            }
            8 => Self::Levels(Levels {
                device: from.small()?,
                live_bytes: from.number()?,
                segments: from.number()?,
                rounding_bytes: from.number()?,
                pool_bytes: from.maybe()?,
                pool_used_bytes: from.maybe()?,
                reserved_bytes: from.maybe()?,
                mapped_bytes: from.maybe()?,
            }),
            9 => {
                let count = from.count()?;
                let spans = (0..count)
                    .map(|_| {
                        let (name, device, stream) = (from.small()?, from.small()?, from.small()?);
                        let (start_ns, end_ns) = read_period(from)?;
                        Ok(Span {
                            name,
                            device,
                            stream,
                            start_ns,
                            end_ns,
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Self::Spans(Spans { spans })
            }
            10 => Self::Loss {
                reason: word(from)?,
                count: from.number()?,
            },
            11 => Self::Cost(Cost {
                wall_ns: from.number()?,
                thread_ns: from.number()?,
                hooks_ns: from.number()?,
                traced_ns: from.number()?,
                device_bytes: from.maybe()?,
                tier: word(from)?,
            }),
            12 => Self::State {
                state: word(from)?,
                message: lossy(from)?,
            },
            _ => return Ok(None),
        }))
    }
}

fn period(to: &mut Writer<'_>, start_ns: u64, end_ns: u64) {
    to.number(start_ns);
    to.number(end_ns.saturating_sub(start_ns));
}

fn read_period(from: &mut Reader<'_>) -> Result<(u64, u64), Malformed> {
    let (start, length) = (from.number()?, from.number()?);
    let end = start
        .checked_add(length)
        .ok_or(Malformed("a period without an end"))?;
    Ok((start, end))
}

/// At most 64 bytes for what a kernel usually does: durations of a few buckets.
fn kernel(to: &mut Writer<'_>, stats: &KernelStats) {
    to.number(stats.name.into());
    to.number(stats.device.into());
    to.number(stats.count);
    to.number(stats.total_ns);
    to.number(stats.min_ns);
    to.number(stats.max_ns.saturating_sub(stats.min_ns));
    to.number(stats.buckets.len() as u64);
    for (bucket, count) in &stats.buckets {
        to.byte(*bucket);
        to.number(*count);
    }
}

fn read_kernel(from: &mut Reader<'_>) -> Result<KernelStats, Malformed> {
    let (name, device) = (from.small()?, from.small()?);
    let (count, total_ns, min_ns) = (from.number()?, from.number()?, from.number()?);
    let max_ns = min_ns
        .checked_add(from.number()?)
        .ok_or(Malformed("a duration that is too long"))?;
    let buckets = (0..from.count()?)
        .map(|_| Ok((from.byte()?, from.number()?)))
        .collect::<Result<Vec<_>, _>>()?;
    if !buckets.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(Malformed("buckets out of order"));
    }
    Ok(KernelStats {
        name,
        device,
        count,
        total_ns,
        min_ns,
        max_ns,
        buckets,
    })
}

fn word<T: std::str::FromStr<Err = UnknownWord>>(from: &mut Reader<'_>) -> Result<T, Malformed> {
    std::str::from_utf8(from.text()?)
        .ok()
        .and_then(|word| word.parse().ok())
        .ok_or(Malformed("an unknown word"))
}

fn lossy(from: &mut Reader<'_>) -> Result<String, Malformed> {
    from.text().map(|text| String::from_utf8_lossy(text).into_owned())
}

fn maybe_small(from: &mut Reader<'_>) -> Result<Option<u32>, Malformed> {
    from.maybe()?
        .map(|value| u32::try_from(value).map_err(|_| Malformed("a number of more than 32 bits")))
        .transpose()
}

/// A word as its place in its list.
fn place<T: PartialEq>(all: &[T], word: T) -> u8 {
    let place = all.iter().position(|other| *other == word).unwrap_or(0);
    u8::try_from(place).unwrap_or(0)
}

fn at_place<T: Copy>(all: &[T], place: u8) -> Result<T, Malformed> {
    all.get(usize::from(place))
        .copied()
        .ok_or(Malformed("an unknown word"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stats() -> impl Strategy<Value = KernelStats> {
        (
            any::<u32>(),
            0..8_u32,
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            proptest::collection::btree_map(any::<u8>(), any::<u64>(), 0..20),
        )
            .prop_map(|(name, device, count, total_ns, a, b, buckets)| KernelStats {
                name,
                device,
                count,
                total_ns,
                min_ns: a.min(b),
                max_ns: a.max(b),
                buckets: buckets.into_iter().collect(),
            })
    }

    fn round_trip(frame: &Frame) {
        let mut bytes = Vec::new();
        let kind = frame.encode(&mut bytes);
        assert_eq!(Frame::decode(kind, &bytes).as_ref(), Ok(&Some(frame.clone())));
        // Cut anywhere, it is an error and nothing worse; longer, it is a newer agent's.
        for end in 0..bytes.len() {
            drop(Frame::decode(kind, &bytes[..end]));
        }
        bytes.push(1);
        assert_eq!(Frame::decode(kind, &bytes).as_ref(), Ok(&Some(frame.clone())));
    }

    #[test]
    fn every_kind_round_trips() {
        let process = Process {
            pid: 7,
            tier: TraceTier::Graph,
            cupti: Some(18),
            flush_ms: 1000,
            rank: Some(0),
            local_rank: None,
            visible_devices: "0,1".into(),
            exe: "/usr/bin/python3".into(),
        };
        let event = AllocationEvent {
            at_ns: 5,
            device: 1,
            operation: MemoryOperation::Free,
            kind: MemoryKind::Pinned,
            address: u64::MAX - 1,
            bytes: None,
        };
        let copy = CopyStats {
            device: 0,
            direction: Direction::PeerToPeer,
            count: 1,
            bytes: 1 << 40,
            total_ns: 9,
        };
        let span = Span {
            name: 1,
            device: 2,
            stream: 3,
            start_ns: 4,
            end_ns: 5,
        };
        let cost = Cost {
            wall_ns: 1,
            thread_ns: 2,
            hooks_ns: 3,
            traced_ns: 4,
            device_bytes: Some(0),
            tier: TraceTier::Memory,
        };
        let frames = [
            Frame::Process(process),
            Frame::Name {
                id: 3,
                name: b"_Z3fooPf\xff".to_vec(),
            },
            Frame::Device {
                index: 1,
                uuid: [9; 16],
            },
            Frame::Clock(Clock {
                cupti_ns: 1,
                monotonic_ns: 2,
                realtime_ns: u64::MAX,
            }),
            Frame::Copies(Copies {
                start_ns: 0,
                end_ns: 1,
                stats: vec![copy],
            }),
            Frame::Memory(vec![event]),
            Frame::Levels(Levels {
                live_bytes: 3,
                pool_bytes: Some(0),
                ..Levels::default()
            }),
            Frame::Spans(Spans { spans: vec![span] }),
            Frame::Loss {
                reason: LossReason::RingFull,
                count: 3,
            },
            Frame::Cost(cost),
            Frame::State {
                state: State::Displaced,
                message: "torch.profiler".into(),
            },
        ];
        frames.iter().for_each(round_trip);
    }

    #[test]
    fn what_is_newer_is_skipped_and_what_is_hostile_is_refused() {
        assert_eq!(Frame::decode(999, b"anything"), Ok(None));
        // A claim of 2^60 events.
        let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Frame::decode(7, &claim), Err(Malformed("more items than bytes")));
        assert_eq!(
            Frame::decode(4, &[0xff; 11]),
            Err(Malformed("a number of more than 64 bits"))
        );
    }

    #[test]
    fn two_hundred_names_cost_less_than_sixteen_kilobytes_a_second() {
        let stats = |name: u32| KernelStats {
            name,
            device: 7,
            count: 100_000,
            total_ns: 999_000_000,
            min_ns: 3_000,
            max_ns: 900_000,
            buckets: (40..50).map(|bucket| (bucket, 10_000)).collect(),
        };
        let kernels = Kernels {
            start_ns: 1 << 60,
            end_ns: (1 << 60) + 1_000_000_000,
            stats: (0..200).map(stats).collect(),
        };
        let mut bytes = Vec::new();
        Frame::Kernels(kernels).encode(&mut bytes);
        assert!(bytes.len() <= 200 * 64, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn kernels_round_trip(start in 0..u64::MAX / 2, length in 0..u64::MAX / 2, stats in proptest::collection::vec(stats(), 0..20)) {
            round_trip(&Frame::Kernels(Kernels { start_ns: start, end_ns: start + length, stats }));
        }

        #[test]
        fn no_bytes_are_too_strange(kind in 0..14_u16, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(frame)) = Frame::decode(kind, &bytes) {
                round_trip(&frame);
            }
        }
    }
}
