//! The executor's journal is the store.

use plimsoll_store::Writer;
use plimsoll_trace::{Batch, Record, Stamp};
use plimsoll_tuner::act::{Journal, JournalError};

pub(crate) struct StoreJournal(pub(crate) Writer);

impl Journal for StoreJournal {
    fn commit(&self, records: Vec<Record>) -> Result<(), JournalError> {
        let batch = Batch {
            at: Stamp::now(),
            records,
        };
        self.0
            .commit_blocking(batch)
            .map_err(|error| JournalError(Box::new(error)))
    }
}
