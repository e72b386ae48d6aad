//! The order in which samples reach the rules: by their stamps, not by who was quicker, so that a recording repeats it.

use std::time::Duration;

use plimsoll_trace::{Batch, Level, Record, Stamp, Work};

use crate::signals::Signals;

/// Without a driver the rules are looked at this often at least, as long as the host is sampled.
const UNDECIDED: Duration = Duration::from_secs(3);

/// More batches than this do not wait; the oldest are taken in.
const MOST_WAITING: usize = 4_096;

/// Holds samples back until the rules are looked at.
///
/// A look comes with each sample of devices, and sees what was sampled before it. What was sampled at the same instant
/// or later counts from the next look on, even if it came first. While devices are silent, a look comes with the host's
/// samples.
#[derive(Debug, Default)]
pub struct Intake {
    waiting: Vec<Batch>,
    /// When devices were sampled last.
    devices: Option<Stamp>,
    decided: Option<Stamp>,
}

impl Intake {
    /// Takes in what was observed at one instant. Says whether the rules are to be looked at now, at that instant.
    pub fn take(&mut self, signals: &mut Signals, batch: &Batch) -> bool {
        let at = batch.at;
        let has = |kind: fn(&Record) -> bool| batch.records.iter().any(kind);
        let of_devices = has(|record| matches!(record, Record::Device(_)));
        if of_devices || self.host_decides(signals, at) && has(|record| matches!(record, Record::Host(_))) {
            if of_devices {
                self.devices = Some(at);
            }
            self.decided = Some(at);
            self.waiting.sort_by_key(|batch| batch.at.mono_ns);
            let due = self
                .waiting
                .partition_point(|waiting| waiting.at.mono_ns < at.mono_ns);
            self.waiting.drain(..due).for_each(|batch| signals.update(&batch));
            signals.update(batch);
            return true;
        }
        // What ended has no values, whenever that is known.
        self.pick(
            signals,
            batch,
            |record| matches!(record, Record::RunEnd(_)),
            false,
        );
        self.pick(signals, batch, waits, true);
        false
    }

    fn host_decides(&self, signals: &Signals, at: Stamp) -> bool {
        let silent = |since: Option<Stamp>, time| since.is_none_or(|since| at.since(since) >= time);
        silent(self.devices, signals.max_age()) && silent(self.decided, UNDECIDED)
    }

    fn pick(&mut self, signals: &mut Signals, batch: &Batch, wanted: fn(&Record) -> bool, wait: bool) {
        let records: Vec<Record> = batch
            .records
            .iter()
            .filter(|record| wanted(record))
            .cloned()
            .collect();
        if records.is_empty() {
            return;
        }
        let picked = Batch {
            at: batch.at,
            records,
        };
        if !wait {
            signals.update(&picked);
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            signals.update(&self.waiting.remove(0));
        }
        self.waiting.push(picked);
    }
}

/// Whether a record is a value that a rule can see, and none of a device.
fn waits(record: &Record) -> bool {
    match record {
        Record::Host(_) | Record::Engine(_) => true,
        Record::Traced(traced) => match &traced.work {
            Work::Signal { .. } => true,
            Work::Allocator(sample) => sample.level == Level::PyTorch,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::{DeviceSample, HostSample, RunId};

    use super::*;
    use crate::rule::Ladder;
    use crate::rule::tests::rule;
    use crate::signals::EngineView;

    fn host(secs: i64, available: u64) -> Batch {
        let mut batch = Batch::new(Stamp::at_secs(secs));
        batch.records = vec![Record::Host(HostSample {
            memory_available_bytes: Some(available),
            ..HostSample::default()
        })];
        batch
    }

    fn device(secs: i64) -> Batch {
        let mut batch = Batch::new(Stamp::at_secs(secs));
        batch.records = vec![Record::Device(DeviceSample::unknown("GPU-a".into()))];
        batch
    }

    fn seen(signals: &Signals, secs: i64) -> Option<f64> {
        let toml =
            "name='a'\nengine='e'\nwhen={signal='host.memory_available_bytes',enter=1,exit=2}\nset={a=1}";
        let ladder = Ladder::new("e", vec![rule(toml).unwrap()]).unwrap();
        let view = EngineView {
            devices: Vec::new(),
            run: Some(RunId(1)),
        };
        let readings = signals.readings(&ladder, &view, Stamp::at_secs(secs));
        Some(readings.get(&ladder.rules[0].when.clauses()[0].probe)?.value)
    }

    #[test]
    fn a_look_sees_what_was_sampled_before_it_whoever_came_first() {
        for host_first in [true, false] {
            let (mut intake, mut signals) = (Intake::default(), Signals::new(Duration::from_secs(1)));
            assert!(intake.take(&mut signals, &device(1)));
            assert!(!intake.take(&mut signals, &host(1, 10)));
            let batches = if host_first {
                [host(2, 20), device(2)]
            } else {
                [device(2), host(2, 20)]
            };
            let looks = batches.map(|batch| {
                let looked = intake.take(&mut signals, &batch);
                looked.then(|| seen(&signals, 2))
            });
            assert_eq!(looks.into_iter().flatten().collect::<Vec<_>>(), [Some(10.0)]);
            assert!(intake.take(&mut signals, &device(3)));
            assert_eq!(seen(&signals, 3), Some(20.0));
        }
    }

    #[test]
    fn while_devices_are_silent_the_host_decides_now_and_then() {
        let (mut intake, mut signals) = (Intake::default(), Signals::new(Duration::from_secs(1)));
        assert!(intake.take(&mut signals, &device(0)));
        let looks = (1..=16).filter(|secs| intake.take(&mut signals, &host(*secs, 1)));
        assert_eq!(looks.collect::<Vec<_>>(), [10, 13, 16]);
        let mut bare = Intake::default();
        assert!(
            bare.take(&mut signals, &host(20, 1)),
            "it was never known to have any"
        );
    }
}
