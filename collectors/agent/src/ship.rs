//! The ring and its memory: a memfd that the daemon maps too, so that what was written is read after the engine was killed.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::AtomicU64;

use plimsoll_trace::wire::{Frame, Hello, VERSION, ring};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::descriptor::Descriptor;

/// Frames are kept below this size, bytes.
pub(crate) const MOST_FRAME: usize = ring::MOST_BYTES - 64;

/// Writes frames.
#[derive(Debug)]
pub(crate) struct Ship {
    writer: ring::Writer<'static>,
    bytes: Vec<u8>,
    memory: Descriptor,
    size: u32,
}

impl Ship {
    /// Makes a ring of about so many bytes.
    pub(crate) fn create(bytes: u32) -> io::Result<Self> {
        // The data are a power of two of words, behind a header.
        let header = ring::HEADER_WORDS * 8;
        let data = bytes.max(256 << 10).next_power_of_two() as usize;
        let size = u32::try_from(header + data).map_err(io::Error::other)?;
        let memory = memfd_create(c"plimsoll-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, size.into())?;
        // The daemon maps it: it must not become shorter under it.
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a new mapping, placed by the system, disturbs nobody. It is never unmapped.
        let start = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(
                ptr::null_mut(),
                size as usize,
                protection,
                MapFlags::SHARED,
                &memory,
                0,
            )
        }?;
        // SAFETY: the mapping is this long, aligned to a page, zeroed, and accessed as atomic words alone.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), size as usize / 8) };
        let writer = ring::Writer::create(words).ok_or_else(|| io::Error::other("the ring is too small"))?;
        let memory = Descriptor::new(memory).ok_or_else(|| io::Error::other("too many descriptors"))?;
        Ok(Self {
            writer,
            bytes: Vec::new(),
            memory,
            size,
        })
    }

    /// Writes a frame; `false` when there is no room.
    pub(crate) fn tell(&mut self, frame: &Frame) -> bool {
        let kind = frame.encode(&mut self.bytes);
        self.writer.append(kind, &self.bytes)
    }

    /// Where the next frame will begin in the ring.
    pub(crate) const fn written(&self) -> u64 {
        self.writer.written()
    }

    /// Whether a daemon has read all before a position.
    pub(crate) fn is_read(&self, position: u64) -> bool {
        self.writer.is_read(position)
    }

    /// How full it is, 0..1.
    pub(crate) fn fill_ratio(&self) -> f64 {
        self.writer.fill_ratio()
    }

    /// Its memory, and what to say about it. `None` when the program closed it.
    pub(crate) fn introduction(&self) -> Option<(Hello, BorrowedFd<'_>)> {
        let hello = Hello {
            version: VERSION,
            bytes: self.size,
        };
        Some((hello, self.memory.file()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_trace::wire::LossReason;
    use plimsoll_trace::wire::ring::{Next, Reader};

    #[test]
    fn another_mapping_reads_what_was_written_and_nobody_can_cut_it() {
        let mut ship = Ship::create(100_000).unwrap();
        let frame = Frame::Loss {
            reason: LossReason::BadRecord,
            count: 3,
        };
        assert!(ship.tell(&frame));
        let (hello, memory) = ship.introduction().unwrap();
        assert!(ftruncate(memory, 4096).is_err());
        // SAFETY: a new mapping, used as atomic words alone.
        let words = unsafe {
            let length = hello.bytes as usize;
            let start = mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )
            .unwrap();
            std::slice::from_raw_parts(start.cast::<AtomicU64>(), length / 8)
        };
        let mut reader = Reader::open(words).unwrap();
        let mut bytes = Vec::new();
        let Next::Frame(kind) = reader.next(&mut bytes) else {
            panic!("nothing is there")
        };
        assert_eq!(Frame::decode(kind, &bytes), Ok(Some(frame)));
    }
}
