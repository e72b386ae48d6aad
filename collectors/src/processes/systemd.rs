//! What systemd knows about a unit that `/proc` does not: its main process, and how that ended.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::table::ExitHint;

/// `systemctl` answers in a few milliseconds, or systemd is in trouble and the engine must be watched meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to ask systemd, if it runs this machine.
#[derive(Debug)]
pub(crate) struct Systemd {
    program: PathBuf,
    patience: Duration,
}

/// What is known about the main process of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MainProcess {
    /// It has this pid.
    Pid(u32),
    /// The unit is being started or stopped and has none: what runs there is its preparation.
    NotYet,
    /// systemd does not know, or does not know the unit.
    Unknown,
}

/// How a unit's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MainExit {
    pub(crate) pid: u32,
    pub(crate) exit_code: Option<i32>,
    pub(crate) hint: Option<ExitHint>,
}

impl Systemd {
    /// `None` when this machine was not booted with systemd (`sd_booted(3)` looks at the same folder).
    pub(crate) fn find() -> Option<Self> {
        Path::new("/run/systemd/system").is_dir().then(|| Self {
            program: PathBuf::from("systemctl"),
            patience: PATIENCE,
        })
    }

    /// Asks for the unit's main process.
    pub(crate) fn main_process(&self, unit: &str) -> MainProcess {
        self.show(unit, "MainPID,ActiveState")
            .map_or(MainProcess::Unknown, |text| main_process_in(&text))
    }

    /// Asks how the unit's main process ended.
    pub(crate) fn main_exit(&self, unit: &str) -> Option<MainExit> {
        main_exit_in(&self.show(unit, "ExecMainPID,ExecMainCode,ExecMainStatus,Result")?)
    }

    /// The unit's properties, a `Name=value` per line; `None` when there is no answer in time.
    fn show(&self, unit: &str, properties: &str) -> Option<String> {
        let answer = self.ask(&["show", "--no-pager", "--property", properties, "--", unit]);
        answer
            .inspect_err(|error| tracing::debug!(unit, %error, "systemctl show failed"))
            .ok()
    }

    fn ask(&self, arguments: &[&str]) -> io::Result<String> {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let in_time = ends_within(child.id(), self.patience);
        if !matches!(in_time, Ok(true)) {
            child.kill()?;
        }
        let status = child.wait()?;
        in_time?;
        if !status.success() {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        // Less than what a pipe holds, so that it could end without being read.
        let mut text = String::new();
        child
            .stdout
            .take()
            .map_or(Ok(0), |mut output| output.read_to_string(&mut text))?;
        Ok(text)
    }
}

/// Waits for a child's end, without taking its status.
fn ends_within(child: u32, patience: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}

fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn main_process_in(text: &str) -> MainProcess {
    let pid = property(text, "MainPID")
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(0);
    match (pid, property(text, "ActiveState")) {
        (0, Some("activating" | "deactivating")) => MainProcess::NotYet,
        (0, _) => MainProcess::Unknown,
        (pid, _) => MainProcess::Pid(pid),
    }
}

fn main_exit_in(text: &str) -> Option<MainExit> {
    let number = |name| property(text, name)?.parse::<i32>().ok();
    // CLD_EXITED, CLD_KILLED and CLD_DUMPED of waitid(2).
    let exit_code = match number("ExecMainCode") {
        Some(1) => number("ExecMainStatus"),
        Some(2 | 3) => number("ExecMainStatus").map(|signal| signal.saturating_add(128)),
        _ => None,
    };
    let hint = (property(text, "Result") == Some("oom-kill")).then_some(ExitHint::HostOutOfMemory);
    let pid = property(text, "ExecMainPID")?.parse().ok()?;
    Some(MainExit { pid, exit_code, hint })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_main_process() {
        for (text, expected) in [
            ("MainPID=42\nActiveState=active\n", MainProcess::Pid(42)),
            ("MainPID=0\nActiveState=activating\n", MainProcess::NotYet),
            ("MainPID=0\nActiveState=inactive\n", MainProcess::Unknown),
            ("MainPID=x\n", MainProcess::Unknown),
            ("", MainProcess::Unknown),
        ] {
            assert_eq!(main_process_in(text), expected, "{text}");
        }
    }

    #[test]
    fn reads_how_it_ended() {
        let exit = |code, status, result| {
            let text =
                format!("ExecMainPID=42\nExecMainCode={code}\nExecMainStatus={status}\nResult={result}\n");
            main_exit_in(&text).map(|exit| (exit.pid, exit.exit_code, exit.hint))
        };
        assert_eq!(exit(1, 3, "exit-code"), Some((42, Some(3), None)));
        assert_eq!(exit(2, 15, "success"), Some((42, Some(143), None)));
        assert_eq!(exit(3, 11, "core-dump"), Some((42, Some(139), None)));
        assert_eq!(
            exit(2, 9, "oom-kill"),
            Some((42, Some(137), Some(ExitHint::HostOutOfMemory)))
        );
        assert_eq!(exit(0, 0, "success"), Some((42, None, None)), "it still runs");
        assert_eq!(main_exit_in("ExecMainCode=1\n"), None);
    }

    /// A `systemctl` that does what the script says.
    fn scripted(script: &str, patience: Duration) -> (tempfile::TempDir, Systemd) {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("systemctl");
        // Written by another process: a file that this one has open for writing, even in a child that another test
        // is just about to start, cannot be executed.
        let written = Command::new("sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#,
                "sh",
            ])
            .args([program.as_os_str(), script.as_ref()])
            .status();
        assert!(written.expect("sh").success());
        (folder, Systemd { program, patience })
    }

    #[test]
    fn asks_for_the_unit() {
        let script = r#"[ "$1 $3 $5 $6" = "show --property -- x.service" ] && echo MainPID=42"#;
        let (_folder, systemd) = scripted(script, Duration::from_secs(60));
        assert_eq!(systemd.main_process("x.service"), MainProcess::Pid(42));
        assert_eq!(
            systemd.main_process("y.service"),
            MainProcess::Unknown,
            "the script fails"
        );
    }

    #[test]
    fn does_not_wait_for_ever() {
        let (_folder, systemd) = scripted("exec sleep 1000", Duration::from_millis(50));
        assert_eq!(systemd.main_process("x.service"), MainProcess::Unknown);
        assert_eq!(systemd.main_exit("x.service"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "((MainPID|ActiveState|ExecMainPID|ExecMainStatus|Result)=.{0,12}\n){0,4}.{0,20}") {
            let _ = (main_process_in(&text), main_exit_in(&text));
        }
    }
}
