//! The executor's journal is the store. The loop hears of a step that the rules should know of.

use plimsoll_store::Writer;
use plimsoll_trace::{Batch, DecisionOutcome, Record, Stamp};
use plimsoll_tuner::act::{Journal, JournalError};
use tokio::sync::mpsc;

use super::pipeline::Event;

pub(crate) struct StoreJournal {
    pub(crate) writer: Writer,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Journal for StoreJournal {
    fn commit(&self, records: Vec<Record>) -> Result<(), JournalError> {
        let applied = records.iter().find_map(|record| match record {
            Record::Decision(decision) if decision.outcome == DecisionOutcome::Applied => {
                Some(Event::Applied(decision.engine.clone(), decision.rule.clone()))
            }
            _ => None,
        });
        let batch = Batch {
            at: Stamp::now(),
            records,
        };
        self.writer
            .commit_blocking(batch)
            .map_err(|error| JournalError(Box::new(error)))?;
        if let Some(applied) = applied {
            // A loop that has ended shows nothing any more.
            drop(self.events.blocking_send(applied));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_store::{Store, StoreOptions};
    use plimsoll_trace::{Decision, DecisionId, Mode, Verdict};

    use super::*;

    fn decision(outcome: DecisionOutcome) -> Record {
        Record::Decision(Decision {
            id: DecisionId(1),
            run: None,
            engine: "chat".to_owned(),
            rule: "quantize".to_owned(),
            at_ns: 1,
            mode: Mode::Act,
            verdict: Verdict::Apply,
            outcome,
            signal: "vram.used_ratio".to_owned(),
            value: None,
            threshold: None,
            explanation: String::new(),
            detail: serde_json::json!({}),
        })
    }

    #[tokio::test]
    async fn the_loop_hears_when_an_engine_serves_again() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(StoreOptions::new(folder.path().join("plimsoll.db"))).await?;
        let (events, mut queue) = mpsc::channel(16);
        let writer = store.writer();
        let commits = tokio::task::spawn_blocking(move || {
            let journal = StoreJournal { writer, events };
            journal.commit(vec![decision(DecisionOutcome::Applying)])?;
            journal.commit(vec![decision(DecisionOutcome::Applied)])
        });
        commits.await??;
        let Some(Event::Applied(engine, rule)) = queue.recv().await else {
            anyhow::bail!("another event");
        };
        assert_eq!((engine.as_str(), rule.as_str()), ("chat", "quantize"));
        assert!(queue.recv().await.is_none(), "once");
        Ok(())
    }
}
