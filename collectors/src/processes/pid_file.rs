//! Pid files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use plimsoll_trace::Stamp;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use super::table::ProcessId;
use crate::proc;

/// A process is older than the file that it or its parent wrote. This much may be amiss: both clocks are read one
/// after the other, and file systems keep time in steps of up to two seconds.
const SLACK: Duration = Duration::from_secs(3);

/// The process that the file names, if it can be the one that the file was written for: pids are used again, and a
/// file that was left behind must not make a stranger an engine.
pub(crate) fn read(path: &Path, now: Stamp) -> Option<u32> {
    // Opening a named pipe would wait for a writer, and reading a device might never end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty()).ok()?);
    let modified = fstat(&file).ok()?;
    if FileType::from_raw_mode(modified.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    let pid = pid_in(&text)?;
    let started_ticks = proc::stat(pid)?.started_ticks;
    let file_age = i128::from(now.unix_ns)
        - i128::from(modified.st_mtime) * 1_000_000_000
        - i128::from(modified.st_mtime_nsec);
    let process = ProcessId { pid, started_ticks };
    is_for(process.age_ns(now), file_age).then_some(pid)
}

/// The number in the first line; PostgreSQL and others write more lines.
fn pid_in(text: &str) -> Option<u32> {
    let pid = text.lines().next()?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// Whether a process of this age can be the one that a file of that age was written for; both in ns.
fn is_for(process_age: i128, file_age: i128) -> bool {
    process_age + i128::try_from(SLACK.as_nanos()).unwrap_or(0) >= file_age
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_is_the_number() {
        for (text, expected) in [
            ("42", Some(42)),
            ("  42\n", Some(42)),
            ("42\n/var/lib/x\n", Some(42)),
            ("0\n", None),
            ("-1\n", None),
            ("\n42\n", None),
            ("42 43\n", None),
            ("", None),
        ] {
            assert_eq!(pid_in(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_process_is_older_than_its_file() {
        let secs = |n: i128| n * 1_000_000_000;
        assert!(is_for(secs(100), secs(99)));
        assert!(is_for(secs(100), secs(101)), "within the slack");
        assert!(!is_for(secs(100), secs(110)), "the file was there first");
        assert!(is_for(secs(100), secs(-5)), "a file of the future proves nothing");
    }

    #[test]
    fn a_file_older_than_its_process_names_nobody() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), format!("{}\n", std::process::id())).expect("write");
        let now = Stamp::now();
        assert_eq!(read(file.path(), now), Some(std::process::id()));
        // Long before this process started, or this machine.
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.as_file().set_modified(long_ago).expect("set time");
        assert_eq!(read(file.path(), now), None);
    }

    #[test]
    fn nobody_for_what_is_not_there() {
        let now = Stamp::now();
        assert_eq!(read(Path::new("/nowhere/x.pid"), now), None);
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), "8388608\n").expect("write");
        assert_eq!(read(file.path(), now), None, "no such process");
        std::fs::write(file.path(), [0xff, 0xfe]).expect("write");
        assert_eq!(read(file.path(), now), None, "not text");
    }

    #[test]
    fn a_named_pipe_is_no_pid_file_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("engine.pid");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).expect("fifo");
        let (said, answer) = std::sync::mpsc::channel();
        let pipe = path.clone();
        // On a thread of its own: should it wait, the test fails and does not hang.
        std::thread::spawn(move || said.send(read(&pipe, Stamp::now())));
        let answered = answer.recv_timeout(Duration::from_secs(60));
        assert_eq!(answered, Ok(None));
        assert_eq!(read(Path::new("/dev/zero"), Stamp::now()), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}", process: i64, file: i64) {
            let _ = (pid_in(&text).is_some(), is_for(process.into(), file.into()));
        }
    }
}
