//! Which process samples are worth a row, and the most that each run ever held.
//!
//! A tick lists every process on every device, and most of them are as they were: a row is stored when something
//! changed and once a minute. A process that is no longer listed gets one more row in which nothing is known, so that
//! its last value does not seem to go on.

use std::collections::{HashMap, HashSet};

use plimsoll_trace::{DeviceId, ProcessSample, Record, RunId};

use crate::{queue::Item, rows::ppm};

/// A row is repeated after this time even if nothing changed.
const KEYFRAME_NS: i64 = 60_000_000_000;
/// A process that was not heard of for this long, its device neither, is forgotten.
const FORGET_NS: i64 = 10 * KEYFRAME_NS;

#[derive(Default)]
pub(crate) struct ProcessChanges {
    seen: HashMap<(DeviceId, u32), Seen>,
    devices: HashMap<DeviceId, Ticks>,
    /// The instant being read, and the runs that have a process in it.
    now_ns: i64,
    touched: HashSet<RunId>,
    peaks: HashMap<RunId, Peak>,
}

struct Seen {
    last: ProcessSample,
    seen_ns: i64,
    stored_ns: i64,
}

/// When a device was last read, and when its processes were.
#[derive(Default)]
struct Ticks {
    sample_ns: Option<i64>,
    processes_ns: Option<i64>,
}

#[derive(Clone, Copy)]
struct Peak {
    bytes: u64,
    stored: bool,
}

impl ProcessChanges {
    /// Passes on what is to be stored, in order.
    pub(crate) fn filter(&mut self, item: Item, out: &mut impl Extend<Item>) {
        if item.at_ns != self.now_ns {
            self.instant_over();
            self.now_ns = item.at_ns;
        }
        match &item.record {
            Record::Process(sample) => {
                if self.is_news(sample, item.at_ns) {
                    out.extend([item]);
                }
            }
            Record::Device(sample) => {
                out.extend(self.gone(&sample.device, item.at_ns));
                out.extend([item]);
            }
            _ => out.extend([item]),
        }
    }

    /// To be called when no more records of the current instant are at hand.
    pub(crate) fn instant_over(&mut self) {
        for run in self.touched.drain() {
            let held = self
                .seen
                .iter()
                .filter(|((device, _), seen)| {
                    seen.last.run == Some(run)
                        && self.devices.get(device).and_then(|ticks| ticks.processes_ns) == Some(seen.seen_ns)
                })
                .map(|(_, seen)| seen.last.used_bytes)
                .reduce(|sum, used| Some(sum?.saturating_add(used?)));
            // What one process holds is unknown, so the sum is.
            let Some(Some(bytes)) = held else { continue };
            let peak = self.peaks.entry(run).or_insert(Peak { bytes, stored: false });
            if bytes > peak.bytes {
                *peak = Peak { bytes, stored: false };
            }
        }
    }

    /// Peaks that the database does not have yet.
    pub(crate) fn unstored_peaks(&self) -> Vec<(RunId, u64)> {
        let mut peaks: Vec<_> = self
            .peaks
            .iter()
            .filter(|(_, peak)| !peak.stored)
            .map(|(run, peak)| (*run, peak.bytes))
            .collect();
        peaks.sort_unstable();
        peaks
    }

    /// The database has this peak now.
    pub(crate) fn peak_is_stored(&mut self, run: RunId, bytes: u64) {
        if let Some(peak) = self.peaks.get_mut(&run) {
            peak.stored = peak.bytes == bytes;
        }
    }

    /// The run is over and its peak is stored.
    pub(crate) fn run_is_over(&mut self, run: RunId) {
        self.peaks.remove(&run);
    }

    /// Rows were dropped before they were stored: from here on everything is news again.
    pub(crate) fn forget_what_is_stored(&mut self) {
        for seen in self.seen.values_mut() {
            seen.stored_ns = i64::MIN;
        }
    }

    fn is_news(&mut self, sample: &ProcessSample, at_ns: i64) -> bool {
        self.touched.extend(sample.run);
        self.devices
            .entry(sample.device.clone())
            .or_default()
            .processes_ns = Some(at_ns);
        let key = (sample.device.clone(), sample.pid);
        let Some(seen) = self.seen.get_mut(&key) else {
            self.seen.insert(
                key,
                Seen {
                    last: sample.clone(),
                    seen_ns: at_ns,
                    stored_ns: at_ns,
                },
            );
            return true;
        };
        seen.seen_ns = at_ns;
        let age_ns = at_ns.saturating_sub(seen.stored_ns);
        // A negative age: the clock was set back, and what was stored lies in the future.
        let news = !(0..KEYFRAME_NS).contains(&age_ns) || differs(&seen.last, sample);
        if news {
            seen.last = sample.clone();
            seen.stored_ns = at_ns;
        }
        news
    }

    /// Closing rows for the processes that the last reading of this device no longer listed. That is known one
    /// reading later only, because the samples of a device and of its processes need not come in one batch.
    fn gone(&mut self, device: &DeviceId, at_ns: i64) -> Vec<Item> {
        let ticks = self.devices.entry(device.clone()).or_default();
        let Some(before_ns) = ticks
            .sample_ns
            .replace(at_ns)
            .filter(|before_ns| *before_ns < at_ns)
        else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        self.seen.retain(|(on, _), seen| {
            if on != device {
                return at_ns.saturating_sub(seen.seen_ns) < FORGET_NS;
            }
            if seen.seen_ns >= before_ns {
                return true;
            }
            let mut record = seen.last.clone();
            (record.used_bytes, record.sm_busy_ratio) = (None, None);
            rows.push(Item {
                at_ns: before_ns,
                record: Record::Process(record),
                ticket: None,
            });
            false
        });
        rows
    }
}

