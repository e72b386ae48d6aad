//! Kernels and whole graphs, counted by name and device: one step for each record, exact.

use std::collections::HashMap;

use plimsoll_trace::sketch::{BUCKETS, bucket};
use plimsoll_trace::wire::{Frame, KernelStats, Kernels};

use crate::names::Names;
use crate::ship::MOST_FRAME;

/// So many pairs of name and device at most.
const MOST: usize = 8192;
const FIRST_SLOTS: usize = 1 << 10;
const MOST_SLOTS: usize = 1 << 15;
const NONE: u32 = u32::MAX;
/// So many graphs have a name of their own: a program that makes new ones all day must not use all names up.
const MOST_GRAPHS: usize = 1024;

/// What one kernel did on one device since it was last told.
#[derive(Clone, Debug)]
struct Stat {
    name: u32,
    device: u32,
    count: u64,
    total_ns: u64,
    min_ns: u64,
    max_ns: u64,
    buckets: [u32; BUCKETS],
}

/// Where the kernel of a name's address and a device is counted.
#[derive(Clone, Copy, Debug)]
struct Slot {
    address: u64,
    device: u32,
    stat: u32,
    /// In which buffer the text was last compared.
    checked: u32,
}

const EMPTY: Slot = Slot {
    address: 0,
    device: 0,
    stat: NONE,
    checked: 0,
};

/// All kernels of a process.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Open addressing by address and device, a power of two of them, at most three quarters full.
    slots: Vec<Slot>,
    used: usize,
    stats: Vec<Stat>,
    by_name: HashMap<(u32, u32), u32>,
    by_graph: HashMap<(u32, u32), u32>,
    /// Those that have counted anything since they were last told.
    active: Vec<u32>,
    buffer: u32,
    began_ns: Option<u64>,
}

