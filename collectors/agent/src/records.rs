//! One buffer after the other: each record goes where it is counted.

use cupti_sys::constant::{kind, overhead_kind};
use cupti_sys::record::{
    GraphTrace, Kernel, Memcpy, Memory as MemoryRecord, MemoryPool, Memset, Overhead, PeerCopy,
};
use cupti_sys::{Ending, Functions, Record, Records};
use plimsoll_trace::wire::{Direction, LossReason, Span};

use crate::buffers::Completed;
use crate::copies::{CopyCounts, direction};
use crate::kernels::{Counts, Full, Other};
use crate::losses::Losses;
use crate::memory::Memory;
use crate::names::{Names, text_at};
use crate::spans::Window;

/// All that records tell.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) names: Names,
    pub(crate) kernels: Counts,
    pub(crate) copies: CopyCounts,
    pub(crate) memory: Memory,
    pub(crate) window: Window,
    /// A bit for each device below 64 that a record named.
    pub(crate) devices: u64,
    /// What CUPTI says that it cost, ns, since this was last asked.
    pub(crate) overhead_ns: u64,
    /// Kernels and graphs with times that can be right, and those with others.
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Nothing runs for longer, ns.
    pub(crate) longest_ns: u64,
}

impl Consumer {
    pub(crate) fn new() -> Self {
        Self {
            names: Names::default(),
            kernels: Counts::new(),
            copies: CopyCounts::default(),
            memory: Memory::default(),
            window: Window::default(),
            devices: 0,
            overhead_ns: 0,
            good: 0,
            bad: 0,
            longest_ns: u64::MAX,
        }
    }

    /// Reads a buffer.
    pub(crate) fn read(&mut self, functions: &Functions, losses: &Losses, completed: &Completed) {
        self.kernels.next_buffer();
        // SAFETY: the buffer came back from CUPTI, and is this caller's until it is given back.
        let mut records = unsafe { Records::of(functions, completed.start, completed.valid) };
        for record in records.by_ref() {
            if let Err(reason) = self.record(record) {
                losses.add(reason, 1);
            }
        }
        // How many would have followed nobody knows; the one that could not be found is one.
        if matches!(records.ending(), Ending::Broken(_)) {
            losses.add(LossReason::BadRecord, 1);
        }
    }

