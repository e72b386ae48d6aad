//! The person's own check of the answers' quality: a command that exits with 0 and says `{"score": x}`.
//!
//! It is a stranger: it may hang, fill its output, or leave children behind. It runs without a shell in a process group of
//! its own, which is ended as a whole when it has answered, when its time is over, or when it says too much. What cannot be
//! understood is no score, and no score is no verdict.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use plimsoll_trace::Verdict;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use thiserror::Error;

use super::action::{Action, chain};
use super::plan::Plan;
use crate::file;
use crate::guard::{Finding, Guard, Quality};
use crate::rule::Cost;

/// More of an answer is not read: it is a number.
const MOST_BYTES: u64 = 64 << 10;
/// How often it is looked whether the command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// What was written before the end is read within this time, unless somebody else holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why there is no score.
#[derive(Debug, Error)]
pub(super) enum QualityError {
    #[error("the quality command `{command}` cannot be started")]
    Start {
        command: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the quality command `{command}` did not end within {secs} s and was ended")]
    Hung { command: String, secs: u64 },
    #[error("the quality command `{command}` ended with {status}")]
    Failed { command: String, status: ExitStatus },
    #[error("the quality command `{command}` did not say {{\"score\": number}} on stdout")]
    NoScore { command: String },
}

/// Runs the command once.
pub(super) fn score(quality: &Quality) -> Result<f64, QualityError> {
    let command = quality.command.join(" ");
    let start = |source| QualityError::Start {
        command: command.clone(),
        source,
    };
    let (program, arguments) = quality
        .command
        .split_first()
        .ok_or_else(|| start(std::io::ErrorKind::InvalidInput.into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let said = child.stdout.take();
    let said = wait(&child, said, quality.timeout);
    // Also what it left in the background. The command itself is not collected before, so the group is still its own.
    let status = end_group(&mut child).map_err(start)?;
    let said = said.ok_or_else(|| QualityError::Hung {
        command: command.clone(),
        secs: quality.timeout.as_secs(),
    })?;
    if !status.success() {
        return Err(QualityError::Failed { command, status });
    }
    read_score(&said).ok_or(QualityError::NoScore { command })
}

/// What the command said until it ended; `None` when it took too long. One that says too much is ended by the pipe that
/// nobody reads any more.
fn wait(child: &Child, stdout: Option<ChildStdout>, timeout: Duration) -> Option<Vec<u8>> {
    let (told, heard) = channel();
    let reader = std::thread::Builder::new().name("plimsoll-score".to_owned());
    let reading = reader.spawn(move || {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            // What cannot be read is not said.
            stdout.take(MOST_BYTES + 1).read_to_end(&mut said).ok();
        }
        told.send(said).ok();
    });
    if reading.is_err() {
        return None;
    }
    let deadline = Instant::now() + timeout;
    let mut said = None;
    while !has_ended(child) {
        if Instant::now() >= deadline {
            return None;
        }
        match heard.recv_timeout(LOOK) {
            Ok(all) => said = Some(all),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
        }
    }
    said.or_else(|| heard.recv_timeout(LAST_WORDS).ok())
        .or_else(|| Some(Vec::new()))
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Whether it has ended, without collecting it.
fn has_ended(child: &Child) -> bool {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    pid(child).is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), how), Ok(None)))
}

fn end_group(child: &mut Child) -> std::io::Result<ExitStatus> {
    if let Some(group) = pid(child) {
        // Nobody may be left in it.
        rustix::process::kill_process_group(group, Signal::KILL).ok();
    }
    child.wait()
}

fn read_score(said: &[u8]) -> Option<f64> {
    if said.len() as u64 > MOST_BYTES {
        return None;
    }
    let said: Value = serde_json::from_slice(said).ok()?;
    said.get("score")?.as_f64().filter(|score| score.is_finite())
}

/// Under which name a score is remembered: that of this command on an engine with this file.
fn key(quality: &Quality, text: &[u8]) -> String {
    let mut all = quality.command.join("\0").into_bytes();
    all.push(0);
    all.extend_from_slice(text);
    file::hash(&all)
}