/// There is no room for another name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![EMPTY; FIRST_SLOTS],
            used: 0,
            stats: Vec::new(),
            by_name: HashMap::new(),
            by_graph: HashMap::new(),
            active: Vec::new(),
            buffer: 0,
            began_ns: None,
        }
    }

    /// The records that follow are of another buffer: addresses of names are compared with their texts once more, because
    /// an address may have been given to another text since.
    pub(crate) const fn next_buffer(&mut self) {
        self.buffer = self.buffer.wrapping_add(1);
    }

    /// Counts a kernel and returns its name's number. `text` reads the text at the address.
    #[inline]
    pub(crate) fn kernel<'t>(
        &mut self,
        names: &mut Names,
        (address, device): (u64, u32),
        ns: u64,
        text: impl FnOnce() -> &'t [u8],
    ) -> Result<u32, Full> {
        let mut at = self.first_slot(address, device);
        loop {
            let slot = self.slots[at];
            if slot.stat == NONE {
                break;
            }
            if slot.address == address && slot.device == device {
                if slot.checked == self.buffer {
                    return Ok(self.count(slot.stat, ns));
                }
                break;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        let stat = self.look_up(names, at, (address, device), text())?;
        Ok(self.count(stat, ns))
    }

    /// Counts the launch of a whole graph under a name of its own.
    pub(crate) fn graph(&mut self, names: &mut Names, graph: u32, device: u32, ns: u64) -> Result<u32, Full> {
        let stat = match self.by_graph.get(&(graph, device)) {
            Some(stat) => *stat,
            None if self.by_graph.len() < MOST_GRAPHS => {
                let stat = self.stat_of(names, format!("CUDA graph {graph}").as_bytes(), device)?;
                self.by_graph.insert((graph, device), stat);
                stat
            }
            None => self.stat_of(names, b"CUDA graphs", device)?,
        };
        Ok(self.count(stat, ns))
    }

    #[inline]
    fn first_slot(&self, address: u64, device: u32) -> usize {
        let mixed = (address ^ (u64::from(device) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn count(&mut self, stat: u32, ns: u64) -> u32 {
        let index = stat as usize;
        let stat = &mut self.stats[index];
        if stat.count == 0 {
            self.active.push(index.try_into().unwrap_or(NONE));
            (stat.min_ns, stat.max_ns) = (ns, ns);
        }
        stat.count += 1;
        stat.total_ns = stat.total_ns.saturating_add(ns);
        stat.min_ns = stat.min_ns.min(ns);
        stat.max_ns = stat.max_ns.max(ns);
        let count = &mut stat.buckets[usize::from(bucket(ns))];
        *count = count.saturating_add(1);
        stat.name
    }

    /// The slot at `at` is empty, or is this address's and its text has to be compared.
    #[cold]
    fn look_up(
        &mut self,
        names: &mut Names,
        at: usize,
        (address, device): (u64, u32),
        text: &[u8],
    ) -> Result<u32, Full> {
        let slot = self.slots[at];
        let known = slot.stat != NONE;
        let stat = if known && names.is(self.stats[slot.stat as usize].name, text) {
            slot.stat
        } else {
            self.stat_of(names, text, device)?
        };
        if !known {
            self.used += 1;
        }
        self.slots[at] = Slot {
            address,
            device,
            stat,
            checked: self.buffer,
        };
        if self.used * 4 > self.slots.len() * 3 {
            self.grow();
        }
        Ok(stat)
    }

    fn stat_of(&mut self, names: &mut Names, text: &[u8], device: u32) -> Result<u32, Full> {
        let name = names.number(text).ok_or(Full)?;
        if let Some(stat) = self.by_name.get(&(name, device)) {
            return Ok(*stat);
        }
        if self.stats.len() >= MOST {
            return Err(Full);
        }
        let stat = u32::try_from(self.stats.len()).map_err(|_| Full)?;
        self.stats.push(Stat {
            name,
            device,
            count: 0,
            total_ns: 0,
            min_ns: 0,
            max_ns: 0,
            buckets: [0; BUCKETS],
        });
        self.by_name.insert((name, device), stat);
        Ok(stat)
    }

    /// Doubles the table; one that is large enough begins anew, because most of its addresses are of modules long gone.
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.used = 0;
        if old.len() >= MOST_SLOTS {
            self.slots = vec![EMPTY; old.len()];
            return;
        }
        self.slots = vec![EMPTY; old.len() * 2];
        for slot in old.into_iter().filter(|slot| slot.stat != NONE) {
            let mut at = self.first_slot(slot.address, slot.device);
            while self.slots[at].stat != NONE {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = slot;
            self.used += 1;
        }
    }

    /// Ends the period at `now_ns` and hands what was counted to `tell`. What it refuses stays and is told with the next
    /// period, which is the longer for it: counts are late, but never lost.
    pub(crate) fn tell(&mut self, now_ns: u64, mut tell: impl FnMut(&Frame) -> bool) {
        let start_ns = *self.began_ns.get_or_insert(now_ns);
        let mut stats = Vec::new();
        let mut size = 0;
        let mut waiting = std::mem::take(&mut self.active).into_iter().peekable();
        let mut told = Vec::new();
        while let Some(index) = waiting.next() {
            let stat = self.stats[index as usize].told();
            // A number takes ten bytes at most.
            size += 60 + 11 * stat.buckets.len();
            stats.push(stat);
            told.push(index);
            let next = waiting.peek().map_or(0, |_| 60 + 11 * BUCKETS);
            if next != 0 && size + next < MOST_FRAME {
                continue;
            }
            let frame = Frame::Kernels(Kernels {
                start_ns,
                end_ns: now_ns.max(start_ns),
                stats: std::mem::take(&mut stats),
            });
            if tell(&frame) {
                told.iter().for_each(|index| self.stats[*index as usize].reset());
            } else {
                self.active.extend(&told);
            }
            told.clear();
            size = 0;
        }
        if self.active.is_empty() {
            self.began_ns = Some(now_ns);
        }
    }

    /// Nothing was recorded before now: the next period begins here.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        if self.active.is_empty() {
            self.began_ns = Some(now_ns);
        }
    }
}

impl Stat {
    fn told(&self) -> KernelStats {
        let buckets = (0_u8..).zip(&self.buckets).filter(|(_, count)| **count > 0);
        KernelStats {
            name: self.name,
            device: self.device,
            count: self.count,
            total_ns: self.total_ns,
            min_ns: self.min_ns,
            max_ns: self.max_ns,
            buckets: buckets
                .map(|(bucket, count)| (bucket, u64::from(*count)))
                .collect(),
        }
    }

    fn reset(&mut self) {
        (self.count, self.total_ns) = (0, 0);
        self.buckets.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(counts: &mut Counts, now: u64) -> Vec<Kernels> {
        let mut frames = Vec::new();
        counts.tell(now, |frame| {
            let Frame::Kernels(kernels) = frame else {
                return false;
            };
            frames.push(kernels.clone());
            true
        });
        frames
    }

    #[test]
    fn one_text_at_two_addresses_is_one_kernel() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        for (address, device, ns) in [(0x5000, 0, 10), (0x6000, 0, 30), (0x5000, 0, 20), (0x5000, 1, 5)] {
            counts
                .kernel(&mut names, (address, device), ns, || b"gemm")
                .unwrap();
        }
        let frames = told(&mut counts, 100);
        assert_eq!(frames.len(), 1);
        let stats = &frames[0].stats;
        assert_eq!(stats.len(), 2);
        let first = &stats[0];
        assert_eq!(
            (first.count, first.total_ns, first.min_ns, first.max_ns),
            (3, 60, 10, 30)
        );
        assert_eq!(first.buckets.iter().map(|(_, count)| count).sum::<u64>(), 3);
        assert_eq!((stats[1].device, stats[1].count), (1, 1));
        assert!(told(&mut counts, 200).is_empty());
    }

    #[test]
    fn an_address_with_another_text_is_another_kernel_from_the_next_buffer_on() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        let mut count = |counts: &mut Counts, text: &'static [u8]| {
            counts.kernel(&mut names, (0x5000, 0), 1, || text).unwrap()
        };
        assert_eq!(count(&mut counts, b"old"), 0);
        counts.next_buffer();
        assert_eq!(count(&mut counts, b"new"), 1);
        counts.next_buffer();
        assert_eq!(count(&mut counts, b"old"), 0);
    }

    #[test]
    fn what_is_refused_is_told_later_and_whole() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        counts.begin(50);
        counts.kernel(&mut names, (0x5000, 0), 10, || b"a").unwrap();
        counts.tell(100, |_| false);
        counts.kernel(&mut names, (0x5000, 0), 20, || b"a").unwrap();
        let frames = told(&mut counts, 200);
        assert_eq!((frames[0].start_ns, frames[0].end_ns), (50, 200));
        assert_eq!((frames[0].stats[0].count, frames[0].stats[0].total_ns), (2, 30));
        counts.kernel(&mut names, (0x5000, 0), 1, || b"a").unwrap();
        assert_eq!(told(&mut counts, 300)[0].start_ns, 200);
    }

    #[test]
    fn no_more_than_so_many_names() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        let texts: Vec<_> = (0..=crate::names::MOST)
            .map(|number| format!("kernel_{number}"))
            .collect();
        let results: Vec<_> = (4096..)
            .zip(&texts)
            .map(|(address, text)| counts.kernel(&mut names, (address, 0), 1, || text.as_bytes()))
            .collect();
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            crate::names::MOST
        );
        assert_eq!(results.last(), Some(&Err(Full)));
    }

    #[test]
    fn graphs_beyond_a_number_share_a_name() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        for graph in 0..u32::try_from(MOST_GRAPHS).unwrap() + 100 {
            counts.graph(&mut names, graph, 0, 1).unwrap();
        }
        let frames = told(&mut counts, 1);
        let stats: Vec<_> = frames.iter().flat_map(|frame| &frame.stats).collect();
        assert_eq!(stats.len(), MOST_GRAPHS + 1);
        assert_eq!(stats.last().map(|stat| stat.count), Some(100));
    }

    #[test]
    fn more_than_fits_in_a_frame_is_told_in_several() {
        let (mut names, mut counts) = (Names::default(), Counts::new());
        for number in 0..2_000_u64 {
            let text = format!("kernel_{number}");
            for ns in [1, 1_000, 1_000_000] {
                counts
                    .kernel(&mut names, (4096 + number, 0), ns * number, || text.as_bytes())
                    .unwrap();
            }
        }
        let mut bytes = Vec::new();
        let mut stats = 0;
        counts.tell(1, |frame| {
            frame.encode(&mut bytes);
            assert!(bytes.len() <= MOST_FRAME, "{}", bytes.len());
            let Frame::Kernels(kernels) = frame else {
                return false;
            };
            stats += kernels.stats.len();
            true
        });
        assert_eq!(stats, 2_000);
    }

    proptest! {
        /// However the records come, whatever is refused meanwhile: the sums are those of the records.
        #[test]
        fn counts_and_totals_are_exact(
            records in proptest::collection::vec((0..40_u64, 0..3_u32, any::<u32>(), any::<bool>()), 0..400),
        ) {
            let texts: Vec<_> = (0..10).map(|number| format!("kernel_{number}")).collect();
            let (mut names, mut counts) = (Names::default(), Counts::new());
            let mut expected = HashMap::<(u32, u32), (u64, u64)>::new();
            let mut found = HashMap::<(u32, u32), (u64, u64)>::new();
            let take = |frame: &Frame, found: &mut HashMap<(u32, u32), (u64, u64)>| {
                let Frame::Kernels(kernels) = frame else { return false };
                for stat in &kernels.stats {
                    let sum = found.entry((stat.name, stat.device)).or_default();
                    *sum = (sum.0 + stat.count, sum.1 + stat.total_ns);
                    assert_eq!(stat.buckets.iter().map(|(_, count)| count).sum::<u64>(), stat.count);
                    assert!(stat.min_ns <= stat.max_ns);
                }
                true
            };
            for (address, device, ns, flush) in records {
                let text = &texts[usize::try_from(address % 10).unwrap()];
                let name = counts
                    .kernel(&mut names, (4096 + address, device), ns.into(), || text.as_bytes())
                    .unwrap();
                let sum = expected.entry((name, device)).or_default();
                *sum = (sum.0 + 1, sum.1 + u64::from(ns));
                if flush {
                    counts.next_buffer();
                    counts.tell(ns.into(), |frame| !ns.is_multiple_of(3) && take(frame, &mut found));
                }
            }
            counts.tell(u64::MAX, |frame| take(frame, &mut found));
            prop_assert_eq!(found, expected);
        }
    }
}
