//! What an engine knows of its former lives: a small JSON file, replaced as a whole whenever a count changes.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The books over all lives of an engine under one load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Books {
    /// When the load began, in ns since the Unix epoch.
    pub(crate) epoch_ns: i64,
    /// Lives so far, this one included.
    pub(crate) starts: u32,
    /// Lives that ended because memory was out.
    pub(crate) out_of_memory: u32,
    /// Index of the first arrival of the load that no life has seen.
    pub(crate) next_arrival: usize,
    /// Requests that reached a life, probes included.
    pub(crate) taken: u64,
    /// Requests answered in full.
    pub(crate) served: u64,
    /// Requests turned away, or in flight when their life ended.
    pub(crate) lost: u64,
}

/// Why the books could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("reading the journal {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the journal {path} is damaged; remove it to begin anew")]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// The file of the books.
#[derive(Debug)]
pub(crate) struct Journal {
    path: Option<PathBuf>,
    written: Books,
}

impl Journal {
    /// Opens the books for a new life. What the last life had taken and not finished is lost. Books of another load
    /// (another `epoch_ns`) are closed and new ones begun.
    pub(crate) fn open(
        path: Option<&Path>,
        epoch_ns: Option<i64>,
        now_ns: i64,
    ) -> Result<(Self, Books), JournalError> {
        let former = match path {
            Some(path) => read(path)?.filter(|books| epoch_ns.is_none_or(|epoch| epoch == books.epoch_ns)),
            None => None,
        };
        let mut books = former.unwrap_or(Books {
            epoch_ns: epoch_ns.unwrap_or(now_ns),
            ..Books::default()
        });
        books.starts += 1;
        books.lost = books.taken.saturating_sub(books.served).max(books.lost);
        Ok((
            Self {
                path: path.map(Path::to_owned),
                written: Books::default(),
            },
            books,
        ))
    }

    /// Writes the books if they changed: whoever reads sees the old or the new ones, whenever this process dies.
    pub(crate) fn save(&mut self, books: &Books) -> io::Result<()> {
        let Some(path) = self.path.as_deref().filter(|_| self.written != *books) else {
            return Ok(());
        };
        replace(path, &serde_json::to_string(books)?)?;
        self.written = books.clone();
        Ok(())
    }
}

/// Puts `text` in the place of a file as a whole.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

fn read(path: &Path) -> Result<Option<Books>, JournalError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| JournalError::Damaged {
                path: path.to_owned(),
                source,
            }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(JournalError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_life_counts_what_was_in_flight_as_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("engine.journal");
        let (mut journal, mut books) = Journal::open(Some(&path), None, 77).expect("new");
        assert_eq!((books.epoch_ns, books.starts), (77, 1));
        (books.taken, books.served, books.lost, books.next_arrival) = (10, 6, 1, 9);
        journal.save(&books).expect("saved");

        let (_, books) = Journal::open(Some(&path), None, 99).expect("there");
        assert_eq!((books.epoch_ns, books.starts), (77, 2));
        assert_eq!(
            (books.taken, books.served, books.lost, books.next_arrival),
            (10, 6, 4, 9)
        );

        let (_, books) = Journal::open(Some(&path), Some(88), 99).expect("there");
        assert_eq!((books.epoch_ns, books.starts, books.taken), (88, 1, 0));
    }

    #[test]
    fn damaged_books_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("engine.journal");
        std::fs::write(&path, "{\"starts\": 3").expect("written");
        let error = Journal::open(Some(&path), None, 0).expect_err("damaged");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
