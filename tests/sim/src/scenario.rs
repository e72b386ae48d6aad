//! Synthetic loads by family and seed.
//!
//! `steady` has the statistics of a published hour of a production chat service (19,366 requests; prompts of 1,020
//! tokens in the median and 1,155 in the mean, answers of 129 and 211): its mean rate, and its sizes by their
//! quantiles with straight lines between them, drawn independently (in the original they correlate by -0.1). The
//! slow wave of the original's rate is left to `diurnal`. Only sums and products are used, so that a seed gives the
//! same load on every platform.

use crate::random::Random;
use crate::workload::{Arrival, NeighborStep, Workload};

/// A family of loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// No requests at all.
    Idle,
    /// Chat at an even rate.
    #[default]
    Steady,
    /// Chat with a quiet night and a busy afternoon; a period is 24 hours.
    Diurnal,
    /// A little chat, and every five minutes or so ten seconds of thirteen times the mean.
    Bursts,
    /// Few requests with long prompts (40,000 tokens at the 95th percentile).
    LongContexts,
    /// Requests of similar sizes whose rate grows steadily over the duration and is level for its last fifth.
    Ramp,
    /// Chat at a third of the rate, and each request leaves half a megabyte behind.
    Leak,
    /// Chat at a third of the rate beside a process that takes a part of the card for some minutes and goes again.
    Neighbor,
}

/// The longest load that is made, in seconds: 31 days.
pub const MAX_DURATION_SECS: f64 = 31.0 * 86_400.0;
/// Requests a second of the production hour.
const STEADY_PER_SEC: f64 = 5.38;
/// Rate of `ramp` at its start, and when it is level.
const RAMP_PER_SEC: (f64, f64) = (0.9, 9.4);
/// Part of the duration after which `ramp` is level.
const RAMP_LEVEL_AT: f64 = 0.8;
/// `bursts`: rate between two bursts, rate in a burst, seconds of a burst, seconds between two (mean).
const BURSTS: (f64, f64, f64, f64) = (1.42, 32.5, 10.0, 290.0);
/// Requests arrive in slots this long, at most one in each: near to a Poisson process at the rates here.
const SLOT_SECS: f64 = 0.0025;

/// Quantiles as (share of the requests below, tokens).
type Quantiles = [(f64, f64)];

const CHAT_INPUT: &Quantiles = &[
    (0.0, 2.0),
    (0.01, 29.0),
    (0.05, 181.0),
    (0.1, 207.0),
    (0.2, 387.0),
    (0.3, 403.0),
    (0.4, 703.0),
    (0.5, 1020.0),
    (0.6, 1071.0),
    (0.7, 1130.0),
    (0.8, 1315.0),
    (0.85, 1876.0),
    (0.9, 2734.0),
    (0.95, 4083.0),
    (0.99, 4142.0),
    (0.999, 6212.0),
    (1.0, 14050.0),
];
const CHAT_OUTPUT: &Quantiles = &[
    (0.0, 7.0),
    (0.01, 16.0),
    (0.05, 41.0),
    (0.1, 54.0),
    (0.2, 77.0),
    (0.3, 91.0),
    (0.4, 103.0),
    (0.5, 129.0),
    (0.6, 177.0),
    (0.7, 384.0),
    (0.8, 400.0),
    (0.85, 411.0),
    (0.9, 424.0),
    (0.95, 451.0),
    (0.99, 601.0),
    (0.999, 954.0),
    (1.0, 1000.0),
];
// The sizes of `ramp` differ little, so that what grows is the load and not its noise.
const RAMP_INPUT: &Quantiles = &[(0.0, 300.0), (1.0, 500.0)];
const RAMP_OUTPUT: &Quantiles = &[(0.0, 250.0), (1.0, 350.0)];
const LONG_INPUT: &Quantiles = &[
    (0.0, 500.0),
    (0.5, 6000.0),
    (0.8, 16_000.0),
    (0.95, 40_000.0),
    (1.0, 60_000.0),
];

