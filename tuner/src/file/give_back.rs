//! The way back, when a person saved in the very moment of the exchange.

use std::time::{Duration, Instant};

use super::held::Held;
use super::lease::Lease;
use super::place::{Exchange, Place};
use super::replace::Written;
use super::{FileError, Snapshot, leftovers, read};

/// How long a writer of a file that goes back is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A program that reads a file to change it and saves it takes so long at most, unless it is an editor with a person before
/// it, which says itself that the file was changed.
const SAVED_WITHIN: Duration = Duration::from_millis(500);

impl Place {
    /// The file that came out of the exchange has a person's edit in it, or will have. It goes back to its path; and if
    /// meanwhile the person saved once more, over our text, that goes back instead, and the first is kept beside it.
    pub(super) fn give_back(
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
