//! Each process's share of SM time.
//!
//! The driver keeps samples with a time of their own per process. A newer one may have an older time than another
//! process's, so the last time seen is kept per process.

use std::collections::HashMap;
use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlProcessUtilizationSample_t;
use plimsoll_trace::Stamp;

use super::processes::{Row, grow_until_it_fits};
use super::raw;
use super::refusal::Refusal;
use super::tally::Tally;

/// The driver makes a sample at least this often while a process runs kernels; a share is valid for so long.
const VALID: Duration = Duration::from_secs(1);
/// A device that refuses is asked again after this long.
const REST: Duration = Duration::from_secs(10);

const BLANK: nvmlProcessUtilizationSample_t = nvmlProcessUtilizationSample_t {
    pid: 0,
    timeStamp: 0,
    smUtil: 0,
    memUtil: 0,
    encUtil: 0,
    decUtil: 0,
};

/// The buffer that all devices share.
#[derive(Debug)]
pub(super) struct Buffer(Vec<nvmlProcessUtilizationSample_t>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![BLANK; 128])
    }
}

#[derive(Clone, Copy, Debug)]
struct Share {
    /// The driver's time of the sample, microseconds.
    stamp_us: u64,
    ratio: f64,
    read: Stamp,
}

/// One device's shares.
#[derive(Debug, Default)]
pub(super) struct Utilization {
    shares: HashMap<u32, Share>,
    rests_until: Option<Stamp>,
}

impl Utilization {
    /// Asks for what is new about the processes in `rows`, and forgets all others.
    pub(super) fn read(
        &mut self,
        device: &Device<'_>,
        rows: &[Row],
        at: Stamp,
        buffer: &mut Buffer,
        tally: &mut Tally,
    ) {
        self.shares.retain(|pid, _| is_listed(rows, *pid));
        if rows.is_empty() || self.rests_until.is_some_and(|until| at < until) {
            return;
        }
        self.rests_until = None;
        let since_us = self.since_us();
        let fill = |samples: &mut [_]| raw::utilization(device, since_us, samples);
        match grow_until_it_fits(&mut buffer.0, 1, BLANK, fill) {
            Ok(count) => self.take(buffer.0.get(..count).unwrap_or_default(), rows, at, tally),
            // Nothing ran since then.
            Err(NvmlError::NotFound) => {}
            Err(error) => match Refusal::of(&error) {
                Refusal::Absent | Refusal::Unsupported => self.rests_until = Some(at.plus(REST)),
                Refusal::Dead | Refusal::Passing => tally.add("process_utilization_failed", 1),
            },
        }
    }

    /// The oldest of the last times seen, so that no process's sample is missed.
    fn since_us(&self) -> u64 {
        self.shares
            .values()
            .map(|share| share.stamp_us)
            .min()
            .unwrap_or(0)
    }

    fn take(
        &mut self,
        samples: &[nvmlProcessUtilizationSample_t],
        rows: &[Row],
        at: Stamp,
        tally: &mut Tally,
    ) {
        for sample in samples {
            let former = self.shares.get(&sample.pid).map_or(0, |share| share.stamp_us);
            if sample.timeStamp <= former || !is_listed(rows, sample.pid) {
                continue;
            }
            if sample.smUtil > 100 {
                tally.add("implausible_utilization", 1);
                continue;
            }
            let share = Share {
                stamp_us: sample.timeStamp,
                ratio: f64::from(sample.smUtil) / 100.0,
                read: at,
            };
            self.shares.insert(sample.pid, share);
        }
    }

    /// The share of SM time of `pid` at `at`, 0..1; `None` when the driver said nothing about it lately.
    pub(super) fn of(&self, pid: u32, at: Stamp) -> Option<f64> {
        let share = self.shares.get(&pid)?;
        (at == share.read || at.since(share.read) < VALID).then_some(share.ratio)
    }
}

/// `rows` are sorted by pid.
fn is_listed(rows: &[Row], pid: u32) -> bool {
    rows.binary_search_by_key(&pid, |row| row.pid).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pid: u32, stamp_us: u64, percent: u32) -> nvmlProcessUtilizationSample_t {
        nvmlProcessUtilizationSample_t {
            pid,
            timeStamp: stamp_us,
            smUtil: percent,
            ..BLANK
        }
    }

    fn rows(pids: &[u32]) -> Vec<Row> {
        pids.iter()
            .map(|&pid| Row {
                pid,
                used_bytes: None,
            })
            .collect()
    }

    #[test]
    fn every_process_has_a_last_time_of_its_own() {
        let (mut utilization, mut tally) = (Utilization::default(), Tally::default());
        let (rows, t) = (rows(&[1, 2]), Stamp::at_secs);
        utilization.take(
            &[sample(1, 1000, 50), sample(2, 900, 20)],
            &rows,
            t(1),
            &mut tally,
        );
        assert_eq!(utilization.since_us(), 900);
        assert_eq!(
            (utilization.of(1, t(1)), utilization.of(2, t(1))),
            (Some(0.5), Some(0.2))
        );
        // Newer for process 2, although older than process 1's; a repeated one for process 1.
        utilization.take(
            &[sample(2, 950, 30), sample(1, 1000, 99)],
            &rows,
            t(2),
            &mut tally,
        );
        assert_eq!(
            (utilization.of(1, t(2)), utilization.of(2, t(2))),
            (None, Some(0.3))
        );
        // Several of one process: the newest counts, in whatever order they come.
        utilization.take(
            &[sample(1, 1200, 70), sample(1, 1100, 60)],
            &rows,
            t(3),
            &mut tally,
        );
        assert_eq!(utilization.of(1, t(3)), Some(0.7));
    }

    #[test]
    fn garbage_is_counted_and_strangers_are_not_kept() {
        let (mut utilization, mut tally) = (Utilization::default(), Tally::default());
        let at = Stamp::at_secs(1);
        utilization.take(
            &[sample(1, 10, 101), sample(7, 10, 5)],
            &rows(&[1]),
            at,
            &mut tally,
        );
        assert_eq!((utilization.of(1, at), utilization.of(7, at)), (None, None));
        let mut records = Vec::new();
        tally.report(at, &mut records);
        assert_eq!(records.len(), 1);
    }
}
