//! What a CUDA program did, exactly: what a recording of it must show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Things of one kind that ran on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: u64,
}

/// Copies in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// How many.
    pub count: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Sum of their durations, ns.
    pub total_ns: u64,
}

/// Memory of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations {
    /// Pieces taken.
    pub taken: u64,
    /// Pieces given back.
    pub freed: u64,
    /// Bytes of all that were taken.
    pub taken_bytes: u64,
    /// Bytes that were not given back.
    pub live_bytes: u64,
}

/// How long the calls that launch took on the program's own threads, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them at most.
    pub p50: u64,
    /// 99 of 100 at most.
    pub p99: u64,
    /// 999 of 1000 at most.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// What one process did, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Which process this is about.
    pub pid: u32,
    /// Launches of kernels, or of graphs.
    pub launches: u64,
    /// Kernels by name; those of graphs too.
    pub kernels: BTreeMap<String, Tally>,
    /// Graphs.
    pub graphs: Tally,
    /// Copies by direction.
    pub copies: BTreeMap<String, Copies>,
    /// Memory of the device.
    pub allocations: Allocations,
    /// From before the first launch until after the last thing was done, ns.
    pub elapsed_ns: u64,
    /// When (ns since the Unix epoch) how many launches had been made, in intervals of 10 ms or so.
    pub checkpoints: Vec<(i64, u64)>,
    /// How long the calls that launch took, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_ns: Option<Latency>,
    /// How the forked child ended, if there was one: its exit code, -1 for a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked: Option<i32>,
    /// The same for each process, when it is about several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Account>,
}

impl Account {
    /// Counts what another did.
    pub(super) fn add(&mut self, other: &Account) {
        self.launches += other.launches;
        for (name, tally) in &other.kernels {
            let own = self.kernels.entry(name.clone()).or_default();
            own.count += tally.count;
            own.total_ns += tally.total_ns;
        }
        self.graphs.count += other.graphs.count;
        self.graphs.total_ns += other.graphs.total_ns;
        for (direction, copies) in &other.copies {
            let own = self.copies.entry(direction.clone()).or_default();
            own.count += copies.count;
            own.bytes += copies.bytes;
            own.total_ns += copies.total_ns;
        }
        self.allocations.taken += other.allocations.taken;
        self.allocations.freed += other.allocations.freed;
        self.allocations.taken_bytes += other.allocations.taken_bytes;
        self.allocations.live_bytes += other.allocations.live_bytes;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
    }
}

/// Durations up to some microseconds, each in a place of its own.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    max: u64,
}

const PLACES: usize = 1 << 16;

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; PLACES],
            max: 0,
        }
    }

    pub(super) fn add(&mut self, ns: u64) {
        let place = usize::try_from(ns).unwrap_or(PLACES).min(PLACES - 1);
        self.counts[place] += 1;
        self.max = self.max.max(ns);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.max = self.max.max(other.max);
    }

    pub(super) fn latency(&self) -> Latency {
        let all: u64 = self.counts.iter().sum();
        let at_most = |per_mille: u64| {
            let rank = (all * per_mille).div_ceil(1000);
            let mut seen = 0;
            let place = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            match place {
                // The last place holds all that is longer.
                Some(place) if place < PLACES - 1 => place as u64,
                _ => self.max,
            }
        };
        Latency {
            p50: at_most(500),
            p99: at_most(990),
            p999: at_most(999),
            max: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_ranks() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|ns| histogram.add(ns));
        let latency = Latency {
            p50: 500,
            p99: 990,
            p999: 999,
            max: 1000,
        };
        assert_eq!(histogram.latency(), latency);
        histogram.add(1_000_000);
        assert_eq!(histogram.latency().max, 1_000_000);
    }

    #[test]
    fn accounts_add_up() {
        let mut one = Account {
            launches: 3,
            kernels: [(
                "a".to_owned(),
                Tally {
                    count: 3,
                    total_ns: 30,
                },
            )]
            .into(),
            ..Account::default()
        };
        let other = one.clone();
        one.add(&other);
        assert_eq!(one.launches, 6);
        assert_eq!(
            one.kernels["a"],
            Tally {
                count: 6,
                total_ns: 60
            }
        );
    }
}
