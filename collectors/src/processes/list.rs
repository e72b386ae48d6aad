//! The list of processes, kept up to date at little cost.
//!
//! Reading three files of every process each second would cost more than everything else that Plimsoll does. So the
//! folder `/proc` is listed, which takes about a microsecond per process, and a process is read when it is new. The
//! kernel gives the folder of a new process a new inode, also when its pid was used before.
//!
//! What is read can change later: a young process runs another program and is moved to its cgroup, a shell becomes
//! the engine by `exec`, a child loses its parent. So the young are read at each scan, and a part of the others in turn.
//! Whatever a reading showed, none is the last: only the kernel's own threads are not read again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::time::Duration;

use plimsoll_trace::Stamp;

use super::matcher::{Match, Watch};
use super::snapshot::{Process, Snapshot};
use super::table::ProcessId;
use crate::proc::{self, stat};

/// How long a process counts as young. It is a time and not a number of scans, which may come in quick succession.
const YOUTH: Duration = Duration::from_secs(30);

/// After so many scans each of the others has had its turn.
const ROUND: usize = 30;

/// How many of the others are read in one scan at least.
const TURN: usize = 16;

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
    /// It could not be read until now, such as for want of file descriptors.
    is_unread: bool,
    young_until: Stamp,
    is_kernel_thread: bool,
    /// The scan that saw it last.
    seen: u64,
}

impl Entry {
    fn new(inode: u64, at: Stamp) -> Self {
        Self {
            inode,
            is_unread: true,
            young_until: at.plus(YOUTH),
            is_kernel_thread: false,
            seen: 0,
        }
    }

    /// Whether it is read at each scan. The others take turns.
    fn is_urgent(&self, at: Stamp) -> bool {
        !self.is_kernel_thread && (self.is_unread || at < self.young_until)
    }
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
    pub(crate) fn scan(&mut self, at: Stamp) -> io::Result<()> {
        self.take_in(list()?, at);
        let mut to_read: Vec<u32> = Vec::new();
        to_read.extend(
            self.entries
                .iter()
                .filter(|(_, e)| e.is_urgent(at))
                .map(|(pid, _)| *pid),
        );
        to_read.extend(self.next_turn(at));
        for pid in to_read {
            let found = read(pid, self.needs);
            self.take(pid, found, at);
        }
        Ok(())
    }

    /// Forgets who is not listed any more, and begins with those who are new.
    fn take_in(&mut self, listed: Vec<(u32, u64)>, at: Stamp) {
        self.scans += 1;
        let (scans, snapshot) = (self.scans, &mut self.snapshot);
        for (pid, inode) in listed {
            let entry = self.entries.entry(pid).or_insert_with(|| Entry::new(inode, at));
            if entry.inode != inode {
                *entry = Entry::new(inode, at);
                snapshot.remove(pid);
            }
            entry.seen = scans;
        }
        self.entries.retain(|pid, entry| {
            let listed = entry.seen == scans;
            if !listed {
                snapshot.remove(*pid);
            }
            listed
        });
    }

    /// Who is read again although there is no hurry.
    fn next_turn(&mut self, at: Stamp) -> Vec<u32> {
        let others =
            |(pid, entry): (&u32, &Entry)| (!entry.is_kernel_thread && !entry.is_urgent(at)).then_some(*pid);
        let size = self.entries.iter().filter_map(others).count();
        let size = size.div_ceil(ROUND).max(TURN);
        let turn: Vec<u32> = self
            .entries
            .range(self.turn..)
            .filter_map(others)
            .take(size)
            .collect();
        self.turn = turn
            .last()
            .filter(|_| turn.len() == size)
            .map_or(0, |pid| pid.saturating_add(1));
        turn
    }

    /// Takes in what a reading showed.
    fn take(&mut self, pid: u32, found: io::Result<Found>, at: Stamp) {
        let Some(entry) = self.entries.get_mut(&pid) else {
            return;
        };
        match found {
            Ok(Found::Process(process)) => {
                entry.is_unread = false;
                // At the first scan all are new to the list, but few are young.
                let age = process.id.age_ns(at).clamp(0, i128::from(i64::MAX));
                let age = Duration::from_nanos(u64::try_from(age).unwrap_or(0));
                entry.young_until = entry.young_until.min(at.plus(YOUTH.saturating_sub(age)));
                self.snapshot.insert(process);
            }
            Ok(other) => {
                entry.is_unread = false;
                entry.is_kernel_thread = other == Found::KernelThread;
                self.snapshot.remove(pid);
            }
            // It is as it was.
            Err(error) => tracing::debug!(pid, %error, "a process could not be read"),
        }
    }
}

/// What an entry of `/proc` stands for.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Process(Process),
    KernelThread,
    /// It has ended, or the kernel hides it.
    Nobody,
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

