//! The list of processes, kept up to date at little cost.
//!
//! Reading three files of every process each second would cost more than everything else that Plimsoll does. So the
//! folder `/proc` is listed, which takes about a microsecond per process, and a process is read when it is new. The
//! kernel gives the folder of a new process a new inode, also when its pid was used before.
//!
//! What is read can change later: a young process runs another program and is moved to its cgroup, a shell becomes
//! the engine by `exec`, a child loses its parent. So the young are read at each scan, and a few of the others in turn.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirEntryExt;

use super::matcher::{Match, Watch};
use super::snapshot::{Process, Snapshot};
use super::table::ProcessId;
use crate::proc::{self, stat};

/// For how many scans a process counts as young.
const YOUNG_SCANS: u8 = 3;

/// How many of the others are read again in one scan.
const READ_AGAIN: usize = 16;

/// Which files have to be read, beside the one that tells the place in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    command: bool,
    executable: bool,
    cgroup: bool,
}

impl Needs {
    pub(crate) fn of(watches: &[Watch]) -> Self {
        let mut needs = Self::default();
        for watch in watches {
            match &watch.matcher {
                // The executable also tells Plimsoll's own processes from those whose command line they quote.
                Match::Command { .. } => (needs.command, needs.executable) = (true, true),
                Match::Unit(_) | Match::Cgroup(_) | Match::Container(_) => needs.cgroup = true,
                Match::PidFile(_) | Match::Port(_) | Match::Process(_) => {}
            }
        }
        needs
    }
}

/// What is known about an entry of `/proc` beside the process itself.
#[derive(Debug)]
struct Entry {
    inode: u64,
    young_scans: u8,
    /// The scan that saw it last.
    seen: u64,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct ProcessList {
    snapshot: Snapshot,
    entries: BTreeMap<u32, Entry>,
    needs: Needs,
    scans: u64,
    /// Where the next turn of the others begins.
    turn: u32,
}

impl ProcessList {
    /// As of the last scan.
    pub(crate) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// From the next scan on other files are needed.
    pub(crate) fn set_needs(&mut self, needs: Needs) {
        if self.needs != needs {
            *self = Self {
                needs,
                ..Self::default()
            };
        }
    }

    /// Brings the list up to date.
    ///
    /// # Errors
    /// `/proc` cannot be listed. The list is then as it was: nobody is taken for dead.
    pub(crate) fn scan(&mut self) -> io::Result<()> {
        let listed = list()?;
        self.scans += 1;
        let mut to_read: Vec<u32> = Vec::new();
        for (pid, inode) in listed {
            let entry = self.entries.entry(pid).or_insert(Entry {
                inode,
                young_scans: YOUNG_SCANS,
                seen: 0,
            });
            if entry.inode != inode {
                *entry = Entry {
                    inode,
                    young_scans: YOUNG_SCANS,
                    seen: 0,
                };
            }
            entry.seen = self.scans;
            if entry.young_scans > 0 {
                entry.young_scans -= 1;
                to_read.push(pid);
            }
        }
        let (scans, snapshot) = (self.scans, &mut self.snapshot);
        self.entries.retain(|pid, entry| {
            let listed = entry.seen == scans;
            if !listed {
                snapshot.remove(*pid);
            }
            listed
        });
        // Kernel threads are not in the snapshot and never change, so they do not take a turn.
        let turn: Vec<u32> = self.snapshot.pids_from(self.turn).take(READ_AGAIN).collect();
        self.turn = turn
            .last()
            .filter(|_| turn.len() == READ_AGAIN)
            .map_or(0, |pid| pid + 1);
        to_read.extend(turn);
        for pid in to_read {
            match read(pid, self.needs) {
                Ok(Some(process)) => self.snapshot.insert(process),
                Ok(None) => self.snapshot.remove(pid),
                // Such as for want of file descriptors: it is as it was.
                Err(error) => tracing::debug!(pid, %error, "a process could not be read"),
            }
        }
        Ok(())
    }
}

/// Every process's pid and its folder's inode.
fn list() -> io::Result<Vec<(u32, u64)>> {
    let mut listed = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            listed.push((pid, entry.ino()));
        }
    }
    Ok(listed)
}

