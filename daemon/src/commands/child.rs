//! A child process that is asked something and waited for no longer than its answer is worth.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The most that is read.
const MOST_BYTES: u64 = 1 << 20;

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
    let (closed, is_closed) = mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MOST_BYTES).read_to_end(&mut text));
        // The end of this is the end of the channel.
        drop((read, closed));
        String::from_utf8_lossy(&text).into_owned()
    });
    let is_late = is_closed.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
    if is_late {
        child.kill()?;
    }
    let status = child.wait()?;
    let ending = if is_late {
        Some(format!("no answer within {} s", patience.as_secs()))
    } else {
        (!status.success()).then(|| status.to_string())
    };
    Ok((reader.join().unwrap_or_default(), ending))
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
}
