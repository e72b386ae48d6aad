//! Kernels, memsets and whole graphs, counted by name and device: one step for each record, exact.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use plimsoll_trace::sketch::{BUCKETS, bucket};
use plimsoll_trace::wire::{Frame, KernelStats, Kernels};

use crate::buffers::MOST_RECORDS;
use crate::names::Names;
use crate::ship::MOST_FRAME;

/// So many entries at most.
const MOST: usize = 12_288;
/// From so many on the next buffer may have more new ones than there is room for, and the table begins anew.
const CROWDED: usize = MOST - MOST_RECORDS;
/// Places in the table, a power of two and at least twice the entries.
const PLACES: usize = (2 * MOST).next_power_of_two();
const NONE: u32 = u32::MAX;
/// An entry counts so many; from there on another one does. No bucket of it overflows.
const MOST_COUNTED: u64 = u32::MAX as u64;
/// So many graphs have a name of their own: a program that makes new ones all day must not use all names up.
const MOST_GRAPHS: usize = 1024;

/// What the kernel of one address of a name did on one device since it was last told. All that a record changes lies in the
/// first line of the processor's cache, but for its bucket.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry {
    address: u64,
    count: u64,
    total_ns: u64,
    min_ns: u64,
    max_ns: u64,
    name: u32,
    device: u32,
    /// In which buffer the text at the address was last compared.
    checked: u32,
    buckets: [u32; BUCKETS],
}

/// All kernels of a process.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Numbers of entries by address and device, open addressing.
    places: Vec<u32>,
    entries: Vec<Entry>,
    /// By what they are and device.
    others: HashMap<(Other, u32), u32>,
    /// Those that have counted anything since they were last told.
    active: Vec<u32>,
    buffer: u32,
    began_ns: Option<u64>,
}

/// What runs on a device and is no kernel of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Other {
    /// The graph of this number, whole.
    Graph(u32),
    /// All graphs beyond [`MOST_GRAPHS`].
    Graphs,
    Memset,
}

/// What it means that no kernel was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nothing ran: kernels are recorded, and CUPTI holds no buffer that one could be in.
    Quiet,
    /// Not known yet: CUPTI holds a buffer, and gives it back when it is full or all in it has ended.
    Withheld,
    /// Kernels are not recorded.
    Unrecorded,
}

