//! Files of our own that a crash left behind.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::place::Locked;
use super::{FileError, Snapshot, hash, read};

const PREFIX: &str = ".plimsoll-";
const PART: &str = "part";
/// How much of a hash a name has.
const SHORT: usize = 16;

/// The names of our own files: `.plimsoll-part-PID-N` while it is being written, then
/// `.plimsoll-OLD-NEW-PID-N-FILE`, where OLD and NEW begin the hashes of the text before and after and FILE is the file
/// it is about.
pub(super) struct Name<'a> {
    old: &'a str,
    new: &'a str,
    file: &'a str,
}

impl<'a> Name<'a> {
    pub(super) fn part() -> String {
        format!("{PREFIX}{PART}-{}", unique())
    }

    pub(super) fn complete(old: &str, new: &str, file: &str) -> String {
        let short = |hash: &str| hash.get(..SHORT).unwrap_or_default().to_owned();
        format!("{PREFIX}{}-{}-{}-{file}", short(old), short(new), unique())
    }

    fn read(name: &'a str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(5, '-');
        let mut hash = || {
            parts
                .next()
                .filter(|hash| hash.len() == SHORT && hash.chars().all(|c| c.is_ascii_hexdigit()))
        };
        let (old, new) = (hash()?, hash()?);
        let mut number = || parts.next().and_then(|number| number.parse::<u32>().ok());
        number()?;
        number()?;
        Some(Self {
            old,
            new,
            file: parts.next().filter(|file| !file.is_empty())?,
        })
    }

    fn is_part(name: &str) -> bool {
        name.strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix(PART)?.strip_prefix('-'))
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '-'))
    }
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What became of a file that a crash had left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It had a text of ours, or the one before it; it is gone.
    Removed(PathBuf),
    /// It had a text that a person saved in the very moment of the crash; that is in its place again.
    Restored(PathBuf),
    /// The same, but the person has saved another text since, so it is kept under this name.
    Kept(PathBuf),
}

/// Removes what a crash left in a folder: only regular files with names of our own. To be called for the folder of each
/// configuration file before anything else is done with it.
///
/// # Errors
/// [`FileError`] when the folder cannot be read or is locked by another Plimsoll.
pub fn clean_leftovers(folder: &Path) -> Result<Vec<Leftover>, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let directory = Locked::folder(folder)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        // Not through a link: its target would not be ours.
        if !entry.file_type().map_err(unreadable)?.is_file() {
            continue;
        }
        let step = |step| {
            let path = folder.join(name);
            move |error: Errno| FileError::Step {
                path,
                step,
                source: error.into(),
            }
        };
        if Name::is_part(name) {
            rustix::fs::unlinkat(&directory, name, AtFlags::empty()).map_err(step("remove a leftover"))?;
            found.push(Leftover::Removed(folder.join(name)));
        } else if let Some(parsed) = Name::read(name) {
            found.push(settle(&directory, folder, name, &parsed)?);
        }
    }
    rustix::fs::fsync(&directory).map_err(|error| unreadable(error.into()))?;
    Ok(found)
}