/// Whether a row of `new` would differ from one of `old`.
fn differs(old: &ProcessSample, new: &ProcessSample) -> bool {
    old.run != new.run
        || old.used_bytes != new.used_bytes
        || old.process != new.process
        || old.container != new.container
        || old.sm_busy_ratio.and_then(ppm) != new.sm_busy_ratio.and_then(ppm)
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::DeviceSample;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn process(device: &str, pid: u32, used: Option<u64>) -> Record {
        Record::Process(ProcessSample {
            device: device.into(),
            pid,
            run: Some(RunId(1)),
            used_bytes: used,
            sm_busy_ratio: Some(0.5),
            process: None,
            container: None,
        })
    }

    fn device(name: &str) -> Record {
        Record::Device(DeviceSample::unknown(name.into()))
    }

    /// Feeds one instant and says what is stored of processes: (time in s, pid, used).
    fn feed(
        changes: &mut ProcessChanges,
        at_secs: i64,
        records: Vec<Record>,
    ) -> Vec<(i64, u32, Option<u64>)> {
        let mut out = Vec::new();
        for record in records {
            changes.filter(
                Item {
                    at_ns: at_secs * SECOND,
                    record,
                    ticket: None,
                },
                &mut out,
            );
        }
        changes.instant_over();
        out.into_iter()
            .filter_map(|item| match item.record {
                Record::Process(sample) => Some((item.at_ns / SECOND, sample.pid, sample.used_bytes)),
                _ => None,
            })
            .collect()
    }

    fn peak(changes: &ProcessChanges) -> Option<u64> {
        changes.peaks.get(&RunId(1)).map(|peak| peak.bytes)
    }

    #[test]
    fn a_row_is_stored_on_change_and_once_a_minute() {
        let changes = &mut ProcessChanges::default();
        let tick = |used| vec![device("a"), process("a", 7, Some(used))];
        assert_eq!(feed(changes, 1, tick(10)), [(1, 7, Some(10))]);
        assert_eq!(feed(changes, 2, tick(10)), []);
        assert_eq!(feed(changes, 3, tick(11)), [(3, 7, Some(11))]);
        assert_eq!(feed(changes, 62, tick(11)), []);
        assert_eq!(feed(changes, 63, tick(11)), [(63, 7, Some(11))]);
        assert_eq!(
            feed(changes, 5, tick(11)),
            [(5, 7, Some(11))],
            "the clock was set back"
        );
        changes.forget_what_is_stored();
        assert_eq!(feed(changes, 6, tick(11)), [(6, 7, Some(11))]);
    }

    #[test]
    fn a_process_that_is_gone_is_closed_where_it_first_was_missing() {
        let changes = &mut ProcessChanges::default();
        feed(
            changes,
            1,
            vec![device("a"), process("a", 7, Some(10)), process("a", 8, Some(1))],
        );
        assert_eq!(feed(changes, 2, vec![device("a"), process("a", 8, Some(1))]), []);
        assert_eq!(
            feed(changes, 3, vec![device("a"), process("a", 8, Some(1))]),
            [(2, 7, None)]
        );
        assert_eq!(feed(changes, 4, vec![device("a"), process("a", 8, Some(1))]), []);
        // A lost device is not read, and says nothing about its processes.
        assert_eq!(feed(changes, 5, vec![device("b")]), []);
        assert_eq!(feed(changes, 6, vec![device("b")]), []);
    }

    #[test]
    fn samples_of_processes_may_come_in_a_batch_of_their_own() {
        let changes = &mut ProcessChanges::default();
        for second in 1..10 {
            let rows = feed(changes, second, vec![process("a", 7, Some(10))]);
            assert_eq!(rows.len(), usize::from(second == 1));
            assert_eq!(feed(changes, second, vec![device("a")]), []);
        }
    }

    #[test]
    fn the_peak_is_the_largest_sum_at_one_instant() {
        let changes = &mut ProcessChanges::default();
        feed(changes, 1, vec![device("a"), process("a", 7, None)]);
        assert_eq!(peak(changes), None, "unknown is not zero");
        feed(
            changes,
            1,
            vec![
                device("a"),
                process("a", 7, None),
                device("b"),
                process("b", 7, Some(50)),
            ],
        );
        assert_eq!(peak(changes), None, "a sum with something unknown is no sum");
        feed(
            changes,
            2,
            vec![
                device("a"),
                process("a", 7, Some(40)),
                device("b"),
                process("b", 7, Some(2)),
            ],
        );
        assert_eq!(peak(changes), Some(42));
        // One process takes the place of another: never both.
        feed(
            changes,
            3,
            vec![
                device("a"),
                process("a", 9, Some(41)),
                device("b"),
                process("b", 7, Some(2)),
            ],
        );
        assert_eq!(peak(changes), Some(43));
        assert_eq!(changes.unstored_peaks(), [(RunId(1), 43)]);
        changes.peak_is_stored(RunId(1), 43);
        assert_eq!(changes.unstored_peaks(), []);
        feed(changes, 4, vec![device("a"), process("a", 9, Some(1))]);
        assert_eq!(changes.unstored_peaks(), []);
    }
}
