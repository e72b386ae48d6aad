//! Who is at the other end of the socket, and what they may do.

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
    /// What the peer may do with a daemon of user `own`. `group` is whether the socket is open to a group: the kernel has
    /// checked then that whoever got through belongs to it. `None` is nothing at all.
    #[must_use]
    pub const fn rights(self, own: u32, group: bool) -> Option<Rights> {
        if self.uid == own || self.uid == 0 {
            Some(Rights::Everything)
        } else if group {
            Some(Rights::Tell)
        } else {
            None
        }
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
    fn ancestors_are_found_nearest_first() {
        let line = lineage(std::process::id());
        assert_eq!(line[0].pid, std::process::id());
        assert_eq!(line[1].pid, std::os::unix::process::parent_id());
        assert!(lineage(1 << 23).is_empty() && lineage(0).is_empty());
    }
}
