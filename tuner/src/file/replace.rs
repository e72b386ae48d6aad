//! Putting new bytes in a file's place.

use std::time::Duration;

use super::draft::draft;
use super::place::{Exchange, Held, Place};
use super::{FileError, Identity, Snapshot, hash, leftovers};

/// How long a writer of the old file is waited for while ours is already in place.
const SHORTLY: Duration = Duration::from_millis(250);

/// How long a writer of a file that goes back is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is in the file's place now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The hash of the new bytes.
    pub hash: String,
    /// The new file.
    pub identity: Identity,
}

/// A moment in [`replace`], for tests that stop there or interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Permitted,
    Drafted,
    Named,
    Checked,
    Exchanged,
    GivingBack,
    Done,
}

/// Puts new bytes in the place of a snapshot's, if the file is still what the snapshot says.
///
/// The new text is written to a file of its own in the same folder, with the old one's mode, owner and extended
/// attributes, and reaches the disk before it gets a name there (`.plimsoll-…`, hidden from engines that list their
/// folder). Then the two files change places in one step (`renameat2` with `RENAME_EXCHANGE`), so at every moment, also
/// that of a crash, the path leads to the old text or to the new one. What came out is compared with the snapshot: if a
/// person saved in the instant between the last check and the exchange, or is still writing, the files change back
/// until the path leads to what they saved last.
///
/// Limits: a program of another user that holds the file open for writing is only seen by root, and one that is inside
/// the very call of opening it, without emptying it, by nobody. A filesystem without the exchange (NFS, some FUSE) gets a
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
        place.exchange(&draft_name)
    });
    match outcome {
        Ok(Exchange::Both) => {}
        Ok(Exchange::OneWay) => {
            place.sync();
            at(Step::Done);
            return Ok(written);
        }
        Err(error) => {
            place.remove(&draft_name)?;
            return Err(error);
        }
    }
    at(Step::Exchanged);
    let held = place.look_at_when_quiet(&draft_name, SHORTLY);
    // Nobody can reach it by its path any more, so without a writer it is final.
    if held.writer.is_some() || held.hash.as_ref() != Some(&snapshot.hash) {
        at(Step::GivingBack);
        return Err(place.give_back(&draft_name, &written, held));
    }
    place.tidy(&draft_name);
    at(Step::Done);
    Ok(written)
}

impl Place {
    /// The file that came out of the exchange has a person's edit in it. It goes back to its path; and if meanwhile the
    /// person saved once more, over our text, that goes back instead.
    fn give_back(&self, draft: &str, ours: &Written, mut held: Held) -> FileError {
        let error = match held.writer {
            Some(pid) => FileError::BeingWritten {
                path: self.path.clone(),
                pid,
            },
            None => FileError::ChangedMeanwhile {
                path: self.path.clone(),
            },
        };
        let mut in_place = Held {
            identity: Some(ours.identity),
            hash: Some(ours.hash.clone()),
            writer: None,
        };
        for _ in 0..64 {
            // Without a file to change places with, the person has taken the path away.
            let Ok(Exchange::Both) = self.exchange(draft) else {
                break;
            };
            let out = self.look_at_when_quiet(draft, PATIENCE);
            if (&out.identity, &out.hash) == (&in_place.identity, &in_place.hash) {
                if out.writer.is_some() || out.hash.is_none() {
                    // Somebody has it open, and their next write must not go to a file without a name. Or what is in it
                    // cannot be told, so it may be more than what was there before.
                    break;
                }
                self.tidy(draft);
                return error;
            }
            in_place = Held { writer: None, ..held };
            held = out;
        }
        let step = |source| FileError::Step {
            path: self.path.clone(),
            step: "keep the other text",
            source,
        };
        match leftovers::keep(&self.directory, &self.folder, draft, &self.name) {
            Ok(kept) => FileError::Contended {
                path: self.path.clone(),
                kept,
            },
            Err(source) => step(source),
        }
    }
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
