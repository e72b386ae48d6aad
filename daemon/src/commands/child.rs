//! A child process that is asked something and waited for no longer than its answer is worth.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The most that is read.
const MOST_BYTES: u64 = 1 << 20;
/// How often it is asked whether a child has ended that has closed its stdout.
const STEP: Duration = Duration::from_millis(5);

/// What it said on stdout, and how it ended, unless well. One that is late is ended. Blocks.
pub(in crate::commands) fn answer(
    command: &mut Command,
    patience: Duration,
) -> io::Result<(String, Option<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take();
    let (pieces, said) = mpsc::channel();
    // It is not waited for: a process that the child left behind may keep stdout open for ever.
    std::thread::spawn(move || {
        let mut stdout = stdout.map(|stdout| stdout.take(MOST_BYTES));
        let mut piece = vec![0; 8_192];
        while let Some(Ok(length @ 1..)) = stdout.as_mut().map(|stdout| stdout.read(&mut piece))
            && pieces.send(piece[..length].to_vec()).is_ok()
        {}
    });
    let due = Instant::now() + patience;
    let mut text = Vec::new();
    while let Ok(piece) = said.recv_timeout(due.saturating_duration_since(Instant::now())) {
        text.extend(piece);
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= due {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(STEP);
    };
    // What was on its way meanwhile.
    text.extend(said.try_iter().flatten());
    let ending = match status {
        None => Some(format!("no answer within {} s", patience.as_secs())),
        Some(status) => (!status.success()).then(|| status.to_string()),
    };
    Ok((String::from_utf8_lossy(&text).into_owned(), ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(script: &str, patience: Duration) -> (String, Option<String>) {
        answer(Command::new("sh").args(["-c", script]), patience).unwrap()
    }

    #[test]
    fn what_was_said_before_the_end_is_kept_however_it_ends() {
        let long = Duration::from_secs(60);
        assert_eq!(asked("echo a", long), ("a\n".to_owned(), None));
        let (said, ending) = asked("echo a; exit 3", long);
        assert_eq!(
            (said.as_str(), ending.as_deref()),
            ("a\n", Some("exit status: 3"))
        );
        let (said, ending) = asked("echo a; kill -SEGV $$", long);
        assert_eq!(said, "a\n");
        assert!(
            ending.as_ref().is_some_and(|ending| ending.contains("SIGSEGV")),
            "{ending:?}"
        );
    }

    #[test]
    fn one_that_does_not_end_is_not_waited_for() {
        let (_, ending) = asked("exec sleep 600", Duration::from_millis(50));
        assert_eq!(ending.as_deref(), Some("no answer within 0 s"));
    }
    #[test]
    fn neither_is_one_that_it_left_behind_nor_one_that_closed_its_stdout() {
        // The one left behind ends when nobody reads what it says.
        let left = "(while sleep 1; do echo; done) 2>&1 & echo a";
        assert_eq!(asked(left, Duration::from_millis(500)), ("a\n".to_owned(), None));
        let (_, ending) = asked("exec sleep 600 >/dev/null", Duration::from_millis(50));
        assert_eq!(ending.as_deref(), Some("no answer within 0 s"));
    }
}
