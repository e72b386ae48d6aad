//! The store through its public face.

mod console;
mod crash;
mod ledger;
mod open;
mod recording;
mod round_trip;
mod scan;
mod schema;
mod traced;

use std::path::PathBuf;

use plimsoll_store::{Reader, Store, StoreOptions, Value};
use plimsoll_trace::{Batch, Record, Stamp};
use tempfile::TempDir;

/// A store in a folder of its own.
struct Bench {
    folder: TempDir,
    store: Store,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(StoreOptions::new(folder.path().join("t.db")))
            .await
            .expect("a store");
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("t.db")
    }

    async fn reader(&self) -> Reader {
        Reader::open(self.path()).await.expect("readable")
    }

    async fn commit(&self, at_secs: i64, records: Vec<Record>) {
        self.store
            .writer()
            .commit(batch(at_secs, records))
            .await
            .expect("stored");
    }
}

fn batch(at_secs: i64, records: Vec<Record>) -> Batch {
    Batch {
        at: Stamp::at_secs(at_secs),
        records,
    }
}

async fn rows(reader: &Reader, sql: &str) -> Vec<Vec<Value>> {
    reader.query(sql, &[]).await.expect(sql).rows
}
