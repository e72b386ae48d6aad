//! Putting new bytes in a file's place.

use std::time::Duration;

use super::draft::draft;
use super::place::{Exchange, Place};
use super::{FileError, Identity, Snapshot, hash};

/// How long a writer of the old file is waited for.
const SHORTLY: Duration = Duration::from_millis(250);

/// What is in the file's place now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The hash of the new bytes.
    pub hash: String,
    /// The new file.
    pub identity: Identity,
}

/// A moment in [`replace`], for tests that stop there or interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Permitted,
    Drafted,
    Named,
    Checked,
    Leased,
    Exchanged,
    GivingBack,
    Done,
}

/// Puts new bytes in the place of a snapshot's, if the file is still what the snapshot says.
///
/// The new text is written to a file of its own in the same folder, with the old one's mode, owner and extended
/// attributes, and reaches the disk before it gets a name there (`.plimsoll-…`, hidden from engines that list their
/// folder). A lease on the old file makes sure that nobody has it open for writing, and that whoever comes to write waits.
/// Then the two files change places in one step (`renameat2` with `RENAME_EXCHANGE`), so at every moment, also
/// that of a crash, the path leads to the old text or to the new one. What came out is compared with the snapshot: if a
/// person put another file in place in the instant between the last check and the exchange, or somebody waits to write, the
/// files change back at once. If a person then saves a text that they had read in between, from ours, the one that it
/// replaces is kept beside the file ([`FileError::Contended`]).
///
/// Limits: a program that is inside the very call of opening the file, for longer than 20 ms, is not seen. Where there are no
/// leases (network filesystems; a file of another user, for a daemon that is not root), writers are looked for in `/proc`,
/// where those of other users are seen by root only. A filesystem without the exchange (NFS, some FUSE) gets a
/// plain rename, where a save in the microseconds after the last check would be replaced.
///
/// # Errors
/// [`FileError`]; the file is then as its author left it.
pub fn replace(snapshot: &Snapshot, new: &[u8]) -> Result<Written, FileError> {
    replace_with(snapshot, new, &mut |_| {})
}

/// Whether [`replace`] is permitted at all, as far as that can be told without touching anything.
///
/// # Errors
/// [`FileError`]: the reason why it is not.
pub fn check(snapshot: &Snapshot) -> Result<(), FileError> {
    Place::of(snapshot)?.permitted(snapshot)
}

pub(super) fn replace_with(
    snapshot: &Snapshot,
    new: &[u8],
    at: &mut dyn FnMut(Step),
) -> Result<Written, FileError> {
    let place = Place::of(snapshot)?;
    place.permitted(snapshot)?;
    at(Step::Permitted);
    let draft = draft(&place, snapshot, new)?;
    at(Step::Drafted);
    let written = Written {
        hash: hash(new),
        identity: draft.identity,
    };
    let draft_name = draft.named(&place, snapshot, &written)?;
    at(Step::Named);
    let outcome = place.unchanged(snapshot).and_then(|()| {
        at(Step::Checked);
        let lease = place.lease(&place.name, SHORTLY)?;
        if lease.is_some() {
            // What was saved before the lease shows now, what comes after waits for it.
            place.unchanged(snapshot)?;
        }
        at(Step::Leased);
        Ok((place.exchange(&draft_name)?, lease))
    });
    let lease = match outcome {
        Ok((Exchange::Both, lease)) => lease,
        Ok((Exchange::OneWay, _)) => {
            place.sync();
            at(Step::Done);
            return Ok(written);
        }
        Err(error) => {
            place.remove(&draft_name)?;
            return Err(error);
        }
    };
    at(Step::Exchanged);
    let held = place.look_at(&draft_name, lease.as_ref(), SHORTLY);
    // Nobody can reach it by its path any more, so without a writer it is final.
    if held.written || held.hash() != Some(&snapshot.hash) {
        at(Step::GivingBack);
        return Err(place.give_back(&draft_name, snapshot, &written, held, lease));
    }
    place.tidy(&draft_name);
    drop(lease);
    at(Step::Done);
    Ok(written)
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
