//! Starts a process again when it dies, as a service manager would: after a delay, unless it ended by itself with
//! exit code 0 or was told to stop.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a child that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// Keeps one process alive. When it is dropped, the process is killed.
#[derive(Debug)]
pub struct Supervisor {
    stop: Sender<Stop>,
    thread: Option<JoinHandle<()>>,
    seen: Arc<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Ask,
    Kill,
}

#[derive(Debug, Default)]
struct Seen {
    /// 0 while there is no process.
    pid: AtomicU32,
    exits: Mutex<Vec<ExitStatus>>,
    restarts: AtomicU32,
}

impl Supervisor {
    /// Starts what `command` makes, and makes and starts it anew `delay` after it died.
    ///
    /// # Errors
    /// The first start failed. A later start that fails is tried again after `delay`.
    pub fn start(command: impl FnMut() -> Command + Send + 'static, delay: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let (started, first) = channel();
        let seen = Arc::new(Seen::default());
        let keeper = Keeper {
            command,
            delay,
            stopped,
            seen: Arc::clone(&seen),
        };
        // The thread that starts the children lives as long as they may: a child that dies with its parent dies with
        // the thread that started it.
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(|| keeper.keep(started))?;
        let supervisor = Self {
            stop,
            thread: Some(thread),
            seen,
        };
        match first.recv() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(supervisor),
        }
    }

    /// The process's id, or `None` while it is dead.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.seen.pid.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
    }

    /// How often it was started again.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.seen.restarts.load(Ordering::SeqCst)
    }

    /// How its lives ended so far.
    #[must_use]
    pub fn exits(&self) -> Vec<ExitStatus> {
        self.seen
            .exits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the process to end (SIGTERM), kills it after five seconds, and returns how its lives ended.
    #[must_use]
    pub fn stop(mut self) -> Vec<ExitStatus> {
        self.end(Stop::Ask);
        self.exits()
    }

    fn end(&mut self, how: Stop) {
        // Neither fails unless the thread has already ended, and then there is nothing left to end.
        self.stop.send(how).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end(Stop::Kill);
    }
}

struct Keeper<C> {
    command: C,
    delay: Duration,
    stopped: Receiver<Stop>,
    seen: Arc<Seen>,
}

impl<C: FnMut() -> Command> Keeper<C> {
    fn keep(mut self, started: Sender<io::Result<()>>) {
        let mut first = Some(started);
        loop {
            let spawned = (self.command)().spawn();
            let (result, child) = match spawned {
                Ok(child) => {
                    self.seen.pid.store(child.id(), Ordering::SeqCst);
                    (Ok(()), Some(child))
                }
                Err(error) => (Err(error), None),
            };
            if let Some(first) = first.take() {
                let failed = result.is_err();
                if first.send(result).is_err() || failed {
                    return;
                }
            }
            if child.is_some_and(|child| self.watch(child)) {
                return;
            }
            match self.stopped.recv_timeout(self.delay) {
                Err(RecvTimeoutError::Timeout) => self.seen.restarts.fetch_add(1, Ordering::SeqCst),
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// Waits for the end of a child; true if there shall be no other one.
    fn watch(&self, mut child: Child) -> bool {
        let mut asked_at: Option<Instant> = None;
        let mut stopped = false;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) => {}
                Err(_) => break None,
            }
            let stop = match self.stopped.recv_timeout(LOOK) {
                Ok(stop) => Some(stop),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Stop::Kill),
            };
            let too_late = asked_at.is_some_and(|at| at.elapsed() > GRACE);
            if stop == Some(Stop::Kill) || too_late {
                stopped = true;
                // Fails only if it is already dead; either way it is collected below.
                child.kill().ok();
                break child.wait().ok();
            }
            if stop == Some(Stop::Ask) {
                stopped = true;
                asked_at = Some(Instant::now());
                ask_to_end(&child);
            }
        };
        self.seen.pid.store(0, Ordering::SeqCst);
        if let Some(status) = status {
            self.seen
                .exits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(status);
        }
        stopped || status.is_none_or(|status| status.success())
    }
}

fn ask_to_end(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails only if it is already dead, which the next look sees.
        kill_process(pid, Signal::TERM).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < end, "{what} did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_dead_process_is_started_again_until_it_ends_well() {
        let folder = tempfile::tempdir().expect("folder");
        let tries = folder.path().join("tries");
        let script = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", tries.display());
        let supervisor =
            Supervisor::start(move || shell(&script), Duration::from_millis(1)).expect("started");
        wait_until("the third life", || supervisor.exits().len() == 3);
        assert_eq!(
            supervisor
                .exits()
                .iter()
                .map(ExitStatus::code)
                .collect::<Vec<_>>(),
            [Some(1), Some(1), Some(0)]
        );
        assert_eq!(supervisor.restarts(), 2);
        assert_eq!(supervisor.stop().len(), 3);
    }

    #[test]
    fn stop_asks_and_drop_kills() {
        let sleeper =
            || Supervisor::start(|| shell("exec sleep 600"), Duration::from_secs(600)).expect("started");
        let asked = sleeper().stop();
        assert_eq!(
            asked.iter().map(ExitStatusExt::signal).collect::<Vec<_>>(),
            [Some(15)]
        );
        let supervisor = sleeper();
        let process = format!("/proc/{}", supervisor.pid().expect("alive"));
        drop(supervisor);
        assert!(!std::path::Path::new(&process).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(Supervisor::start(|| Command::new("/nowhere/engine"), Duration::ZERO).is_err());
    }
}