impl Scenario {
    /// The load of a seed over `duration_secs` of the simulated world, at most [`MAX_DURATION_SECS`].
    #[must_use]
    pub fn workload(self, seed: u64, duration_secs: f64) -> Workload {
        let duration_secs = duration_secs.min(MAX_DURATION_SECS);
        let mut random = Random::new(seed);
        let bursts = match self {
            Self::Bursts => burst_starts(&mut random, duration_secs),
            _ => Vec::new(),
        };
        let rate = |at: f64| match self {
            Self::Idle => 0.0,
            Self::Steady => STEADY_PER_SEC,
            Self::Diurnal => STEADY_PER_SEC * (0.4 + 1.2 * wave(at / 86_400.0)),
            Self::Bursts => {
                let (quiet, burst, length, _) = BURSTS;
                let started = bursts.partition_point(|start| *start <= at);
                let last = started.checked_sub(1).and_then(|i| bursts.get(i));
                if last.is_some_and(|start| at < start + length) {
                    burst
                } else {
                    quiet
                }
            }
            Self::LongContexts => 0.3,
            Self::Ramp => {
                let (start, end) = RAMP_PER_SEC;
                start + (end - start) * (at / duration_secs / RAMP_LEVEL_AT).min(1.0)
            }
            Self::Leak | Self::Neighbor => STEADY_PER_SEC / 3.0,
        };
        let times = match self {
            Self::Ramp => paced(&mut random, duration_secs, rate),
            _ => in_slots(&mut random, duration_secs, rate),
        };
        let (input, output) = match self {
            Self::Ramp => (RAMP_INPUT, RAMP_OUTPUT),
            Self::LongContexts => (LONG_INPUT, CHAT_OUTPUT),
            _ => (CHAT_INPUT, CHAT_OUTPUT),
        };
        let arrivals = times
            .into_iter()
            .map(|at_secs| Arrival {
                at_secs,
                input_tokens: draw(&mut random, input),
                output_tokens: draw(&mut random, output),
            })
            .collect();
        Workload {
            arrivals,
            leak_bytes_per_request: if self == Self::Leak { 512 << 10 } else { 0 },
            neighbor: match self {
                Self::Neighbor => neighbor(&mut random, duration_secs),
                _ => Vec::new(),
            },
        }
    }
}

/// Rises from 0 to 1 and falls back to 0 over one period, smoothly; a stand-in for a sine that needs no library.
fn wave(periods: f64) -> f64 {
    let phase = periods.fract();
    let ramp = if phase < 0.5 {
        2.0 * phase
    } else {
        2.0 - 2.0 * phase
    };
    ramp * ramp * (3.0 - 2.0 * ramp)
}

/// Arrivals that know nothing of each other.
fn in_slots(random: &mut Random, duration_secs: f64, rate: impl Fn(f64) -> f64) -> Vec<f64> {
    let starts = (0_u32..)
        .map(|slot| f64::from(slot) * SLOT_SECS)
        .take_while(|at| *at < duration_secs);
    starts
        .filter(|at| random.unit() < rate(*at) * SLOT_SECS)
        .collect()
}

/// Arrivals at even distances, each moved by up to a quarter of it: the rate without the noise of chance.
fn paced(random: &mut Random, duration_secs: f64, rate: impl Fn(f64) -> f64) -> Vec<f64> {
    let (mut times, mut due, mut next) = (Vec::new(), 0.0, random.between(0.75, 1.0));
    for slot in 0_u32.. {
        let at = f64::from(slot) * SLOT_SECS;
        if at >= duration_secs {
            break;
        }
        due += rate(at) * SLOT_SECS;
        if due >= next {
            times.push(at);
            let whole = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
            next = whole + random.between(0.75, 1.0);
        }
    }
    times
}

fn burst_starts(random: &mut Random, duration_secs: f64) -> Vec<f64> {
    let (_, _, length, apart) = BURSTS;
    let mut starts = Vec::new();
    let mut at = random.between(0.0, apart);
    while at < duration_secs {
        starts.push(at);
        at += length + random.between(0.5, 1.5) * apart;
    }
    starts
}

fn neighbor(random: &mut Random, duration_secs: f64) -> Vec<NeighborStep> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let mut steps = Vec::new();
    let mut at = random.between(60.0, 300.0);
    while at < duration_secs {
        // It loads a model, a quarter of a gigabyte in a quarter of a second.
        let bytes = random.between(1.0, 5.0) * GIB;
        for quarter in 1_u32.. {
            let loaded = f64::from(quarter) * 0.25;
            steps.push(NeighborStep {
                from_secs: at + loaded,
                bytes: whole(bytes.min(loaded * GIB)),
            });
            if loaded * GIB >= bytes {
                break;
            }
        }
        at += random.between(120.0, 600.0);
        steps.push(NeighborStep {
            from_secs: at,
            bytes: 0,
        });
        at += random.between(300.0, 900.0);
    }
    steps
}

