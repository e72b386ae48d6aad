//! The figures of allocators that are costly to measure: only when a person asks, and only in the run that they ask about.
//!
//! The helper in a process hears of it in the answer to its usual report, which it makes once a second.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_trace::{Batch, RunId, Stamp};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::allocator::Key;
use super::control;
use super::pipeline::{Event, Pipeline};

/// How long measuring may take; who asks is patient for five seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// An allocator that was not heard of for so long is not waited for.
const FRESH: Duration = Duration::from_secs(5);

/// What was asked for and is awaited.
#[derive(Default)]
pub(super) struct Snapshots {
    asked: Vec<Asked>,
    last: u64,
}

struct Asked {
    number: u64,
    awaited: BTreeSet<Key>,
    /// How many allocators were asked in all.
    count: usize,
    answer: oneshot::Sender<Value>,
}

impl Snapshots {
    /// Whether somebody waits for this allocator's figures.
    pub(super) fn wants(&self, key: &Key) -> bool {
        self.asked.iter().any(|asked| asked.awaited.contains(key))
    }

    fn ask(&mut self, awaited: BTreeSet<Key>, answer: oneshot::Sender<Value>) -> u64 {
        self.last += 1;
        self.asked.push(Asked {
            number: self.last,
            count: awaited.len(),
            awaited,
            answer,
        });
        self.last
    }

    /// Takes an allocator off what is awaited, and answers with what is complete by that.
    fn measured(&mut self, key: &Key) -> Vec<Asked> {
        for asked in &mut self.asked {
            asked.awaited.remove(key);
        }
        self.asked
            .extract_if(.., |asked| asked.awaited.is_empty())
            .collect()
    }

    fn due(&mut self, number: u64) -> Vec<Asked> {
        self.asked
            .extract_if(.., |asked| asked.number == number)
            .collect()
    }
}

impl Pipeline {
    /// Has the allocators of a run measured. The answer comes when all have told, or when it takes too long.
    pub(super) fn measure_allocators(&mut self, run: RunId, answer: oneshot::Sender<Value>) {
        let now = Stamp::now();
        let reporting = self.heard.iter().filter(|(_, last)| now.since(**last) <= FRESH);
        let awaited: BTreeSet<Key> = reporting
            .filter(|((pid, _), _)| self.run_of_process(*pid) == Some(run))
            .map(|(key, _)| key.clone())
            .collect();
        if awaited.is_empty() {
            drop(answer.send(json!({ "asked": 0, "measured": 0 })));
            return;
        }
        let number = self.snapshots.ask(awaited, answer);
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            drop(events.send(Event::SnapshotDue(number)).await);
        });
    }

    pub(super) fn allocator_measured(&mut self, key: &Key) {
        let complete = self.snapshots.measured(key);
        complete.into_iter().for_each(|asked| self.tell_measured(asked));
    }

    pub(super) fn snapshot_due(&mut self, number: u64) {
        let given_up = self.snapshots.due(number);
        given_up.into_iter().for_each(|asked| self.tell_measured(asked));
    }

    /// Answers once what was measured is on the disk, where whoever asked looks for it.
    fn tell_measured(&self, asked: Asked) {
        let writer = self.writer.clone();
        tokio::spawn(async move {
            let answer = match writer.commit(Batch::new(Stamp::now())).await {
                Ok(()) => {
                    json!({ "asked": asked.count, "measured": asked.count - asked.awaited.len() })
                }
                Err(error) => control::error(&error.to_string()),
            };
            // Who asked may have gone; then nobody needs the answer.
            drop(asked.answer.send(answer));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_who_asks_is_answered_when_all_of_theirs_have_told_or_when_it_takes_too_long() {
        let mut snapshots = Snapshots::default();
        let key = |pid: u32| (pid, None);
        let mut ask = |pids: &[u32]| {
            let (answer, _) = oneshot::channel();
            snapshots.ask(pids.iter().copied().map(key).collect(), answer)
        };
        let (first, second) = (ask(&[1, 2]), ask(&[2, 3]));
        assert!(snapshots.wants(&key(3)) && !snapshots.wants(&key(4)));
        assert_eq!(snapshots.measured(&key(2)).len(), 0);
        let complete = snapshots.measured(&key(1));
        assert_eq!(
            complete.iter().map(|asked| asked.number).collect::<Vec<_>>(),
            [first]
        );
        assert!(!snapshots.wants(&key(2)), "it told everybody at once");
        let late = snapshots.due(second);
        assert_eq!(late[0].awaited, BTreeSet::from([key(3)]));
        assert!(!snapshots.wants(&key(3)));
        assert!(snapshots.due(first).is_empty());
    }
}
