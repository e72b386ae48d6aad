//! Putting new bytes in a file's place.

use std::time::{Duration, Instant};

use super::draft::draft;
use super::lease::Lease;
use super::place::{Exchange, Held, Place};
use super::{FileError, Identity, Snapshot, hash, leftovers, read};

/// How long a writer of the old file is waited for.
const SHORTLY: Duration = Duration::from_millis(250);

/// How long a writer of a file that goes back is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A program that reads a file to change it and saves it takes so long at most, unless it is an editor with a person before
/// it, which says itself that the file was changed.
const SAVED_WITHIN: Duration = Duration::from_millis(500);

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

impl Place {
    /// The file that came out of the exchange has a person's edit in it, or will have. It goes back to its path; and if
    /// meanwhile the person saved once more, over our text, that goes back instead, and the first is kept beside it.
    fn give_back(
        &self,
        draft: &str,
        old: &Snapshot,
        ours: &Written,
        mut held: Held,
        mut waiting: Option<Lease>,
    ) -> FileError {
        let error = if held.written {
            FileError::BeingWritten {
                path: self.path.clone(),
                pid: held.writer,
            }
        } else {
            FileError::ChangedMeanwhile {
                path: self.path.clone(),
            }
        };
        let mut in_place = (Some(ours.identity), Some(ours.hash.clone()));
        for _ in 0..64 {
            let lease = self.lease(&self.name, Duration::ZERO).unwrap_or_default();
            // Without a file to change places with, the person has taken the path away.
            let Ok(Exchange::Both) = self.exchange(draft) else {
                break;
            };
            // Whoever waits to write to what is in place again goes on.
            drop(waiting.take());
            let out = self.look_at(draft, lease.as_ref(), PATIENCE);
            if (out.identity, out.hash()) == (in_place.0, in_place.1.as_deref()) {
                // Somebody has it open, and their next write must not go to a file without a name. Or what is in it cannot
                // be told, so it may be more than what was there before.
                let open = out.written || out.hash().is_none();
                let known = [&old.hash, &ours.hash]
                    .into_iter()
                    .any(|hash| out.hash() == Some(hash));
                if open || !(known || self.includes(&out)) {
                    break;
                }
                self.tidy(draft);
                if held.hash() == Some(&old.hash) {
                    // Nothing of theirs was away.
                    return error;
                }
                return self.still_there(&held).err().unwrap_or(error);
            }
            in_place = (held.identity, held.hash().map(str::to_owned));
            held = out;
            waiting = lease;
        }
        match leftovers::keep(&self.directory, &self.folder, draft, &self.name) {
            Ok(kept) => FileError::Contended {
                path: self.path.clone(),
                kept,
            },
            Err(source) => self.not_kept(source),
        }
    }

    /// Whether the text in place was made from this one.
    fn includes(&self, earlier: &Held) -> bool {
        let Ok(now) = read(&self.path) else {
            return false;
        };
        earlier
            .text
            .as_ref()
            .is_some_and(|earlier| is_made_from(&now.bytes, &earlier.bytes))
    }

    /// A program that read our text before the person's was back may save over it now. Waits for that, and keeps what would
    /// be lost.
    fn still_there(&self, theirs: &Held) -> Result<(), FileError> {
        let Some(text) = &theirs.text else {
            return Ok(());
        };
        let began = Instant::now();
        while began.elapsed() < SAVED_WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.includes(theirs) || !self.path.exists() {
            return Ok(());
        }
        let kept = leftovers::keep_copy(&self.directory, &self.folder, text, &self.name);
        let kept = kept.map_err(|source| self.not_kept(source))?;
        Err(FileError::Contended {
            path: self.path.clone(),
            kept,
        })
    }

    fn not_kept(&self, source: std::io::Error) -> FileError {
        FileError::Step {
            path: self.path.clone(),
            step: "keep the other text",
            source,
        }
    }
}

/// Whether a text is another one with lines put in: whoever saved it had read that one.
fn is_made_from(later: &[u8], earlier: &[u8]) -> bool {
    let mut later = later.split(|byte| *byte == b'\n');
    let mut earlier = earlier
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    earlier.all(|line| later.any(|other| other == line))
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
