//! Whether a process still lives, by pid and start time.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

/// Answers whether a process lives, looking at most once per period.
#[derive(Clone)]
pub(crate) struct Alive {
    period: Duration,
    seen: Arc<Mutex<HashMap<Identity, Seen>>>,
}

/// Pid and start time in ticks.
type Identity = (u32, u64);

/// When a process was looked at, and what tells its end from then on; `None` once it is dead, which it stays.
struct Seen {
    at: Instant,
    witness: Option<Witness>,
}

/// Asking a descriptor of the process costs a twentieth of reading `/proc/PID/stat`.
enum Witness {
    Descriptor(OwnedFd),
    /// For kernels and limits that give no descriptor.
    Stat,
}

/// Answers kept at most; beyond it all are forgotten and asked anew.
const KEPT: usize = 512;

impl Alive {
    pub(crate) fn fresh() -> Self {
        Alive::cached(Duration::ZERO)
    }

    pub(crate) fn cached(period: Duration) -> Self {
        Alive {
            period,
            seen: Arc::default(),
        }
    }

    /// Begins a round of questions, which costs one look at the clock for all of them. Others wait until it ends.
    pub(crate) fn round(&self) -> Round<'_> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KEPT {
            seen.clear();
        }
        Round {
            period: self.period,
            at: Instant::now(),
            seen,
        }
    }

    /// Forgets what was believed, so that the next question looks.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Questions at one instant.
pub(crate) struct Round<'a> {
    period: Duration,
    at: Instant,
    seen: MutexGuard<'a, HashMap<Identity, Seen>>,
}

impl Round<'_> {
    /// Whether the process `pid` that started at `started_ticks` runs. A zombie does not: its memory is free.
    pub(crate) fn lives(&mut self, pid: u32, started_ticks: u64) -> bool {
        if self.period.is_zero() {
            return started(pid) == Some(started_ticks);
        }
        let at = self.at;
        let known = self.seen.entry((pid, started_ticks)).or_insert_with(|| Seen {
            at,
            witness: Witness::find(pid, started_ticks),
        });
        if at.duration_since(known.at) >= self.period {
            known.at = at;
            known
                .witness
                .take_if(|witness| !witness.says_alive(pid, started_ticks));
        }
        known.witness.is_some()
    }
}

impl Witness {
    fn find(pid: u32, started_ticks: u64) -> Option<Witness> {
        let descriptor = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        // Only now: had the pid changed hands before the descriptor was opened, its start would be another one.
        (started(pid) == Some(started_ticks)).then(|| match descriptor {
            Some(Ok(descriptor)) => Witness::Descriptor(descriptor),
            _ => Witness::Stat,
        })
    }

    fn says_alive(&self, pid: u32, started_ticks: u64) -> bool {
        match self {
            // Readable means ended, also while its parent has not waited for it (pidfd_open(2)).
            Witness::Descriptor(descriptor) => {
                poll(
                    &mut [PollFd::new(descriptor, PollFlags::IN)],
                    Some(&Timespec::default()),
                ) == Ok(0)
            }
            Witness::Stat => started(pid) == Some(started_ticks),
        }
    }
}

/// Start time of a running process in clock ticks since boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)). `None`
/// when there is no such process or it has ended and only waits for its parent.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let mut text = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat"))
        .and_then(|mut file| file.read(&mut text))
        .ok()?;
    parse_stat(text.get(..length)?)
}

fn parse_stat(stat: &[u8]) -> Option<u64> {
    // The second field is the name in parentheses; the name itself may hold spaces and parentheses.
    let after_name = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(after_name + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let stat = b"77 (a) b) c) S 1 77 77 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 9876 1 2";
        assert_eq!(parse_stat(stat), Some(9876));
    }

    #[test]
    fn a_zombie_is_dead_and_rubbish_is_nobody() {
        assert_eq!(
            parse_stat(b"77 (a) Z 1 77 77 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 9876 1 2"),
            None
        );
        for rubbish in [&b""[..], b")", b"77 (a", b"77 (a) S 1 2", b"\xff) S \xff"] {
            assert_eq!(parse_stat(rubbish), None);
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = std::process::id();
        let ticks = started(own).expect("this process runs");
        for alive in [
            Alive::fresh(),
            Alive::cached(Duration::from_secs(60)),
            Alive::cached(Duration::from_nanos(1)),
        ] {
            assert!(alive.round().lives(own, ticks));
            assert!(alive.round().lives(own, ticks));
            assert!(!alive.round().lives(own, ticks + 1));
        }
    }

    #[test]
    fn an_end_is_seen_at_the_next_look() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("started");
        let ticks = started(child.id()).expect("it runs");
        let (soon, late) = (
            Alive::cached(Duration::from_nanos(1)),
            Alive::cached(Duration::from_secs(3600)),
        );
        assert!(soon.round().lives(child.id(), ticks) && late.round().lives(child.id(), ticks));
        child.kill().expect("killed");
        child.wait().expect("waited");
        assert!(!soon.round().lives(child.id(), ticks));
        assert!(late.round().lives(child.id(), ticks));
        late.forget();
        assert!(!late.round().lives(child.id(), ticks));
    }
}
