//! What could not be recorded, counted by reason.

use std::time::Duration;

use plimsoll_trace::{Loss, Record, Stamp};

/// A reason that goes on is told this often; a new one at once.
const REPEAT: Duration = Duration::from_secs(10);

/// The reason for which a process list is missing. It is told with the very tick, so that a reader of that tick does not
/// take the missing rows for processes that ended.
pub(super) const PROCESSES_FAILED: &str = "processes_failed";

#[derive(Debug, Default)]
pub(super) struct Tally {
    reasons: Vec<Reason>,
}

#[derive(Debug)]
struct Reason {
    word: &'static str,
    count: u64,
    told: Option<Stamp>,
}

impl Tally {
    /// Counts `count` losses for the reason `word`.
    pub(super) fn add(&mut self, word: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        match self.reasons.iter_mut().find(|reason| reason.word == word) {
            Some(reason) => reason.count += count,
            None => self.reasons.push(Reason {
                word,
                count,
                told: None,
            }),
        }
    }

    /// Moves what is due at `at` into `records`.
    pub(super) fn report(&mut self, at: Stamp, records: &mut Vec<Record>) {
        for reason in self.reasons.iter_mut().filter(|reason| reason.count > 0) {
            let rested = reason.told.is_none_or(|told| at.since(told) >= REPEAT);
            if rested || reason.word == PROCESSES_FAILED {
                records.push(Record::Loss(Loss::new("nvml", reason.word, reason.count)));
                (reason.count, reason.told) = (0, Some(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tally: &mut Tally, secs: i64) -> Vec<(String, u64)> {
        let mut records = Vec::new();
        tally.report(Stamp::at_secs(secs), &mut records);
        records
            .into_iter()
            .map(|record| match record {
                Record::Loss(loss) => (loss.reason.into_owned(), loss.count),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_reason_is_told_at_once_and_then_every_ten_seconds() {
        let mut tally = Tally::default();
        tally.add("power_failed", 0);
        assert_eq!(told(&mut tally, 1), []);
        tally.add("power_failed", 2);
        assert_eq!(told(&mut tally, 1), [("power_failed".into(), 2)]);
        tally.add("power_failed", 3);
        tally.add(PROCESSES_FAILED, 1);
        assert_eq!(told(&mut tally, 2), [(PROCESSES_FAILED.into(), 1)]);
        tally.add(PROCESSES_FAILED, 1);
        assert_eq!(told(&mut tally, 3), [(PROCESSES_FAILED.into(), 1)]);
        assert_eq!(told(&mut tally, 11), [("power_failed".into(), 3)]);
        assert_eq!(told(&mut tally, 30), []);
    }
}
