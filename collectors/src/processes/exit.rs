//! How a process ended, for one that is not a child: a pidfd tells when at once, and three sources tell how.
#![expect(unsafe_code, reason = "rustix has no call for PIDFD_GET_INFO")]

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::table::{ExitHint, ProcessId};
use crate::proc;

/// The signal of kill -9 and of the kernel's out-of-memory killer, as an exit status.
const KILLED: i32 = 128 + 9;

/// `struct pidfd_info` of `<linux/pidfd.h>` in its first published size, which every later kernel accepts.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, thread group, parent, and eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFS_IOCTL_MAGIC`, 11.
const PIDFD_GET_INFO: Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);
/// Linux 6.15: asks for `exit_code`, and answers that it is known.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Watches one process until it ends.
#[derive(Debug)]
pub(crate) struct ExitWatch {
    process: ProcessId,
    /// `None` on kernels before 5.3 and for want of file descriptors: then only the next scan sees the end.
    pidfd: Option<OwnedFd>,
    /// It has ended, but how will be known only when its parent has waited for it.
    ended: bool,
    /// The kernel's count of out-of-memory kills in this cgroup, as of the last scan.
    kills: Option<Kills>,
}

#[derive(Debug)]
struct Kills {
    path: String,
    count: u64,
}

/// A process that somebody looks after from time to time.
#[derive(Clone, Debug)]
pub struct Lookout(Arc<ExitWatch>);

impl Lookout {
    /// Begins to look; of a process that is gone already nothing will be known.
    #[must_use]
    pub fn new(process: ProcessId) -> Self {
        Self(Arc::new(ExitWatch::new(process)))
    }

    /// `None` while it runs; then its exit status, if anybody knows it: 0..255, or 128+n for signal n.
    #[must_use]
    pub fn ended(&self) -> Option<Option<i32>> {
        let runs = match &self.0.pidfd {
            Some(pidfd) => !has_ended(pidfd.as_fd()),
            None => proc::stat(self.0.process.pid)
                .is_some_and(|now| !now.is_dead() && now.started_ticks == self.0.process.started_ticks),
        };
        (!runs).then(|| self.0.status().map(code))
    }
}

/// What a look at a process that may have ended shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It runs, or its end will be known better in a moment.
    Nothing,
    /// It has ended, with the status if it is known.
    Ended(Option<i32>),
}

impl ExitWatch {
    /// Begins to watch. The process may have ended meanwhile, or even another have its pid: then nobody can tell how.
    pub(crate) fn new(process: ProcessId) -> Self {
        let pidfd = i32::try_from(process.pid)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            // The number was opened: it is this process only if this process still has the number.
            .filter(|_| {
                proc::stat(process.pid).is_some_and(|now| now.started_ticks == process.started_ticks)
            });
        let kills = proc::cgroup(process.pid).and_then(|cgroup| {
            let path = format!("/sys/fs/cgroup{cgroup}/memory.events");
            Some(Kills {
                count: kills(&path)?,
                path,
            })
        });
        Self {
            process,
            pidfd,
            ended: false,
            kills,
        }
    }

