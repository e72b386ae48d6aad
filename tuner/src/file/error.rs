//! Why a file was not read or not replaced.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::edit::MAX_BYTES;

/// A file that was not read or not replaced. It is as its author left it.
///
/// The text is a fragment that fits after "failed to write the configuration:".
#[derive(Debug, Error)]
pub enum FileError {
    /// Nothing there.
    #[error("{} does not exist; create it, or correct `config`", .path.display())]
    Missing {
        /// The path as configured.
        path: PathBuf,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file; correct `config`", .path.display())]
    NotRegular {
        /// Where.
        path: PathBuf,
    },
    /// Too large to be a configuration.
    #[error("{} has {bytes} bytes, and more than {MAX_BYTES} are not edited; is it the right file?", .path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The system refuses to read it.
    #[error("{} cannot be read; check its permissions and those of the folders above", .path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A symbolic link.
    #[error("{} is a symbolic link, and links are not edited; {}", .path.display(), instead(.target.as_deref()))]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads, when that can be told.
        target: Option<PathBuf>,
    },
    /// A folder on the way is a link that others could turn.
    #[error(
        "{} lies behind a link into {}, where everybody may write; name the folder itself in `config`, or close it to others",
        .path.display(), .folder.display()
    )]
    LinkToOpenFolder {
        /// The path as configured.
        path: PathBuf,
        /// Where it leads.
        folder: PathBuf,
    },
    /// No write permission.
    #[error("{} is read-only; allow writing to it if it may be changed", .path.display())]
    ReadOnly {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file has a second name.
    #[error("{} has another name elsewhere (a hard link), which would keep the old text; remove one of the names", .path.display())]
    HardLinked {
        /// Where.
        path: PathBuf,
    },
    /// The new file could not get the old one's owner, mode or attributes.
    #[error("the {what} of {} cannot be kept; run the daemon as its owner or as root", .path.display())]
    Attributes {
        /// Where.
        path: PathBuf,
        /// What of it.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody saved another text since the snapshot.
    #[error("{} was changed by somebody else in the meantime; their text stays", .path.display())]
    ChangedMeanwhile {
        /// Where.
        path: PathBuf,
    },
    /// A process has the file open for writing.
    #[error("{} is open for writing in {}; close it there, or try again", .path.display(), process(*.pid))]
    BeingWritten {
        /// Where.
        path: PathBuf,
        /// The process, if it can be seen.
        pid: Option<u32>,
    },
    /// The file is a mount of its own.
    #[error(
        "{} is mounted as a single file, so it cannot be replaced in one step; mount its folder instead",
        .path.display()
    )]
    Mounted {
        /// Where.
        path: PathBuf,
    },
    /// Another Plimsoll holds the folder's lock.
    #[error("another Plimsoll process is writing in {}; try again", .folder.display())]
    Locked {
        /// Where.
        folder: PathBuf,
    },
    /// A person saved twice while their text was put back, the second time perhaps without having seen the first; one of
    /// their texts is kept beside the file.
    #[error("{} was saved several times at once; one of the texts is kept in {}", .path.display(), .kept.display())]
    Contended {
        /// Where.
        path: PathBuf,
        /// The other text.
        kept: PathBuf,
    },
    /// The system refuses a step.
    #[error("cannot {step} for {}; the file was not changed", .path.display())]
    Step {
        /// Where.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// What to write in the configuration in place of a link.
fn instead(target: Option<&Path>) -> String {
    target.map_or_else(
        || "name the file itself in `config`".to_owned(),
        |target| {
            format!(
                "if {} may be changed, name it itself in `config`",
                target.display()
            )
        },
    )
}