/// Reads one process.
fn read(pid: u32, needs: Needs) -> io::Result<Found> {
    let line = match proc::read(pid, "stat") {
        Err(e) if is_gone(&e) || e.kind() == io::ErrorKind::PermissionDenied => return Ok(Found::Nobody),
        line => line?,
    };
    let Some(stat) = stat::parse(&line).filter(|stat| !stat.is_dead()) else {
        return Ok(Found::Nobody);
    };
    if stat.kernel_thread {
        return Ok(Found::KernelThread);
    }
    Ok(Found::Process(Process {
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
        list.scan(Stamp::now()).expect("scan");
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
        list.scan(Stamp::now()).expect("scan");
        let found = list.snapshot().get(pid).expect("child").clone();
        assert_eq!((found.parent, found.session), (own.id.pid, own.session));
        assert_eq!(found.command.as_deref(), Some("sh -c read line"));
        assert!(list.snapshot().trees([own.id]).contains(&found.id));
        child.kill().expect("kill");
        child.wait().expect("wait");
        list.scan(Stamp::now()).expect("scan");
        assert!(!list.snapshot().runs(found.id));
    }

    /// A shell that becomes another program, and whether the list sees that within `scans` scans at `at`.
    fn sees_another_program(list: &mut ProcessList, scans: usize, at: Stamp) -> bool {
        let mut child = shell("read line; exec sh -c 'echo ready; read line'");
        list.scan(Stamp::now()).expect("scan");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"\n").expect("write");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("ready");
        let seen = (0..scans).any(|_| {
            list.scan(at).expect("scan");
            let process = list.snapshot().get(child.id()).expect("child");
            process.command.as_deref() == Some("sh -c echo ready; read line")
        });
        child.kill().expect("kill");
        child.wait().expect("wait");
        seen
    }

    #[test]
    fn another_program_in_an_old_process_is_seen_in_its_turn() {
        let mut list = scanned();
        // Other tests' processes that come meanwhile take turns too.
        assert!(sees_another_program(
            &mut list,
            ROUND * 4,
            Stamp::now().plus(YOUTH * 2)
        ));
    }

    #[test]
    fn another_program_in_a_young_process_is_seen_at_once() {
        let mut list = scanned();
        // However many scans there were.
        for _ in 0..9 {
            list.scan(Stamp::now()).expect("scan");
        }
        assert!(sees_another_program(&mut list, 1, Stamp::now()));
    }

    /// A process that started when this machine did.
    fn old(pid: u32) -> Found {
        Found::Process(Process {
            id: ProcessId {
                pid,
                started_ticks: 0,
            },
            parent: 1,
            group: pid,
            session: pid,
            command: None,
            executable: None,
            cgroup: None,
        })
    }

    /// Whom the list would read at each scan.
    fn urgent(list: &ProcessList, at: Stamp) -> Vec<u32> {
        let urgent = list.entries.iter().filter(|(_, entry)| entry.is_urgent(at));
        urgent.map(|(pid, _)| *pid).collect()
    }

    #[test]
    fn what_could_not_be_read_is_tried_at_each_scan_however_long_it_takes() {
        let (mut list, t) = (ProcessList::default(), Stamp::at_secs);
        list.take_in(vec![(7, 1), (8, 1)], t(1000));
        for second in 1000..2000 {
            let descriptors = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
            list.take(7, Err(descriptors), t(second));
            list.take(8, Ok(old(8)), t(second));
        }
        assert_eq!(urgent(&list, t(2000)), [7]);
        list.take(7, Ok(old(7)), t(2000));
        assert_eq!(urgent(&list, t(2000)), [0_u32; 0]);
        assert!(list.snapshot().get(7).is_some());
    }

    #[test]
    fn everybody_but_the_kernel_takes_turns_whatever_the_last_reading_showed() {
        let (mut list, t) = (ProcessList::default(), Stamp::at_secs);
        let pids = 1..=1500;
        list.take_in(pids.clone().map(|pid| (pid, 1)).collect(), t(1000));
        for pid in pids {
            let found = match pid % 3 {
                0 => Found::KernelThread,
                1 => Found::Nobody,
                _ => old(pid),
            };
            list.take(pid, Ok(found), t(1000));
        }
        let later = t(1000).plus(YOUTH);
        let turns: Vec<u32> = (0..ROUND).flat_map(|_| list.next_turn(later)).collect();
        let expected: Vec<u32> = (1..=1500).filter(|pid| pid % 3 != 0).collect();
        assert_eq!(turns, expected, "each once in a round");
    }

    #[test]
    fn the_old_are_not_young_because_the_list_is() {
        let (mut list, t) = (ProcessList::default(), Stamp::at_secs);
        list.take_in(vec![(7, 1), (8, 1)], t(1000));
        list.take(7, Ok(old(7)), t(1000));
        let Found::Process(mut young) = old(8) else {
            return;
        };
        young.id.started_ticks = rustix::param::clock_ticks_per_second() * 995;
        list.take(8, Ok(Found::Process(young)), t(1000));
        assert_eq!(urgent(&list, t(1001)), [8]);
        assert_eq!(urgent(&list, t(1024)), [8]);
        assert_eq!(urgent(&list, t(1025)), [0_u32; 0]);
        // Another process of the same pid is new.
        list.take_in(vec![(7, 2), (8, 1)], t(1100));
        assert_eq!(urgent(&list, t(1100)), [7]);
        assert!(list.snapshot().get(7).is_none());
    }

    #[test]
    fn other_needs_begin_anew() {
        let mut list = scanned();
        list.set_needs(Needs::default());
        assert_eq!(list.snapshot().iter().count(), 0);
        list.scan(Stamp::now()).expect("scan");
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
