//! Whether a process still lives, by pid and start time.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers whether a process lives, looking at most once per period.
#[derive(Clone)]
pub(crate) struct Alive {
    period: Duration,
    seen: Arc<Mutex<HashMap<Identity, Seen>>>,
}

/// Pid and start time in ticks.
type Identity = (u32, u64);
/// When it was looked at, and whether it lived.
type Seen = (Instant, bool);

/// Answers kept at most; beyond it all are forgotten and asked anew.
const KEPT: usize = 4096;

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

    /// Whether the process `pid` that started at `started_ticks` runs. A zombie does not: its memory is free.
    pub(crate) fn lives(&self, pid: u32, started_ticks: u64) -> bool {
        if self.period.is_zero() {
            return started(pid) == Some(started_ticks);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((at, lives)) = seen.get(&(pid, started_ticks))
            && (!lives || now.duration_since(*at) < self.period)
        {
            return *lives;
        }
        if seen.len() >= KEPT {
            seen.clear();
        }
        let lives = started(pid) == Some(started_ticks);
        seen.insert((pid, started_ticks), (now, lives));
        lives
    }

    /// Forgets what was believed, so that the next question looks.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
        for alive in [Alive::fresh(), Alive::cached(Duration::from_secs(60))] {
            assert!(alive.lives(own, ticks));
            assert!(alive.lives(own, ticks));
            assert!(!alive.lives(own, ticks + 1));
        }
    }
}