fn settle(directory: &Locked, folder: &Path, name: &str, parsed: &Name<'_>) -> Result<Leftover, FileError> {
    let path = folder.join(name);
    let step = |step| {
        let path = path.clone();
        move |error: Errno| FileError::Step {
            path,
            step,
            source: error.into(),
        }
    };
    let left = read(&path)?;
    let has = |snapshot: &Snapshot, hash: &str| snapshot.hash.starts_with(hash);
    if !has(&left, parsed.new) && !has(&left, parsed.old) {
        // A person's: it came out of the exchange, and we did not live to put it back.
        let ours_in_place = read(&folder.join(parsed.file)).is_ok_and(|now| has(&now, parsed.new));
        if !ours_in_place {
            let kept = keep(directory, folder, name, parsed.file);
            let kept = kept.map_err(|source| FileError::Step {
                path: path.clone(),
                step: "keep a leftover",
                source,
            })?;
            return Ok(Leftover::Kept(kept));
        }
        let exchange =
            || rustix::fs::renameat_with(directory, name, directory, parsed.file, RenameFlags::EXCHANGE);
        exchange().map_err(step("put a leftover back"))?;
        if !read(&path).is_ok_and(|out| has(&out, parsed.new)) {
            // A person saved this very moment: that is the later text.
            exchange().map_err(step("put a leftover back"))?;
            let kept = keep(directory, folder, name, parsed.file);
            let kept = kept.map_err(|source| FileError::Step {
                path: path.clone(),
                step: "keep a leftover",
                source,
            })?;
            return Ok(Leftover::Kept(kept));
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(step("remove a leftover"))?;
        return Ok(Leftover::Restored(folder.join(parsed.file)));
    }
    rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(step("remove a leftover"))?;
    Ok(Leftover::Removed(path))
}

/// Gives a person's text a name that is not ours, beside the file: `server.yaml.saved`, `server.yaml.saved-1` ….
pub(super) fn keep(directory: &Locked, folder: &Path, name: &str, file: &str) -> io::Result<PathBuf> {
    for number in 0..1000 {
        let kept = if number == 0 {
            format!("{file}.saved")
        } else {
            format!("{file}.saved-{number}")
        };
        match rustix::fs::renameat_with(directory, name, directory, &kept, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(folder.join(kept)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(folder.join(name))
}

/// Writes a person's text beside the file, as [`keep`] does with a file that is there.
pub(super) fn keep_copy(
    directory: &Locked,
    folder: &Path,
    text: &Snapshot,
    file: &str,
) -> io::Result<PathBuf> {
    // After a crash right here it is kept as a person's, for it is neither a text before ours nor ours.
    let neither = hash(b"");
    let name = Name::complete(&neither, &neither, file);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(text.mode & 0o600);
    let mut copy = fs::File::from(rustix::fs::openat(directory, &name, flags, mode)?);
    copy.write_all(&text.bytes)?;
    if let Err(error) = std::os::unix::fs::fchown(&copy, Some(text.uid), Some(text.gid)) {
        tracing::debug!("the copy {name} belongs to us: {error}");
    }
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(text.mode))?;
    copy.sync_all()?;
    keep(directory, folder, &name, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("listed");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn names_read_back() {
        let name = Name::complete(&hash(b"old"), &hash(b"new"), "a-b.yaml");
        let read = Name::read(&name).expect("ours");
        assert!(hash(b"old").starts_with(read.old) && hash(b"new").starts_with(read.new));
        assert_eq!(read.file, "a-b.yaml");
        assert!(Name::is_part(&Name::part()));
        for foreign in [
            ".plimsoll-",
            ".plimsoll-notes",
            ".plimsoll-part-x",
            "plimsoll-part-1-2",
            ".plimsoll-0-0-1-1-a",
        ] {
            assert!(
                Name::read(foreign).is_none() && !Name::is_part(foreign),
                "{foreign}"
            );
        }
    }

    #[test]
    fn only_files_of_ours_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.yaml"), "new").expect("written");
        fs::write(path(&Name::part()), "ne").expect("written");
        fs::write(
            path(&Name::complete(&hash(b"old"), &hash(b"new"), "a.yaml")),
            "old",
        )
        .expect("written");
        fs::write(
            path(&Name::complete(&hash(b"new"), &hash(b"newer"), "a.yaml")),
            "newer",
        )
        .expect("written");
        fs::write(path(".plimsoll-notes"), "mine").expect("written");
        fs::create_dir(path(&Name::part())).expect("created");
        std::os::unix::fs::symlink("a.yaml", path(&Name::part())).expect("linked");
        let found = clean_leftovers(folder.path()).expect("cleaned");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|left| matches!(left, Leftover::Removed(_))));
        assert_eq!(
            names(folder.path()).len(),
            4,
            "the file, the notes, the folder and the link"
        );
        assert_eq!(fs::read(path("a.yaml")).expect("read"), b"new");
    }

    #[test]
    fn a_text_that_a_person_saved_during_the_crash_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let left = Name::complete(&hash(b"old"), &hash(b"new"), "a.yaml");
        fs::write(path("a.yaml"), "new").expect("written");
        fs::write(path(&left), "a person's").expect("written");
        assert_eq!(
            clean_leftovers(folder.path()).expect("cleaned"),
            [Leftover::Restored(path("a.yaml"))]
        );
        assert_eq!(fs::read(path("a.yaml")).expect("read"), b"a person's");

        fs::write(path("a.yaml"), "a person's later text").expect("written");
        fs::write(path("a.yaml.saved"), "older").expect("written");
        fs::write(path(&left), "a person's").expect("written");
        assert_eq!(
            clean_leftovers(folder.path()).expect("cleaned"),
            [Leftover::Kept(path("a.yaml.saved-1"))]
        );
        assert_eq!(fs::read(path("a.yaml")).expect("read"), b"a person's later text");
        assert_eq!(fs::read(path("a.yaml.saved-1")).expect("read"), b"a person's");
        assert_eq!(names(folder.path()), ["a.yaml", "a.yaml.saved", "a.yaml.saved-1"]);
    }
}
