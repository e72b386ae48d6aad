//! Who listens on which port, looked up as often as its price allows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_trace::Stamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::snapshot::Snapshot;
use crate::proc::sockets;

/// A look-up that took this thread's time `t` is not repeated within `t` times this: 0.1 % of a core at most.
const PAUSE_FACTOR: u32 = 1000;

/// The processes that hold listening sockets, by port.
pub(crate) type Holders = BTreeMap<u16, BTreeSet<u32>>;

/// When to look again.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    not_before: Option<Stamp>,
}

impl Ports {
    /// Who listens on these ports; nobody when it is too early to look again. A process whose files may not be looked
    /// at holds nothing.
    pub(crate) fn holders(&mut self, ports: &BTreeSet<u16>, snapshot: &Snapshot, at: Stamp) -> Holders {
        let mut holders = Holders::new();
        if ports.is_empty() || self.not_before.is_some_and(|not_before| at < not_before) {
            return holders;
        }
        let start = clock_gettime(ClockId::ThreadCPUTime);
        let sockets = sockets::listening(ports);
        if !sockets.is_empty() {
            for pid in snapshot.iter().map(|process| process.id.pid) {
                for port in sockets::held_by(pid).filter_map(|inode| sockets.get(&inode)) {
                    holders.entry(*port).or_default().insert(pid);
                }
            }
        }
        let price = between(start, clock_gettime(ClockId::ThreadCPUTime));
        self.not_before = Some(at.plus(price.saturating_mul(PAUSE_FACTOR)));
        holders
    }
}

fn between(start: Timespec, end: Timespec) -> Duration {
    let nanos = |time: Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Duration::from_nanos(u64::try_from(nanos(end) - nanos(start)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_is_paid_for_by_a_pause() {
        let (mut ports, nobody) = (Ports::default(), Snapshot::default());
        assert_eq!(
            ports.holders(&BTreeSet::new(), &nobody, Stamp::at_secs(1)),
            Holders::new()
        );
        assert_eq!(ports.not_before, None, "nothing was asked, so nothing was paid");
        ports.holders(&BTreeSet::from([1]), &nobody, Stamp::at_secs(1));
        let first = ports.not_before.expect("it took some time");
        assert!(first > Stamp::at_secs(1));
        ports.holders(&BTreeSet::from([1]), &nobody, Stamp::at_secs(1));
        assert_eq!(ports.not_before, Some(first), "too early");
        ports.holders(&BTreeSet::from([1]), &nobody, first);
        assert!(ports.not_before > Some(first));
    }
}