    /// What to poll, and for what.
    pub(crate) fn poll(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        // A hang-up, which says that its parent has waited for it, is always reported.
        let events = if self.ended {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        Some((self.pidfd.as_ref()?.as_fd(), events))
    }

    /// To be called when the poll reported `events`.
    pub(crate) fn look(&mut self, events: PollFlags) -> Seen {
        if events.is_empty() {
            return Seen::Nothing;
        }
        self.ended = true;
        let status = self.status();
        if status.is_none() && !events.contains(PollFlags::HUP) {
            return Seen::Nothing;
        }
        Seen::Ended(status.map(code))
    }

    /// To be called at each scan: what was not known until now will not be known. `listed` says whether the scan saw
    /// the process; the pidfd, where there is one, knows better.
    pub(crate) fn conclude(&mut self, listed: bool) -> Seen {
        let runs = match &self.pidfd {
            Some(pidfd) => !has_ended(pidfd.as_fd()),
            None => listed,
        };
        if runs {
            if let Some(former) = &mut self.kills {
                former.count = kills(&former.path).unwrap_or(former.count);
            }
            return Seen::Nothing;
        }
        Seen::Ended(self.status().map(code))
    }

    /// The wait status of the ended process, if anybody knows it.
    fn status(&self) -> Option<i32> {
        let reaped = || self.pidfd.as_ref().and_then(|pidfd| reaped_status(pidfd.as_fd()));
        // Its parent may wait for it between the first two.
        reaped().or_else(|| unreaped_status(self.process)).or_else(reaped)
    }

    /// What the status alone does not tell.
    pub(crate) fn hint(&self, exit_code: Option<i32>) -> Option<ExitHint> {
        let former = self.kills.as_ref()?;
        let more = kills(&former.path)? > former.count;
        (more && exit_code == Some(KILLED)).then_some(ExitHint::HostOutOfMemory)
    }
}

/// Whether the whole process has ended, waited for or not.
fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let at_once = Timespec::default();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// The wait status of a process whose parent has waited for it.
fn reaped_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the opcode is PIDFD_GET_INFO with the size of `PidfdInfo`, whose layout is the kernel's; the kernel
    // reads and writes that many bytes there and keeps no reference.
    let request = unsafe { Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut info) };
    // SAFETY: as above; a descriptor or a kernel that does not know the request answers with an error.
    unsafe { ioctl(pidfd, request) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// The wait status of a process whose parent has not waited for it yet, on any kernel. It is shown to the process's
/// user and to root; to others it reads as 0, so that they are told apart by a link that they may not follow.
fn unreaped_status(process: ProcessId) -> Option<i32> {
    let link = std::fs::read_link(proc::path_of(process.pid, "exe"));
    let may_look = link.is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let stat = proc::stat(process.pid)?;
    let is_it = stat.is_dead() && stat.started_ticks == process.started_ticks;
    (is_it && may_look).then_some(stat.exit_status)
}

/// An exit code out of a wait status: the low seven bits are the signal, the next byte is the status.
const fn code(status: i32) -> i32 {
    match status & 0x7f {
        0 => status >> 8 & 0xff,
        signal => 128 + signal,
    }
}

/// The count of a cgroup's processes that the kernel killed for want of memory (cgroup version 2).
fn kills(path: &str) -> Option<u64> {
    kills_in(&std::fs::read_to_string(path).ok()?)
}

fn kills_in(events: &str) -> Option<u64> {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A child that ends as the script says when its input is closed.
    fn child(script: &str) -> (Child, ExitWatch) {
        let child = Command::new("sh")
            .args(["-c", &format!("read line; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let pid = child.id();
        let started_ticks = proc::stat(pid).expect("it runs").started_ticks;
        (child, ExitWatch::new(ProcessId { pid, started_ticks }))
    }

    fn wait_for(watch: &ExitWatch, events: PollFlags) -> PollFlags {
        let (pidfd, _) = watch.poll().expect("pidfd");
        let mut fds = [PollFd::new(&pidfd, events)];
        poll(&mut fds, None).expect("poll");
        fds[0].revents()
    }

    /// PIDFD_INFO_EXIT came with Linux 6.15.
    fn kernel_tells() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(15))
    }

    #[test]
    fn the_status_before_and_after_its_parent_waited() {
        for (script, expected) in [
            ("exit 3", 3),
            ("exit 0", 0),
            ("kill -9 $$", 137),
            ("kill -TERM $$", 143),
        ] {
            let (mut child, mut watch) = child(script);
            assert_eq!(watch.look(PollFlags::empty()), Seen::Nothing);
            assert_eq!(watch.conclude(true), Seen::Nothing);
            drop(child.stdin.take());
            let events = wait_for(&watch, PollFlags::IN);
            assert_eq!(
                unreaped_status(watch.process).map(code),
                Some(expected),
                "{script}"
            );
            assert_eq!(watch.look(events), Seen::Ended(Some(expected)), "{script}");
            child.wait().expect("wait");
            assert_eq!(unreaped_status(watch.process), None, "{script}");
            if kernel_tells() {
                assert_eq!(wait_for(&watch, PollFlags::empty()), PollFlags::HUP, "{script}");
                assert_eq!(watch.conclude(false), Seen::Ended(Some(expected)), "{script}");
            }
        }
    }

    #[test]
    fn another_process_with_the_pid_is_not_watched() {
        let (mut child, watch) = child("exit 3");
        let earlier = ProcessId {
            started_ticks: watch.process.started_ticks - 1,
            ..watch.process
        };
        let mut watch = ExitWatch::new(earlier);
        assert!(watch.poll().is_none());
        assert_eq!(watch.conclude(false), Seen::Ended(None));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[test]
    fn wait_statuses() {
        for (status, expected) in [
            (0, 0),
            (0x0300, 3),
            (0xff00, 255),
            (9, 137),
            (0x8b, 139),
            (15, 143),
        ] {
            assert_eq!(code(status), expected, "{status:#x}");
        }
    }

    #[test]
    fn a_kill_for_want_of_memory_is_one_that_the_cgroup_counts() {
        let events = tempfile::NamedTempFile::new().expect("file");
        let write = |text: &str| std::fs::write(events.path(), text).expect("write");
        let path = events.path().to_str().expect("path").to_owned();
        write("low 0\noom 7\noom_kill 2\noom_group_kill 0\n");
        let watch = ExitWatch {
            process: ProcessId {
                pid: 1,
                started_ticks: 0,
            },
            pidfd: None,
            ended: false,
            kills: Some(Kills {
                count: kills(&path).expect("count"),
                path,
            }),
        };
        assert_eq!(watch.hint(Some(KILLED)), None, "the count did not rise");
        write("oom_kill 3\n");
        assert_eq!(watch.hint(Some(KILLED)), Some(ExitHint::HostOutOfMemory));
        assert_eq!(watch.hint(Some(143)), None, "another signal");
        write("oom_kill\n");
        assert_eq!(watch.hint(Some(KILLED)), None, "unknown");
    }
}
