//! How frames become bytes, and bytes frames.

use super::codec::{Malformed, Reader, Writer};
use super::frame::{
    AllocationEvent, Clock, Copies, CopyStats, Cost, Frame, KernelStats, Kernels, Levels, MAX_NAME,
    MemoryKind, MemoryOperation, Process, Span, Spans,
};
use crate::UnknownWord;

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
                to.maybe(process.budget_ppm.map(u64::from));
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
                to.maybe(levels.at_ns);
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
            Self::Finished => 13,
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
                // Agents of the first days end here.
                budget_ppm: if from.0.is_empty() {
                    None
                } else {
                    maybe_small(from)?
                },
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
                // Agents of the first days end here.
                at_ns: if from.0.is_empty() { None } else { from.maybe()? },
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
            13 => Self::Finished,
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
#[path = "encoding_tests.rs"]
mod tests;
