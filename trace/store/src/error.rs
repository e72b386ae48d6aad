//! What can go wrong with a store.

use std::{io, path::PathBuf, sync::Arc};

use thiserror::Error;

/// A failure to open, write or read a store. Reads after "failed to …:"; the cause is in `source`.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The folder of a store to be created does not exist.
    #[error("the folder {} does not exist; create it, or choose another path for the store", .folder.display())]
    NoFolder {
        /// The missing folder.
        folder: PathBuf,
    },
    /// There is no file to read.
    #[error("there is no store at {}; record something first, or name another path", .path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process writes this store.
    #[error(
        "the store {} is being written by {}; stop that one, or choose another path",
        .path.display(), .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who holds it, if its lock file says so.
        pid: Option<u32>,
    },
    /// The file is not a database, or not a whole one.
    #[error(
        "{} is not a SQLite database or is damaged, and was left as it is; \
         move it away, or save what can be read of it with sqlite3's .recover", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said, if it was asked.
        source: Option<Arc<sqlx::Error>>,
    },
    /// The file is a healthy database of some other program.
    #[error("{} is a SQLite database, but no store of plimsoll; choose another path", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The schema is newer than this program.
    #[error(
        "the store {} has schema version {found}, and this program knows versions up to {known}; \
         use a newer plimsoll, or choose another path", .path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The schema is older than this program, which only reads and therefore cannot bring it up to date.
    #[error(
        "the store {} has schema version {found}, and this program reads version {known}; \
         start the daemon on it once to bring it up to date", .path.display()
    )]
    Older {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version this program reads.
        known: i64,
    },
    /// A file operation failed.
    #[error("{doing} {} failed", .path.display())]
    Io {
        /// What was tried, such as "creating".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// SQLite or its driver refused.
    #[error("{doing} failed")]
    Sql {
        /// What was tried, such as "storing records".
        doing: &'static str,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// SQLite refused what was asked of it without its driver.
    #[error("{doing} failed: {message}")]
    Refused {
        /// What was tried, such as "reading the store".
        doing: &'static str,
        /// What SQLite said.
        message: String,
    },
    /// The schema could not be created or brought up to date.
    #[error("the schema of {} could not be brought up to date", .path.display())]
    Migrate {
        /// The store.
        path: PathBuf,
        /// Which step failed and how.
        source: Arc<sqlx::migrate::MigrateError>,
    },
    /// A stored row holds something this program does not understand.
    #[error("{row} holds {problem}")]
    Row {
        /// Which row, such as "decision 7".
        row: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store was closed before the records came.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql {
            doing,
            source: Arc::new(source),
        }
    }
}

/// The primary result code of SQLite behind an error of its driver (<https://sqlite.org/rescode.html>).
pub(crate) fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