/// A number of tokens, by the quantiles.
fn draw(random: &mut Random, quantiles: &Quantiles) -> u32 {
    let share = random.unit();
    let tokens = quantiles
        .windows(2)
        .find_map(|pair| match pair {
            [(from, low), (to, high)] if share < *to => {
                Some(low + (high - low) * (share - from) / (to - from))
            }
            _ => None,
        })
        .unwrap_or(1.0);
    u32::try_from(whole(tokens)).unwrap_or(u32::MAX).max(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size, from 0 to a few GiB"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn sizes(workload: &Workload, of: fn(&Arrival) -> u32) -> (u32, f64) {
        let mut all: Vec<u32> = workload.arrivals.iter().map(of).collect();
        all.sort_unstable();
        let mean = all.iter().map(|t| f64::from(*t)).sum::<f64>() / all.len() as f64;
        (all[all.len() / 2], mean)
    }

    #[test]
    fn steady_has_the_statistics_of_the_production_hour() {
        let workload = Scenario::Steady.workload(1, 3600.0);
        let count = workload.arrivals.len();
        assert!(count.abs_diff(19_366) < 600, "{count}");
        let (median_in, mean_in) = sizes(&workload, |a| a.input_tokens);
        let (median_out, mean_out) = sizes(&workload, |a| a.output_tokens);
        assert!(
            median_in.abs_diff(1020) < 40 && (mean_in - 1155.0).abs() < 40.0,
            "{median_in} {mean_in}"
        );
        assert!(
            median_out.abs_diff(129) < 10 && (mean_out - 211.0).abs() < 10.0,
            "{median_out} {mean_out}"
        );
    }

    #[test]
    fn a_seed_is_one_load_and_another_seed_another() {
        for scenario in Scenario::value_variants() {
            let load = scenario.workload(5, 900.0);
            assert_eq!(load, scenario.workload(5, 900.0), "{scenario:?}");
            assert!(
                load.arrivals.is_sorted_by(|a, b| a.at_secs <= b.at_secs),
                "{scenario:?}"
            );
            if *scenario != Scenario::Idle {
                assert_ne!(load, scenario.workload(6, 900.0), "{scenario:?}");
            }
        }
        assert!(Scenario::Idle.workload(5, 900.0).arrivals.is_empty());
    }

    #[test]
    fn a_seed_means_the_same_load_for_ever() {
        let first = Scenario::Steady.workload(42, 60.0).arrivals[0];
        assert_eq!(
            (first.at_secs, first.input_tokens, first.output_tokens),
            (0.4275, 587, 390)
        );
    }

    fn count(workload: &Workload, from: f64, to: f64) -> usize {
        workload
            .arrivals
            .iter()
            .filter(|a| (from..to).contains(&a.at_secs))
            .count()
    }

    #[test]
    fn ramp_grows() {
        let load = Scenario::Ramp.workload(3, 300.0);
        let thirds = [
            count(&load, 0.0, 100.0),
            count(&load, 100.0, 200.0),
            count(&load, 200.0, 300.0),
        ];
        assert!(thirds[0] * 2 < thirds[1] && thirds[1] < thirds[2], "{thirds:?}");
    }

    #[test]
    fn bursts_reach_thirteen_times_the_mean() {
        let load = Scenario::Bursts.workload(3, 3600.0);
        let mean = load.arrivals.len() as f64 / 3600.0;
        let peak = (0..3590)
            .map(|at| count(&load, f64::from(at), f64::from(at + 10)))
            .max()
            .unwrap_or(0) as f64
            / 10.0;
        assert!((9.0..17.0).contains(&(peak / mean)), "{}", peak / mean);
    }

    #[test]
    fn diurnal_is_quiet_at_midnight_and_busy_at_noon() {
        let midnight = Scenario::Diurnal.workload(3, 1800.0).arrivals.len() as f64 / 1800.0;
        assert!((1.8..2.6).contains(&midnight), "{midnight}");
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.5].map(wave), [0.0, 0.5, 1.0, 0.5, 1.0]);
    }

    #[test]
    fn long_contexts_leaks_and_neighbors_are_what_they_say() {
        let mut inputs: Vec<u32> = Scenario::LongContexts
            .workload(3, 36_000.0)
            .arrivals
            .iter()
            .map(|a| a.input_tokens)
            .collect();
        inputs.sort_unstable();
        let p95 = inputs[inputs.len() * 95 / 100];
        assert!((37_000..43_000).contains(&p95), "{p95}");
        assert_eq!(Scenario::Leak.workload(3, 60.0).leak_bytes_per_request, 512 << 10);
        let neighbor = Scenario::Neighbor.workload(3, 3600.0);
        assert!(neighbor.neighbor.iter().any(|step| step.bytes > 1 << 30));
        assert_eq!(neighbor.neighbor_bytes(0.0), 0);
    }
}