/// There is no room for another name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            places: vec![NONE; PLACES],
            entries: Vec::new(),
            others: HashMap::new(),
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
        let mixed = (address ^ (u64::from(device) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut place = (mixed >> 40) as usize % PLACES;
        while let Some(entry) = self.entries.get(self.places[place] as usize) {
            if entry.address == address && entry.device == device {
                if entry.checked == self.buffer && entry.count < MOST_COUNTED {
                    return Ok(self.count(self.places[place], ns));
                }
                break;
            }
            place = (place + 1) % PLACES;
        }
        let number = self.look_up(names, place, (address, device), text())?;
        Ok(self.count(number, ns))
    }

    /// Counts what is no kernel under a name of its own.
    pub(crate) fn other(
        &mut self,
        names: &mut Names,
        other: Other,
        device: u32,
        ns: u64,
    ) -> Result<u32, Full> {
        let number = match self.others.get(&(other, device)) {
            Some(number) if self.entries[*number as usize].count < MOST_COUNTED => *number,
            None if matches!(other, Other::Graph(_)) && self.others.len() >= MOST_GRAPHS => {
                return self.other(names, Other::Graphs, device, ns);
            }
            _ => {
                let name = names.number(other.name().as_bytes()).ok_or(Full)?;
                let number = self.add(0, name, device)?;
                self.others.insert((other, device), number);
                number
            }
        };
        Ok(self.count(number, ns))
    }

    #[inline]
    fn count(&mut self, number: u32, ns: u64) -> u32 {
        let entry = &mut self.entries[number as usize];
        if entry.count == 0 {
            self.active.push(number);
            (entry.min_ns, entry.max_ns) = (ns, ns);
        }
        entry.count += 1;
        entry.total_ns = entry.total_ns.saturating_add(ns);
        entry.min_ns = entry.min_ns.min(ns);
        entry.max_ns = entry.max_ns.max(ns);
        entry.buckets[usize::from(bucket(ns))] += 1;
        entry.name
    }

    /// A place that is free, or one whose entry is of this address and whose text has to be compared.
    #[cold]
    fn look_up(
        &mut self,
        names: &mut Names,
        place: usize,
        (address, device): (u64, u32),
        text: &[u8],
    ) -> Result<u32, Full> {
        let number = self.places[place];
        if let Some(entry) = self.entries.get_mut(number as usize)
            && names.is(entry.name, text)
            && entry.count < MOST_COUNTED
        {
            entry.checked = self.buffer;
            return Ok(number);
        }
        // Another text at this address, or one that was counted too often: the entry that was here is told once more and found no more.
        let name = names.number(text).ok_or(Full)?;
        self.places[place] = self.add(address, name, device)?;
        Ok(self.places[place])
    }

    fn add(&mut self, address: u64, name: u32, device: u32) -> Result<u32, Full> {
        if self.entries.len() >= MOST {
            return Err(Full);
        }
        let number = u32::try_from(self.entries.len()).map_err(|_| Full)?;
        self.entries.push(Entry {
            address,
            count: 0,
            total_ns: 0,
            min_ns: 0,
            max_ns: 0,
            name,
            device,
            checked: self.buffer,
            buckets: [0; BUCKETS],
        });
        Ok(number)
    }

    /// Ends the period at `now_ns` and hands what was counted to `tell`. What it refuses stays and is told with the next
    /// period, which is the longer for it: counts are late, but never lost. When nothing ran although kernels are recorded,
    /// that is told too: it is another thing than not to know. While it is not known, the period goes on.
    pub(crate) fn tell(&mut self, now_ns: u64, silence: Silence, mut tell: impl FnMut(&Frame) -> bool) {
        let start_ns = *self.began_ns.get_or_insert(now_ns);
        let key = |number: &u32| {
            let entry = &self.entries[*number as usize];
            (entry.name, entry.device)
        };
        if self.active.is_empty() && silence == Silence::Withheld {
            return;
        }
        let mut active = std::mem::take(&mut self.active);
        active.sort_unstable_by_key(key);
        let mut stats = Vec::<KernelStats>::new();
        let (mut size, mut told) = (0, 0);
        let kernels: Vec<_> = active
            .chunk_by(|a, b| key(a) == key(b))
            .map(<[u32]>::len)
            .collect();
        let mut waiting = active.as_slice();
        for (at, length) in kernels.iter().enumerate() {
            let stat = self.sum(&waiting[told..told + length]);
            told += length;
            // A number takes ten bytes at most.
            size += 60 + 11 * stat.buckets.len();
            stats.push(stat);
            if at + 1 < kernels.len() && size + 60 + 11 * BUCKETS < MOST_FRAME {
                continue;
            }
            let frame = Frame::Kernels(Kernels {
                start_ns,
                end_ns: now_ns.max(start_ns),
                stats: std::mem::take(&mut stats),
            });
            let (now, later) = waiting.split_at(told);
            if tell(&frame) {
                now.iter()
                    .for_each(|number| self.entries[*number as usize].reset());
            } else {
                self.active.extend_from_slice(now);
            }
            (waiting, size, told) = (later, 0, 0);
        }
        if active.is_empty() && silence == Silence::Quiet && now_ns > start_ns {
            let stats = Vec::new();
            tell(&Frame::Kernels(Kernels {
                start_ns,
                end_ns: now_ns,
                stats,
            }));
        }
        self.begin(now_ns);
    }

    /// The next period begins now, unless something of the last one is still to be told.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        if !self.active.is_empty() {
            return;
        }
        self.began_ns = Some(now_ns);
        if self.is_crowded() {
            // Most of them are of addresses that are long gone.
            self.entries.clear();
            self.others.clear();
            self.places.fill(NONE);
        }
    }

    /// Whether the next buffer may have more new entries than there is room for.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.entries.len() > CROWDED
    }

    /// The names of what was counted and is not told.
    pub(crate) fn names_in_use(&self) -> HashSet<u32> {
        let name = |number: &u32| self.entries[*number as usize].name;
        self.active.iter().map(name).collect()
    }

    /// These numbers stand for nothing any more. Entries of addresses find that out when they compare the text; others have
    /// none to compare.
    pub(crate) fn forget(&mut self, names: &HashSet<u32>) {
        let name = |number: &u32| self.entries[*number as usize].name;
        self.others.retain(|_, number| !names.contains(&name(number)));
    }

    /// How many launches were counted and are not told.
    pub(crate) fn untold(&self) -> u64 {
        let count = |number: &u32| self.entries[*number as usize].count;
        self.active.iter().map(count).sum()
    }

    /// The clock was set: the period under way began then by the new one.
    pub(crate) fn shift(&mut self, step_ns: i64) {
        self.began_ns = self.began_ns.map(|began| began.saturating_add_signed(step_ns));
    }

    /// Entries of one name and device, whose addresses differ.
    fn sum(&self, numbers: &[u32]) -> KernelStats {
        let entries = || numbers.iter().map(|number| &self.entries[*number as usize]);
        let mut buckets = [0_u64; BUCKETS];
        for entry in entries() {
            for (sum, count) in buckets.iter_mut().zip(&entry.buckets) {
                *sum += u64::from(*count);
            }
        }
        let buckets = (0_u8..).zip(buckets).filter(|(_, count)| *count > 0);
        KernelStats {
            name: entries().next().map_or(0, |entry| entry.name),
            device: entries().next().map_or(0, |entry| entry.device),
            count: entries().map(|entry| entry.count).sum(),
            total_ns: entries().fold(0, |sum, entry| sum.saturating_add(entry.total_ns)),
            min_ns: entries().map(|entry| entry.min_ns).min().unwrap_or(0),
            max_ns: entries().map(|entry| entry.max_ns).max().unwrap_or(0),
            buckets: buckets.collect(),
        }
    }
}

impl Other {
    fn name(self) -> Cow<'static, str> {
        match self {
            Self::Graph(graph) => format!("CUDA graph {graph}").into(),
            Self::Graphs => "CUDA graphs".into(),
            Self::Memset => "[CUDA memset]".into(),
        }
    }
}

impl Entry {
    fn reset(&mut self) {
        (self.count, self.total_ns) = (0, 0);
        self.buckets.fill(0);
    }
}

#[cfg(test)]
mod tests;
