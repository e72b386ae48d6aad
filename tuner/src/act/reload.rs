//! The ways of making an engine read its file again. Each either was carried out, or says why not.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::http::{self, HttpError};
use super::live::ProcessRef;
use crate::spec::{Reload, ReloadSignal};

/// More of what a command said last is not shown.
const SAID: usize = 4 << 10;

/// Why a reload was not carried out.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// There is no process to signal.
    #[error("no process of the engine is known; check `match` in its configuration, or whether it runs")]
    NoProcess,
    /// The signal would end the process.
    #[error(
        "process {pid} does not catch SIG{signal}, which would end it; configure another reload for this engine, or \"none\""
    )]
    NotCaught {
        /// The process.
        pid: u32,
        /// The signal's name.
        signal: &'static str,
    },
    /// The process is gone.
    #[error("process {pid} is gone")]
    Gone {
        /// The process that was meant.
        pid: u32,
    },
    /// The signal could not be sent.
    #[error("process {pid} cannot be signalled; Plimsoll must run as its user or as root")]
    Signal {
        /// The process.
        pid: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The call failed.
    #[error("the reload call failed")]
    Http(#[from] HttpError),
    /// The call was answered, but not with success.
    #[error("the reload call {url} answered {status}: {body}")]
    HttpStatus {
        /// The address.
        url: String,
        /// The status code.
        status: u16,
        /// The start of the answer.
        body: String,
    },
    /// The command could not be started.
    #[error("the command `{command}` cannot be started")]
    Start {
        /// The command line.
        command: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The command failed.
    #[error("the command `{command}` ended with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// The command did not end.
    #[error("the command `{command}` did not end within {secs} s and was ended")]
    Hung {
        /// The command line.
        command: String,
        /// The limit.
        secs: u64,
    },
}

/// Checks what can be checked without doing it. A signal that is not caught is found here, before any file is touched.
///
/// # Errors
/// Why the reload would not work.
pub(crate) fn check(reload: &Reload, process: Option<ProcessRef>) -> Result<(), ReloadError> {
    match reload {
        Reload::Signal(signal) => catching(process.ok_or(ReloadError::NoProcess)?, *signal).map(drop),
        Reload::None | Reload::Http(_) | Reload::Command(_) | Reload::Restart(_) => Ok(()),
    }
}

/// Carries the reload out. That the engine serves afterwards is another question.
///
/// # Errors
/// Why it was not carried out; the engine may or may not have noticed.
pub(crate) fn carry_out(
    reload: &Reload,
    process: Option<ProcessRef>,
    within: Duration,
) -> Result<(), ReloadError> {
    match reload {
        Reload::None => Ok(()),
        Reload::Signal(signal) => {
            let process = process.ok_or(ReloadError::NoProcess)?;
            let handle = catching(process, *signal)?;
            pidfd_send_signal(&handle, number(*signal)).map_err(|error| ReloadError::Signal {
                pid: process.pid,
                source: error.into(),
            })
        }
        Reload::Http(call) => {
            let answer = http::send(call, "", Some(within))?;
            if answer.is_success() {
                return Ok(());
            }
            let body = answer.body.chars().take(200).collect();
            Err(ReloadError::HttpStatus {
                url: call.url.clone(),
                status: answer.status,
                body,
            })
        }
        Reload::Command(words) => run(words, within),
        Reload::Restart(unit) => run(
            &["systemctl".to_owned(), "restart".to_owned(), unit.clone()],
            within,
        ),
    }
}

/// A handle on the very process that catches the signal: opened first, then checked, so that a pid which is used again
/// in between cannot be hit.
fn catching(process: ProcessRef, signal: ReloadSignal) -> Result<OwnedFd, ReloadError> {
    let pid = process.pid;
    let gone = || ReloadError::Gone { pid };
    let handle = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .ok_or_else(gone)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| gone())?;
    if start_ticks(&stat) != Some(process.started_ticks) {
        return Err(gone());
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| gone())?;
    if catches(&status, number(signal)) {
        Ok(handle)
    } else {
        Err(ReloadError::NotCaught {
            pid,
            signal: signal.name(),
        })
    }
}

/// Field 22 of `/proc/PID/stat`. The second field is the name in brackets and may itself hold brackets and blanks.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.get(stat.rfind(')')? + 1..)?
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// Whether bit n-1 of `SigCgt` in `/proc/PID/status` is set (proc_pid_status(5)).
fn catches(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    u32::try_from(signal.as_raw() - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

const fn number(signal: ReloadSignal) -> Signal {
    match signal {
        ReloadSignal::Hup => Signal::HUP,
        ReloadSignal::Usr1 => Signal::USR1,
        ReloadSignal::Usr2 => Signal::USR2,
    }
}

/// Runs a command without a shell, in a process group of its own, which is ended as a whole when the time is over.
///
/// What it says goes to a file without a name, not to a pipe: a command that starts an engine may leave it in the
/// background, and writing to a pipe whose other end is closed would end that.
fn run(words: &[String], within: Duration) -> Result<(), ReloadError> {
    use std::os::unix::process::CommandExt;

    let command = words.join(" ");
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let start = |source| ReloadError::Start {
        command: command.clone(),
        source,
    };
    let stderr = rustix::fs::memfd_create("plimsoll-reload", MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| start(error.into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.try_clone().map_err(start)?)
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let deadline = Instant::now() + within;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
                    && let Err(error) = rustix::process::kill_process_group(group, Signal::KILL)
                {
                    tracing::warn!(%error, command, "a command that hangs cannot be ended");
                }
                drop(child.wait());
                return Err(ReloadError::Hung {
                    command,
                    secs: within.as_secs(),
                });
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(ReloadError::Command {
        command,
        status: status.to_string(),
        stderr: end_of(&stderr),
    })
}

/// The end of what was written to a file. What cannot be read is not shown; the exit status decides.
fn end_of(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut text = vec![0; SAID];
    let read = file.read_at(&mut text, length.saturating_sub(SAID as u64));
    text.truncate(read.unwrap_or(0));
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_mask_of_caught_signals() {
        let status = "Name:\ta\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000004002\n";
        assert!(catches(status, Signal::INT));
        assert!(!catches(status, Signal::HUP));
        assert!(!catches("SigCgt:\tzz\n", Signal::HUP));
        assert!(!catches("", Signal::HUP));
    }

    #[test]
    fn start_time_is_found_behind_any_name() {
        let tail = "S 1 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 9";
        assert_eq!(start_ticks(&format!("7 (a) b (c) {tail}")), Some(12345));
        assert_eq!(start_ticks("7 (a"), None);
    }

    fn own_ref(pid: u32) -> ProcessRef {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        ProcessRef {
            pid,
            started_ticks: start_ticks(&stat).unwrap(),
        }
    }

    #[test]
    fn a_signal_that_is_not_caught_is_never_sent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = own_ref(child.id());
        let reload = Reload::Signal(ReloadSignal::Hup);
        let error = carry_out(&reload, Some(process), Duration::from_secs(1)).unwrap_err();
        assert!(
            matches!(error, ReloadError::NotCaught { signal: "HUP", .. }),
            "{error}"
        );
        assert_eq!(child.try_wait().unwrap(), None, "the process lives on");
        let other = ProcessRef {
            started_ticks: process.started_ticks + 1,
            ..process
        };
        assert!(matches!(
            check(&reload, Some(other)),
            Err(ReloadError::Gone { .. })
        ));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(
            check(&reload, Some(process)),
            Err(ReloadError::Gone { .. })
        ));
        assert!(matches!(check(&reload, None), Err(ReloadError::NoProcess)));
    }

    #[test]
    fn commands_report_what_they_said() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let limit = Duration::from_secs(30);
        assert!(run(&words(&["true"]), limit).is_ok());
        let error = run(&words(&["sh", "-c", "echo no such unit >&2; exit 5"]), limit)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 5") && error.contains("no such unit"),
            "{error}"
        );
        assert!(matches!(
            run(&words(&["/no/such/program"]), limit),
            Err(ReloadError::Start { .. })
        ));
        let hung = run(&words(&["sleep", "600"]), Duration::from_millis(50));
        assert!(matches!(hung, Err(ReloadError::Hung { .. })));
    }

    #[test]
    fn a_command_may_leave_an_engine_in_the_background() {
        let folder = tempfile::tempdir().unwrap();
        let (go, wrote) = (folder.path().join("go"), folder.path().join("wrote"));
        let script = format!(
            "(while [ ! -e {0} ]; do sleep 0.01; done; echo late >&2 && touch {1}) & echo started >&2; exit 5",
            go.display(),
            wrote.display()
        );
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let words = ["sh", "-c", &script].map(str::to_owned);
            done.send(run(&words, Duration::from_secs(60)))
        });
        // Not only when the engine ends, which is never.
        let ended = ended.recv_timeout(Duration::from_secs(30));
        std::fs::write(&go, "").unwrap();
        let error = ended.expect("ended").unwrap_err().to_string();
        assert!(error.contains("started"), "{error}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !wrote.exists() {
            assert!(Instant::now() < deadline, "it could not write any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn of_much_that_was_said_the_end_is_shown() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo $i >&2; i=$((i+1)); done; exit 1";
        let words = ["sh", "-c", script].map(str::to_owned);
        let error = run(&words, Duration::from_secs(60)).unwrap_err().to_string();
        assert!(
            error.ends_with("19998\n19999") && error.len() < 2 * SAID,
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn foreign_text_does_no_harm(text in ".{0,200}") {
            prop_assert!(start_ticks(&text).is_none() || text.contains(')'));
            prop_assert!(!catches(&text, Signal::HUP) || text.contains("SigCgt:"));
        }
    }
}
