//! What follows from an agent's frames: how busy the device was with the process's kernels, and what the agent cost.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_trace::DeviceId;
use plimsoll_trace::wire::{Cost, Kernels};

/// The signals, in the order of [`Figures::take`].
pub(super) const SIGNALS: [&str; 5] = [
    "kernel.busy_ratio",
    "kernel.launches_per_sec",
    "agent.cost_ratio",
    "agent.duty_ratio",
    "agent.device_bytes",
];

/// Where the agent's own are.
pub(super) const COST_RATIO: usize = 2;
pub(super) const DUTY_RATIO: usize = 3;

/// Where in [`SIGNALS`] the share of a device's time is.
pub(super) const BUSY_RATIO: usize = 0;

/// One value for each of [`SIGNALS`]; `None` is unknown.
pub(super) type Values = [Option<f64>; SIGNALS.len()];

/// Sums since the last time they were taken.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Periods may come in several frames.
    periods: BTreeSet<(u64, u64)>,
    launches: u64,
    busy_ns: BTreeMap<u32, u64>,
    wall_ns: u64,
    cost_ns: u64,
    traced_ns: u64,
    device_bytes: Option<u64>,
    busy_ratios: Vec<(u32, f64)>,
}

/// More periods than this are not between two looks.
const MOST_PERIODS: usize = 4_096;
const MOST_DEVICES: usize = 256;
/// Shorter times say nothing about what an agent costs.
const A_WHILE_NS: u64 = 500_000_000;

impl Figures {
    pub(super) fn kernels(&mut self, kernels: &Kernels) {
        if self.periods.len() < MOST_PERIODS {
            self.periods.insert((kernels.start_ns, kernels.end_ns));
        }
        for stats in &kernels.stats {
            self.launches = self.launches.saturating_add(stats.count);
            if self.busy_ns.len() < MOST_DEVICES || self.busy_ns.contains_key(&stats.device) {
                let busy = self.busy_ns.entry(stats.device).or_default();
                *busy = busy.saturating_add(stats.total_ns);
            }
        }
    }

    pub(super) fn cost(&mut self, cost: &Cost) {
        self.wall_ns = self.wall_ns.saturating_add(cost.wall_ns);
        self.cost_ns = self
            .cost_ns
            .saturating_add(cost.thread_ns.saturating_add(cost.hooks_ns));
        self.traced_ns = self.traced_ns.saturating_add(cost.traced_ns);
        self.device_bytes = cost.device_bytes;
    }

    /// For which share of the time each device was busy with the process's kernels, when that was last asked.
    pub(super) fn busy_ratios(&self) -> &[(u32, f64)] {
        &self.busy_ratios
    }

    /// The values of what came in since the last time. Of several devices the busiest speaks. What an agent cost is told
    /// over a while, because its first moments are all cost; or over what there was, when it is the `last` time.
    #[expect(
        clippy::cast_precision_loss,
        reason = "ratios of times, and figures far below 2^52"
    )]
    pub(super) fn take(&mut self, last: bool) -> Values {
        let mut now = std::mem::take(self);
        if now.wall_ns < A_WHILE_NS && !last {
            *self = Self {
                wall_ns: std::mem::take(&mut now.wall_ns),
                cost_ns: now.cost_ns,
                traced_ns: now.traced_ns,
                ..Self::default()
            };
        }
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let period_ns = now.periods.iter().fold(0_u64, |sum, (start, end)| {
            sum.saturating_add(end.saturating_sub(*start))
        });
        let busiest = now.busy_ns.values().max().copied();
        let share = |(device, busy): (&u32, &u64)| Some((*device, ratio(*busy, period_ns)?));
        self.busy_ratios = now.busy_ns.iter().filter_map(share).collect();
        [
            busiest
                .and_then(|busy| ratio(busy, period_ns))
                .map(|ratio| ratio.min(1.0)),
            (period_ns > 0).then(|| now.launches as f64 / (period_ns as f64 / 1e9)),
            ratio(now.cost_ns, now.wall_ns),
            ratio(now.traced_ns, now.wall_ns).map(|ratio| ratio.min(1.0)),
            now.device_bytes.map(|bytes| bytes as f64),
        ]
    }
}

