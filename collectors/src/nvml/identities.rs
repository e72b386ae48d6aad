//! Who a pid is: name and container, read from `/proc` at most once a second.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::Stamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::proc;

/// How long an answer of `/proc` is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// How often a process is asked for its name, which it may change at any time.
const RENAMED: Duration = Duration::from_secs(60);
/// A pid that nobody asked about for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// So many processes are known by a descriptor; the rest by reading `/proc`, which costs twenty times as much.
const DESCRIPTORS: usize = 256;

/// A process as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// In clock ticks since boot; with the pid this is the process's identity.
    started_ticks: u64,
    pub(super) name: Option<Arc<str>>,
    pub(super) container: Option<Arc<str>>,
}

/// What `/proc` says about a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who<'a> {
    /// It runs.
    Known(&'a Identity),
    /// It ran a moment ago; the driver still lists it.
    Gone,
    /// Nobody: the driver named a pid that was never seen, as a bad record or another pid namespace does.
    Nobody,
}

#[derive(Debug)]
struct Entry {
    identity: Option<Identity>,
    /// Tells the end of the process that `identity` is about; `None` when the system gave none.
    witness: Option<OwnedFd>,
    ran: bool,
    checked: Stamp,
    /// When its name was read.
    named: Stamp,
}

#[derive(Debug, Default)]
pub(super) struct Identities {
    entries: HashMap<u32, Entry>,
    pruned: Stamp,
}

impl Identities {
    /// Who `pid` is at `at`.
    pub(super) fn of(&mut self, pid: u32, at: Stamp) -> Who<'_> {
        if pid == 0 || pid == u32::MAX {
            return Who::Nobody;
        }
        let may_witness = self.entries.len() < DESCRIPTORS;
        let read = || Entry::read(pid, at, may_witness);
        let entry = self.entries.entry(pid).or_insert_with(read);
        if at.since(entry.checked) >= BELIEVED {
            entry.check(pid, at);
        }
        match &entry.identity {
            Some(identity) => Who::Known(identity),
            None if entry.ran => Who::Gone,
            None => Who::Nobody,
        }
    }

    /// Whether a driver's record with this pid can be true.
    pub(super) fn believable(&mut self, pid: u32, at: Stamp) -> bool {
        self.of(pid, at) != Who::Nobody
    }

    /// Forgets who was not asked about for a while.
    pub(super) fn prune(&mut self, at: Stamp) {
        if at.since(self.pruned) >= FORGOTTEN {
            self.entries
                .retain(|_, entry| at.since(entry.checked) < FORGOTTEN);
            self.pruned = at;
        }
    }
}

impl Entry {
    fn read(pid: u32, at: Stamp, may_witness: bool) -> Self {
        // Opened before anything is read: should the pid change hands in between, the descriptor has ended.
        let witness = may_witness.then(|| descriptor(pid)).flatten();
        let identity = proc::stat(pid).map(|stat| Identity {
            started_ticks: stat.started_ticks,
            name: name_of(pid),
            container: proc::container_of(pid),
        });
        Self {
            ran: identity.is_some(),
            identity,
            witness,
            checked: at,
            named: at,
        }
    }

    fn check(&mut self, pid: u32, at: Stamp) {
        self.checked = at;
        // Read first: if it is still the same process afterwards, then the name is its own.
        let name = (at.since(self.named) >= RENAMED).then(|| name_of(pid));
        self.check_life(pid, at);
        if let (Some(Some(name)), Some(identity)) = (name, &mut self.identity)
            && self.named != at
        {
            self.named = at;
            if identity.name.as_ref() != Some(&name) {
                identity.name = Some(name);
            }
        }
    }

    fn check_life(&mut self, pid: u32, at: Stamp) {
        if self.identity.is_some() && self.witness.as_ref().is_some_and(is_running) {
            return;
        }
        match (proc::stat(pid), &self.identity) {
            (Some(stat), Some(identity)) if stat.started_ticks == identity.started_ticks => {}
            (Some(_), _) => *self = Self::read(pid, at, self.witness.is_some()),
            (None, _) => (self.identity, self.witness) = (None, None),
        }
    }
}

fn name_of(pid: u32) -> Option<Arc<str>> {
    proc::read(pid, "comm").ok().map(|name| name.trim_end().into())
}

/// A descriptor of the process, from Linux 5.3 on (pidfd_open(2)).
fn descriptor(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether the process has not ended: a descriptor of one that has can be read.
fn is_running(witness: &OwnedFd) -> bool {
    poll(
        &mut [PollFd::new(witness, PollFlags::IN)],
        Some(&Timespec::default()),
    ) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn knows_this_process_and_believes_it_for_a_second() {
        let (mut identities, own) = (Identities::default(), std::process::id());
        let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
        let Who::Known(identity) = identities.of(own, Stamp::at_secs(1)) else {
            panic!("this process runs");
        };
        assert_eq!(identity.name.as_deref(), Some(comm.trim_end()));
        assert_eq!(identity.container, proc::container_of(own));
        let name = identity.name.clone().expect("name");
        let Who::Known(again) = identities.of(own, Stamp::at_secs(5)) else {
            panic!("this process runs");
        };
        assert!(
            Arc::ptr_eq(&name, again.name.as_ref().expect("name")),
            "read once"
        );
    }

    #[test]
    fn a_process_that_renames_itself_is_known_by_its_new_name_within_a_minute() {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "read line; printf engine > /proc/$$/comm; echo done; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let (mut identities, pid) = (Identities::default(), child.id());
        let mut name = |secs| match identities.of(pid, Stamp::at_secs(secs)) {
            Who::Known(identity) => identity.name.clone(),
            other => panic!("{other:?}"),
        };
        let former = name(1);
        assert_ne!(former.as_deref(), Some("engine"));
        let input = child.stdin.as_mut().expect("piped");
        input.write_all(b"\n").expect("write");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("line");
        assert_eq!(name(59), former, "not asked every second");
        assert_eq!(name(61).as_deref(), Some("engine"));
        let again = name(122).expect("name");
        assert!(Arc::ptr_eq(&again, &name(123).expect("name")));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[test]
    fn tells_nobody_from_one_who_just_left() {
        let mut identities = Identities::default();
        for pid in [0, u32::MAX, 1 << 23] {
            assert_eq!(identities.of(pid, Stamp::at_secs(1)), Who::Nobody);
        }
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let pid = child.id();
        assert!(identities.believable(pid, Stamp::at_secs(1)));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(
            matches!(identities.of(pid, Stamp::at_secs(1)), Who::Known(_)),
            "believed for a second"
        );
        assert_eq!(identities.of(pid, Stamp::at_secs(2)), Who::Gone);
        identities.prune(Stamp::at_secs(100));
        assert_eq!(identities.of(pid, Stamp::at_secs(100)), Who::Nobody);
    }
}
