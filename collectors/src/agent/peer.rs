//! Who is at the other end of the socket, and what they may do.
#![expect(unsafe_code, reason = "rustix has no call for SO_PEERGROUPS")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::proc;
use crate::processes::ProcessId;

/// The process at the other end, as the kernel says (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number in this pid namespace; `None` when it lives outside of it.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Tell about its own work: as an agent, or about its allocator.
    Tell,
    /// Ask and order anything.
    Everything,
}

impl Peer {
    /// What the peer may do with a daemon of user `own`. `is_member` is whether it belongs to the group that the socket is
    /// open to, if there is one. `None` is nothing at all.
    #[must_use]
    pub const fn rights(self, own: u32, is_member: bool) -> Option<Rights> {
        if self.uid == own || self.uid == 0 {
            Some(Rights::Everything)
        } else if is_member {
            Some(Rights::Tell)
        } else {
            None
        }
    }
}

/// Whether one more of `uid` may come in where `most` can be and these users are already. The daemon's own user `own` and
/// root may have every place; of what they leave, each other user gets no more than stays free for others.
#[must_use]
pub fn has_place(inside: &[u32], uid: u32, own: u32, most: usize) -> bool {
    let free = most.saturating_sub(inside.len());
    let of_user = inside.iter().filter(|other| **other == uid).count();
    free > 0 && (uid == own || uid == 0 || of_user < free)
}

/// More groups than Linux lets a process have (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// The groups that the process at the other end had beside its own when it connected (SO_PEERGROUPS).
///
/// # Errors
/// When it is no connected Unix socket.
pub fn peer_groups(stream: impl AsFd) -> io::Result<Vec<u32>> {
    let descriptor = stream.as_fd().as_raw_fd();
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(&*groups)).map_err(io::Error::other)?;
        // SAFETY: `groups` has room for so many bytes as `bytes` says, and the kernel writes no more; both live throughout
        // the call.
        let answer = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let error = io::Error::last_os_error();
        // It says how many there are, also when that is more than there is room for.
        let count = usize::try_from(bytes).unwrap_or(0) / size_of::<u32>();
        if answer == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > MOST_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Longer lines of ancestors do not exist outside of tests.
const MOST_ANCESTORS: usize = 64;

/// The process and its ancestors, nearest first, as long as they live. Empty when it is gone or cannot be seen.
#[must_use]
pub fn lineage(pid: u32) -> Vec<ProcessId> {
    let mut line: Vec<ProcessId> = Vec::new();
    let mut next = pid;
    while next > 0 && line.len() < MOST_ANCESTORS {
        let Some(stat) = proc::stat(next) else { break };
        // A parent began before its child; one that did not is another process that got its number.
        if line
            .last()
            .is_some_and(|child| child.started_ticks < stat.started_ticks)
        {
            break;
        }
        line.push(ProcessId {
            pid: next,
            started_ticks: stat.started_ticks,
        });
        next = stat.parent;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_user_root_and_who_the_group_lets_in() {
        let peer = |uid| Peer { pid: Some(1), uid };
        assert_eq!(peer(1000).rights(1000, false), Some(Rights::Everything));
        assert_eq!(peer(0).rights(1000, false), Some(Rights::Everything));
        assert_eq!(peer(1001).rights(1000, false), None);
        assert_eq!(peer(1001).rights(1000, true), Some(Rights::Tell));
        assert_eq!(peer(1001).rights(0, false), None);
    }

    #[test]
    fn no_other_user_takes_all_places() {
        let mut inside = Vec::new();
        for (uid, places) in [
            (1001, 50),
            (1002, 25),
            (1003, 13),
            (1001, 0),
            (1000, 6),
            (0, 6),
            (1000, 0),
        ] {
            let before = inside.len();
            let most = if uid == 1000 && before < 90 {
                before + 6
            } else {
                100
            };
            while has_place(&inside, uid, 1000, most) {
                inside.push(uid);
            }
            assert_eq!(inside.len() - before, places, "{uid}");
        }
    }

    #[test]
    fn the_groups_of_the_other_end_are_those_that_it_has() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        assert_eq!(peer_groups(&one).unwrap(), own);
        // As many as fit into no first guess.
        let many = std::thread::spawn(|| {
            let groups: Vec<_> = (1_000..1_200).map(rustix::process::Gid::from_raw).collect();
            rustix::thread::set_thread_groups(&groups).is_ok().then(|| {
                let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
                peer_groups(&one).unwrap().len()
            })
        });
        // Only root may have other groups.
        assert!(matches!(many.join().unwrap(), None | Some(200)));
        assert!(peer_groups(tempfile::tempfile().unwrap()).is_err());
    }

    #[test]
    fn ancestors_are_found_nearest_first() {
        let line = lineage(std::process::id());
        assert_eq!(line[0].pid, std::process::id());
        assert_eq!(line[1].pid, std::os::unix::process::parent_id());
        assert!(lineage(1 << 23).is_empty() && lineage(0).is_empty());
    }
}