/// For which share of the time the busiest device was busy with the kernels of several processes: on one device their
/// shares add up. Kernels that run side by side count each, so the sum may exceed the time; then it was all of it.
pub(super) fn busiest(shares: impl Iterator<Item = (Option<DeviceId>, f64)>) -> Option<f64> {
    let mut devices: BTreeMap<DeviceId, f64> = BTreeMap::new();
    let mut unknown = None::<f64>;
    for (device, share) in shares {
        match device {
            Some(device) => *devices.entry(device).or_default() += share,
            // Two that are not known may be two or one.
            None => unknown = Some(unknown.map_or(share, |most| most.max(share))),
        }
    }
    let all = devices.into_values().chain(unknown);
    all.reduce(f64::max).map(|share| share.min(1.0))
}

/// The values of several processes of one run as one: rates and sizes add up, of ratios the highest speaks.
pub(super) fn merged(all: impl Iterator<Item = Values>) -> Values {
    all.fold([None; SIGNALS.len()], |mut sum, values| {
        for ((name, sum), value) in SIGNALS.iter().zip(&mut sum).zip(values) {
            *sum = match (*sum, value) {
                (Some(sum), Some(value)) if name.ends_with("_ratio") => Some(sum.max(value)),
                (Some(sum), Some(value)) => Some(sum + value),
                (known, other) => known.or(other),
            };
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::TraceTier;
    use plimsoll_trace::wire::KernelStats;

    use super::*;

    fn kernels(start_ns: u64, device: u32, count: u64, total_ns: u64) -> Kernels {
        let stats = KernelStats {
            device,
            count,
            total_ns,
            ..KernelStats::default()
        };
        Kernels {
            start_ns,
            end_ns: start_ns + 1_000_000_000,
            stats: vec![stats],
        }
    }

    #[test]
    fn the_busiest_device_speaks_and_a_period_counts_once() {
        let mut figures = Figures::default();
        assert_eq!(figures.take(false), [None; 5]);
        figures.kernels(&kernels(0, 0, 10, 500_000_000));
        figures.kernels(&kernels(0, 1, 30, 100_000_000));
        figures.kernels(&kernels(1_000_000_000, 0, 20, 100_000_000));
        let cost = |wall_ns| Cost {
            wall_ns,
            thread_ns: 3_000,
            hooks_ns: 2_000,
            traced_ns: 2_000_000_000,
            device_bytes: Some(0),
            tier: TraceTier::Graph,
        };
        figures.cost(&cost(1_000));
        assert_eq!(
            figures.take(false),
            [Some(0.3), Some(30.0), None, None, Some(0.0)],
            "its first moment says nothing"
        );
        figures.cost(&cost(999_999_000));
        assert_eq!(
            figures.take(false),
            [None, None, Some(1e-5), Some(1.0), Some(0.0)]
        );
        figures.cost(&cost(1_000_000));
        assert_eq!(
            figures.take(true),
            [None, None, Some(0.005), Some(1.0), Some(0.0)]
        );
        figures.kernels(&kernels(0, 0, 1, u64::MAX));
        assert_eq!(figures.take(false)[0], Some(1.0));
    }

    #[test]
    fn processes_share_a_device_and_its_time() {
        let gpu = |name: &str| Some(DeviceId::from(name));
        let of = |shares: &[(Option<DeviceId>, f64)]| busiest(shares.iter().cloned());
        assert_eq!(of(&[]), None);
        assert_eq!(
            of(&[(gpu("a"), 0.5), (gpu("b"), 0.5), (gpu("a"), 0.25)]),
            Some(0.75)
        );
        assert_eq!(of(&[(gpu("a"), 0.5), (gpu("a"), 0.75)]), Some(1.0));
        assert_eq!(of(&[(None, 0.5), (gpu("a"), 0.25), (None, 0.25)]), Some(0.5));
        let mut figures = Figures::default();
        figures.kernels(&kernels(0, 3, 1, 250_000_000));
        figures.take(false);
        assert_eq!(figures.busy_ratios(), [(3, 0.25)]);
        figures.take(false);
        assert_eq!(figures.busy_ratios(), []);
    }

    #[test]
    fn processes_of_a_run_are_one() {
        let values = [
            [Some(0.3), Some(10.0), None, None, Some(1.0)],
            [Some(0.2), Some(5.0), Some(0.01), None, Some(2.0)],
        ];
        assert_eq!(
            merged(values.into_iter()),
            [Some(0.3), Some(15.0), Some(0.01), None, Some(3.0)]
        );
    }
}
