//! Copies, summed by device and direction.

use std::collections::BTreeMap;

use cupti_sys::constant::{copy_kind, memory_kind};
use plimsoll_trace::wire::{Copies, CopyStats, Direction, Frame};

/// More devices than a process sees; what is beyond is counted with the last.
const MOST_DEVICES: u32 = 64;

/// All copies since they were last told.
#[derive(Debug, Default)]
pub(crate) struct CopyCounts {
    stats: BTreeMap<(u32, Direction), CopyStats>,
    began_ns: Option<u64>,
}

impl CopyCounts {
    /// Counts a copy.
    pub(crate) fn copy(&mut self, device: u32, direction: Direction, bytes: u64, ns: u64) {
        let device = device.min(MOST_DEVICES);
        let stats = self.stats.entry((device, direction)).or_insert(CopyStats {
            device,
            direction,
            count: 0,
            bytes: 0,
            total_ns: 0,
        });
        stats.count += 1;
        stats.bytes = stats.bytes.saturating_add(bytes);
        stats.total_ns = stats.total_ns.saturating_add(ns);
    }

    /// The clock was set: the period under way began then by the new one.
    pub(crate) fn shift(&mut self, step_ns: i64) {
        self.began_ns = self.began_ns.map(|began| began.saturating_add_signed(step_ns));
    }

    /// Ends the period and hands it to `tell`; what it refuses is told with the next.
    pub(crate) fn tell(&mut self, now_ns: u64, tell: impl FnOnce(&Frame) -> bool) {
        let start_ns = *self.began_ns.get_or_insert(now_ns);
        let stats: Vec<_> = self.stats.values().copied().collect();
        let copies = Copies {
            start_ns,
            end_ns: now_ns.max(start_ns),
            stats,
        };
        if copies.stats.is_empty() || tell(&Frame::Copies(copies)) {
            self.stats.clear();
            self.began_ns = Some(now_ns);
        }
    }
}

/// From where to where: as CUPTI says, else by the kinds of memory.
pub(crate) fn direction(kind: u8, source: u8, target: u8) -> Direction {
    match kind {
        copy_kind::HTOD | copy_kind::HTOA => Direction::HostToDevice,
        copy_kind::DTOH | copy_kind::ATOH => Direction::DeviceToHost,
        copy_kind::ATOA | copy_kind::ATOD | copy_kind::DTOA | copy_kind::DTOD => Direction::DeviceToDevice,
        copy_kind::HTOH => Direction::HostToHost,
        copy_kind::PTOP => Direction::PeerToPeer,
        _ => {
            let host = |kind: u8| matches!(kind.into(), memory_kind::PAGEABLE | memory_kind::PINNED);
            match (host(source), host(target)) {
                (true, true) => Direction::HostToHost,
                (true, false) => Direction::HostToDevice,
                (false, true) => Direction::DeviceToHost,
                (false, false) => Direction::DeviceToDevice,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_summed_by_device_and_direction_and_kept_until_told() {
        let mut copies = CopyCounts::default();
        copies.copy(0, Direction::HostToDevice, 100, 7);
        copies.copy(0, Direction::HostToDevice, 50, 3);
        copies.copy(1, Direction::DeviceToHost, 1, 1);
        copies.tell(10, |_| false);
        copies.copy(0, Direction::HostToDevice, 1, 1);
        let mut told = None;
        copies.tell(20, |frame| {
            told = Some(frame.clone());
            true
        });
        let Some(Frame::Copies(frame)) = told else {
            panic!("{told:?}")
        };
        assert_eq!((frame.start_ns, frame.end_ns, frame.stats.len()), (10, 20, 2));
        assert_eq!(
            (
                frame.stats[0].count,
                frame.stats[0].bytes,
                frame.stats[0].total_ns
            ),
            (3, 151, 11)
        );
        copies.tell(30, |_| panic!("there is nothing to tell"));
    }

    #[test]
    fn a_copy_of_unknown_kind_goes_where_its_memory_is() {
        assert_eq!(direction(copy_kind::PTOP, 0, 0), Direction::PeerToPeer);
        assert_eq!(direction(0, 2, 3), Direction::HostToDevice);
        assert_eq!(direction(0, 5, 1), Direction::DeviceToHost);
        assert_eq!(direction(99, 0, 0), Direction::DeviceToDevice);
    }
}