    /// Whether the next buffer may have more that is new than there is room for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.kernels.is_crowded() || self.names.are_crowded()
    }

    /// Makes room for new names; `is_read` says whether a position of the ring has been read.
    pub(crate) fn make_room(&mut self, is_read: impl Fn(u64) -> bool) {
        if self.names.are_crowded() {
            let forgotten = self.names.forget(&self.kernels.names_in_use(), is_read);
            self.kernels.forget(&forgotten);
        }
    }

    #[inline]
    fn record(&mut self, record: Record<'_>) -> Result<(), LossReason> {
        match record.kind() {
            kind::CONCURRENT_KERNEL => self.kernel(&whole(record)?),
            kind::GRAPH_TRACE => {
                let graph: GraphTrace = whole(record)?;
                self.other(
                    Other::Graph(graph.graph),
                    (graph.device, graph.stream),
                    (graph.start, graph.end),
                )
            }
            kind::MEMSET => {
                let memset: Memset = whole(record)?;
                self.other(
                    Other::Memset,
                    (memset.device, memset.stream),
                    (memset.start, memset.end),
                )
            }
            kind::MEMCPY => {
                let copy: Memcpy = whole(record)?;
                let ns = self.duration(copy.start, copy.end)?;
                let direction = direction(copy.copy_kind, copy.source_kind, copy.target_kind);
                self.devices |= bit(copy.device);
                self.copies.copy(copy.device, direction, copy.bytes, ns);
                self.copy_span(direction, (copy.device, copy.stream), (copy.start, copy.end));
                Ok(())
            }
            kind::MEMCPY2 => {
                let copy: PeerCopy = whole(record)?;
                let ns = self.duration(copy.start, copy.end)?;
                self.devices |= bit(copy.device);
                self.copies
                    .copy(copy.device, Direction::PeerToPeer, copy.bytes, ns);
                self.copy_span(
                    Direction::PeerToPeer,
                    (copy.device, copy.stream),
                    (copy.start, copy.end),
                );
                Ok(())
            }
            kind::MEMORY2 => {
                let memory: MemoryRecord = whole(record)?;
                self.devices |= bit(memory.device);
                self.memory.record(&memory);
                Ok(())
            }
            kind::MEMORY_POOL => {
                let pool: MemoryPool = whole(record)?;
                self.devices |= bit(pool.device);
                self.memory.pool(&pool);
                Ok(())
            }
            kind::OVERHEAD => {
                let overhead: Overhead = whole(record)?;
                let ours = [overhead_kind::INSTRUMENTATION, overhead_kind::RESOURCE];
                // Flushes are counted with the thread that asks for them; compiling is the program's own.
                if ours.contains(&overhead.overhead_kind) {
                    let ns = self.duration(overhead.start, overhead.end)?;
                    self.overhead_ns = self.overhead_ns.saturating_add(ns);
                }
                Ok(())
            }
            // A kind that nobody asked for, or one of a newer version.
            _ => Ok(()),
        }
    }

    /// Inlined, so that only the fields that are used are read.
    #[inline(always)]
    fn kernel(&mut self, kernel: &Kernel) -> Result<(), LossReason> {
        let ns = self.judged(kernel.start, kernel.end)?;
        self.devices |= bit(kernel.device);
        // SAFETY: a kernel's name is null or a C string of CUPTI's that lives as long as the record.
        let text = || unsafe { text_at(kernel.name) };
        let name = self
            .kernels
            .kernel(&mut self.names, (kernel.name, kernel.device), ns, text)
            .map_err(|Full| LossReason::NamesFull)?;
        if self.window.wants(kernel.start) {
            self.window.push(Span {
                name,
                device: kernel.device,
                stream: kernel.stream,
                start_ns: kernel.start,
                end_ns: kernel.end,
            });
        }
        Ok(())
    }

    fn other(
        &mut self,
        other: Other,
        (device, stream): (u32, u32),
        (start_ns, end_ns): (u64, u64),
    ) -> Result<(), LossReason> {
        let ns = self.judged(start_ns, end_ns)?;
        self.devices |= bit(device);
        let name = self
            .kernels
            .other(&mut self.names, other, device, ns)
            .map_err(|Full| LossReason::NamesFull)?;
        if self.window.wants(start_ns) {
            self.window.push(Span {
                name,
                device,
                stream,
                start_ns,
                end_ns,
            });
        }
        Ok(())
    }

    fn copy_span(
        &mut self,
        direction: Direction,
        (device, stream): (u32, u32),
        (start_ns, end_ns): (u64, u64),
    ) {
        if !self.window.wants(start_ns) {
            return;
        }
        if let Some(name) = self.names.number(format!("copy {direction}").as_bytes()) {
            self.window.push(Span {
                name,
                device,
                stream,
                start_ns,
                end_ns,
            });
        }
    }

    /// How long a kernel or a graph took; those with wrong times are counted to know whether CUPTI can be believed.
    #[inline]
    const fn judged(&mut self, start: u64, end: u64) -> Result<u64, LossReason> {
        let duration = self.duration(start, end);
        match duration {
            Ok(_) => self.good += 1,
            Err(_) => self.bad += 1,
        }
        duration
    }

    /// How long something took; what has no valid time is not something that ran.
    #[inline]
    const fn duration(&self, start: u64, end: u64) -> Result<u64, LossReason> {
        if start != 0 && end >= start && end - start <= self.longest_ns {
            return Ok(end - start);
        }
        Err(if start == 0 || end == 0 {
            LossReason::ZeroTimestamp
        } else {
            LossReason::InvertedTimestamp
        })
    }
}

#[inline]
fn whole<T: cupti_sys::record::Prefix>(record: Record<'_>) -> Result<T, LossReason> {
    record.view().ok_or(LossReason::BadRecord)
}

#[inline]
const fn bit(device: u32) -> u64 {
    if device < 64 { 1 << device } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_have_run_has_a_duration() {
        let mut consumer = Consumer::new();
        consumer.longest_ns = 1_000;
        assert_eq!(consumer.duration(5, 1_005), Ok(1_000));
        for (start, end, reason) in [
            (0, 5, LossReason::ZeroTimestamp),
            (5, 0, LossReason::ZeroTimestamp),
            (5, 4, LossReason::InvertedTimestamp),
            (5, 1_006, LossReason::InvertedTimestamp),
            (5, u64::MAX, LossReason::InvertedTimestamp),
        ] {
            assert_eq!(consumer.duration(start, end), Err(reason));
        }
        // Those of copies and of overhead say nothing about kernels.
        assert_eq!((consumer.good, consumer.bad), (0, 0));
        assert_eq!(consumer.judged(5, 6), Ok(1));
        assert_eq!(consumer.judged(6, 5), Err(LossReason::InvertedTimestamp));
        assert_eq!((consumer.good, consumer.bad), (1, 1));
    }
}
