//! Traces in SQLite.
//!
//! One process writes a store ([`Store`], [`Writer`]), any number read it at the same time ([`Reader`], or any SQLite
//! client): it is a plain database in write-ahead-log mode. Its views are a public interface and document themselves
//! (`SELECT * FROM columns`); its tables, whose names begin with an underscore, are private.
//!
//! - A record that was committed survives a crash of the process and of the machine.
//! - Writing never blocks the one who writes, and never takes unbounded memory. What had to be dropped is counted in
//!   the view `losses`.
//! - Raw values are stored, ratios and rates are derived on read. NULL is unknown, never zero.
//! - A file that is damaged, of another program or of a newer version is refused and left as it is.
//! - SQL from outside ([`Reader::console`]) can read this database and do nothing else, within limits.

mod authorizer;
#[cfg(test)]
mod bench;
mod changes;
mod console;
mod demangle;
mod error;
mod kernels;
mod ledger;
mod lock;
mod query_error;
mod queue;
mod reader;
mod recording;
mod retention;
mod rows;
mod scan;
mod schema;
mod script;
mod statement;
mod totals;
mod traced;
mod value;
mod writer;

pub use console::{Answer, Limits};
pub use error::StoreError;
pub use query_error::{Limit, Place, QueryError};
pub use reader::{OpenRun, Reader, Unfinished};
pub use recording::Playback;
pub use schema::DEFAULT_PATH;
pub use statement::Row;
pub use value::{Table, Value};
pub use writer::{Store, StoreOptions, Writer};