/// Reads one process; `None` for one that has ended or that the kernel hides, and for the kernel's own threads.
fn read(pid: u32, needs: Needs) -> io::Result<Option<Process>> {
    let line = match proc::read(pid, "stat") {
        Err(e) if is_gone(&e) || e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        line => line?,
    };
    let stat = stat::parse(&line).filter(|stat| !stat.kernel_thread && !stat.is_dead());
    Ok(stat.map(|stat| Process {
        id: ProcessId {
            pid,
            started_ticks: stat.started_ticks,
        },
        parent: stat.parent,
        group: stat.group,
        session: stat.session,
        command: needs.command.then(|| proc::command(pid)).flatten(),
        executable: needs.executable.then(|| proc::executable(pid).ok()).flatten(),
        cgroup: needs.cgroup.then(|| proc::cgroup(pid)).flatten(),
    }))
}

/// A process that ends between opening and reading answers `ESRCH`.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn shell(script: &str) -> Child {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        shell.spawn().expect("sh")
    }

    fn scanned() -> ProcessList {
        let mut list = ProcessList::default();
        list.set_needs(Needs {
            command: true,
            executable: true,
            cgroup: true,
        });
        list.scan().expect("scan");
        list
    }

    #[test]
    fn processes_come_and_go() {
        let mut list = scanned();
        let own = list.snapshot().get(std::process::id()).expect("own").clone();
        assert!(own.command.is_some() && own.executable.is_some() && own.cgroup.is_some());
        let mut child = shell("read line");
        let pid = child.id();
        assert!(list.snapshot().get(pid).is_none());
        list.scan().expect("scan");
        let found = list.snapshot().get(pid).expect("child").clone();
        assert_eq!((found.parent, found.session), (own.id.pid, own.session));
        assert_eq!(found.command.as_deref(), Some("sh -c read line"));
        assert!(list.snapshot().trees([own.id]).contains(&found.id));
        child.kill().expect("kill");
        child.wait().expect("wait");
        list.scan().expect("scan");
        assert!(!list.snapshot().runs(found.id));
    }

    #[test]
    fn another_program_in_an_old_process_is_seen_in_its_turn() {
        let mut list = scanned();
        let mut child = shell("read line; exec sh -c 'echo ready; read line'");
        for _ in 0..=YOUNG_SCANS {
            list.scan().expect("scan");
        }
        child
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(b"\n")
            .expect("write");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("ready");
        let turns = list.snapshot().iter().count() / READ_AGAIN + 2;
        // Other tests' processes that come meanwhile take turns too.
        let seen = (0..turns * 4).any(|_| {
            list.scan().expect("scan");
            let process = list.snapshot().get(child.id()).expect("child");
            process.command.as_deref() == Some("sh -c echo ready; read line")
        });
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(seen);
    }

    #[test]
    fn other_needs_begin_anew() {
        let mut list = scanned();
        list.set_needs(Needs::default());
        assert_eq!(list.snapshot().iter().count(), 0);
        list.scan().expect("scan");
        let own = list.snapshot().get(std::process::id()).expect("own");
        assert_eq!(
            (&own.command, &own.executable, &own.cgroup),
            (&None, &None, &None)
        );
    }

    #[test]
    fn needs_follow_the_watches() {
        let needs = |matcher| {
            Needs::of(&[Watch {
                engine: "x".to_owned(),
                matcher,
            }])
        };
        assert_eq!(needs(Match::Port(1)), Needs::default());
        assert!(needs(Match::Unit("x.service".to_owned())).cgroup);
        let both = needs(Match::Command {
            exe: None,
            args: None,
        });
        assert!(both.command && both.executable && !both.cgroup);
    }
}