impl Action {
    /// What the answers were worth before the change: as remembered, or, before a restart, as measured now.
    pub(super) fn quality_before(&mut self, plan: &Plan) -> Option<Guard> {
        let quality = self.order.engine.guards.quality.clone()?;
        let key = key(&quality, &plan.snapshot.bytes);
        let remembered = self.order.scores.get(&key).copied();
        let is_apply = self.order.decision.verdict == Verdict::Apply;
        let measures =
            is_apply && self.order.cost == Cost::Restart && !self.down && !self.order.answers_death;
        let said = match remembered {
            Some(_) => "what its answers were worth is remembered".to_owned(),
            None if !measures => "what its answers were worth before was never measured".to_owned(),
            None => match score(&quality) {
                Ok(score) => {
                    self.scores.push((key, score));
                    self.score_before = Some(score);
                    "what its answers are worth was measured".to_owned()
                }
                Err(error) => chain(&error),
            },
        };
        self.score_before = remembered.or(self.score_before);
        let guard = match self.score_before {
            Some(score) => Guard::new("quality", Finding::Pass, said).with(json!({ "score": score })),
            None => Guard::unable("quality", said),
        };
        Some(guard)
    }

    /// What they are worth now, against what they were.
    pub(super) fn quality_after(&mut self, plan: &Plan) -> Option<Guard> {
        let quality = self.order.engine.guards.quality.clone()?;
        let name = "quality";
        let key = key(&quality, &plan.after);
        let is_apply = self.order.decision.verdict == Verdict::Apply;
        if !is_apply && self.order.scores.contains_key(&key) {
            return Some(Guard::unable(name, "it goes back to what is known"));
        }
        if self.order.cost == Cost::Hot && self.score_before.is_none() {
            let said = "what its answers were worth before was never measured";
            return Some(Guard::unable(name, said));
        }
        let after = match score(&quality) {
            Ok(after) => after,
            Err(error) if self.score_before.is_some() && is_apply => {
                return Some(Guard::new(name, Finding::Inconclusive, chain(&error)));
            }
            Err(error) => return Some(Guard::unable(name, chain(&error))),
        };
        self.scores.push((key, after));
        let most = self.order.engine.guards.quality_loss_max;
        let numbers = json!({ "before": self.score_before, "after": after, "quality_loss_max": most });
        let guard = match self.score_before.filter(|_| is_apply) {
            None => Guard::unable(name, "what its answers were worth before was never measured"),
            Some(before) if before - after <= most * before.abs() => {
                Guard::new(name, Finding::Pass, "its answers are worth what they were")
            }
            Some(before) => {
                let said = format!(
                    "its answers score {after} instead of {before}, more than {:.0} % less",
                    most * 100.0
                );
                Guard::new(name, Finding::Fail, said)
            }
        };
        Some(guard.with(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, timeout: Duration) -> Result<f64, QualityError> {
        score(&Quality {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout,
        })
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_score_is_read() {
        assert_eq!(run("echo '{\"score\": 0.75, \"of\": 12}'", LONG).ok(), Some(0.75));
        assert_eq!(run("echo '{\"score\": -3}'", LONG).ok(), Some(-3.0));
    }

    #[test]
    fn what_is_no_score_is_none() {
        for script in [
            "true",
            "echo 0.9",
            "echo '{\"score\": \"high\"}'",
            "echo '{}'",
            "echo '{\"score\": 1'",
        ] {
            assert!(
                matches!(run(script, LONG), Err(QualityError::NoScore { .. })),
                "{script}"
            );
        }
        assert!(matches!(
            run("echo '{\"score\": 1}'; exit 3", LONG),
            Err(QualityError::Failed { .. })
        ));
        let missing = Quality {
            command: vec!["/no/such/program".to_owned()],
            timeout: LONG,
        };
        assert!(matches!(score(&missing), Err(QualityError::Start { .. })));
    }

    #[test]
    fn too_much_is_not_read() {
        // It ends by itself when nobody reads any more.
        let ended = run("while echo '{\"score\": 1}' 2>/dev/null; do :; done", LONG);
        assert!(
            matches!(
                ended,
                Err(QualityError::NoScore { .. } | QualityError::Failed { .. })
            ),
            "{ended:?}"
        );
    }

    #[test]
    fn one_that_hangs_is_ended_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        assert!(matches!(
            run(&script, Duration::from_millis(500)),
            Err(QualityError::Hung { .. })
        ));
        is_gone(&pid);
        // And so is what one that is done leaves behind, which still holds the pipe.
        let script = format!("sleep 600 & echo $! > {}; echo '{{\"score\": 1}}'", pid.display());
        run(&script, LONG).ok();
        is_gone(&pid);
    }

    fn is_gone(pid: &std::path::Path) {
        let pid = std::fs::read_to_string(pid).expect("it was started");
        let stat = format!("/proc/{}/stat", pid.trim());
        let deadline = Instant::now() + LONG;
        // Killed and not yet collected by whoever inherited it is gone as well.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(Instant::now() < deadline, "{stat} is still there");
            std::thread::sleep(LOOK);
        }
    }
}
