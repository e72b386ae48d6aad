//! Whether a process's memory grows while its load does not: what it holds at the least in even stretches of time, the
//! slope through these troughs (Theil-Sen: of the slopes between any two the median, less a standard deviation), and
//! whether they rise at all (Mann-Kendall: how many more pairs rise than fall, against what chance would make
//! of it).
//!
//! Troughs, because what requests need comes and goes on top of what is never given back. The stretches begin with a
//! minute and grow with the time that is looked at, up to hours: a fast leak is found soon, and a slow one in spite of
//! the waves of a day.

use std::time::Duration;

use plimsoll_trace::Stamp;

/// The first stretches are this long.
const FIRST_STRETCH: Duration = Duration::from_secs(60);
/// When there are so many, each two become one of twice the length.
const MOST_TROUGHS: usize = 64;
/// With fewer nothing is known.
const FEWEST_TROUGHS: usize = 8;
/// Standard deviations that chance passes, upwards, in one of 100 cases.
const ONE_IN_100: f64 = 2.326;
/// A load that grows by less than this share of itself explains no growth of memory.
const GROWTH_SHARE: f64 = 0.15;

/// One stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Trough {
    /// The least memory held in it, bytes.
    bytes: f64,
    /// The mean of the load in it; `None` if it was not known at all.
    load: Option<f64>,
}

/// The stretch that is not over yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    since: Stamp,
    bytes: f64,
    load_sum: f64,
    loads: u32,
}

/// A process's memory since it is watched, as troughs.
#[derive(Clone, Debug)]
pub(crate) struct Troughs {
    stretch: Duration,
    closed: Vec<Trough>,
    open: Option<Open>,
    /// The first stretch is none: the model is loaded and the caches fill.
    is_warm: bool,
    growth_per_sec: Option<f64>,
    /// When it was first looked at.
    since: Option<Stamp>,
}

impl Default for Troughs {
    fn default() -> Self {
        Self {
            stretch: FIRST_STRETCH,
            closed: Vec::new(),
            open: None,
            is_warm: false,
            growth_per_sec: None,
            since: None,
        }
    }
}

impl Troughs {
    /// Takes what the process holds now, and how much it has to do (in any unit that grows with its need).
    pub(crate) fn push(&mut self, at: Stamp, bytes: f64, load: Option<f64>) {
        self.since.get_or_insert(at);
        let open = self.open.get_or_insert(Open {
            since: at,
            bytes,
            load_sum: 0.0,
            loads: 0,
        });
        open.bytes = open.bytes.min(bytes);
        open.load_sum += load.unwrap_or(0.0);
        open.loads += u32::from(load.is_some());
        if at.since(open.since) < self.stretch {
            return;
        }
        let trough = Trough {
            bytes: open.bytes,
            load: (open.loads > 0).then(|| open.load_sum / f64::from(open.loads)),
        };
        self.open = None;
        if std::mem::replace(&mut self.is_warm, true) {
            self.closed.push(trough);
        }
        if self.closed.len() >= MOST_TROUGHS {
            self.closed = self.closed.chunks(2).filter_map(merged).collect();
            self.stretch *= 2;
        }
        self.growth_per_sec = self.find();
    }

    /// Bytes that it grew by since it is watched; 0 when chance may have made what is seen. `None` while too little is
    /// known, or while the load rises as well: that may be all there is to it.
    pub(crate) fn leaked_bytes(&self, now: Stamp) -> Option<f64> {
        let watched = self.since.map_or(0.0, |since| now.since(since).as_secs_f64());
        self.growth_per_sec.map(|growth| growth * watched)
    }

    fn find(&self) -> Option<f64> {
        if self.closed.len() < FEWEST_TROUGHS {
            return None;
        }
        let bytes: Vec<f64> = self.closed.iter().map(|trough| trough.bytes).collect();
        if rises_by(&bytes) < ONE_IN_100 {
            return Some(0.0);
        }
        let loads: Option<Vec<f64>> = self.closed.iter().map(|trough| trough.load).collect();
        if loads.is_some_and(|loads| is_growth(&loads)) {
            return None;
        }
        certain_slope(&bytes).map(|slope| (slope / self.stretch.as_secs_f64()).max(0.0))
    }
}

fn merged(pair: &[Trough]) -> Option<Trough> {
    let bytes = pair.iter().map(|trough| trough.bytes).reduce(f64::min)?;
    let loads: Option<Vec<f64>> = pair.iter().map(|trough| trough.load).collect();
    let load = loads.map(|loads| loads.iter().sum::<f64>() / loads.len() as f64);
    Some(Trough { bytes, load })
}

/// Mann and Kendall's statistic: by how many standard deviations more pairs rise than fall than chance would make it.
/// Values that are the same rise in no pair and make the deviation smaller.
fn rises_by(values: &[f64]) -> f64 {
    let pairs = values
        .iter()
        .enumerate()
        .flat_map(|(position, first)| values.iter().skip(position + 1).map(move |second| second - first));
    let score: f64 = pairs
        .map(|difference| {
            if difference == 0.0 {
                0.0
            } else {
                difference.signum()
            }
        })
        .sum();
    let deviation = deviation(values);
    if deviation <= 0.0 {
        return 0.0;
    }
    (score - score.signum().min(score.abs())) / deviation
}

/// How far chance moves the number of rising pairs less that of falling ones: one standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let spread = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|same| spread(same.len() as f64))
        .sum();
    ((spread(values.len() as f64) - ties) / 18.0).max(0.0).sqrt()
}

/// Whether a load grows by so much, and so certainly, that memory may grow with it.
fn is_growth(loads: &[f64]) -> bool {
    let mut sorted = loads.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let growth = slope(loads).unwrap_or(0.0) * loads.len() as f64;
    rises_by(loads) > ONE_IN_100 && growth > GROWTH_SHARE * median
}

/// Theil and Sen's: the median of the slopes between any two values, per step.
fn slope(values: &[f64]) -> Option<f64> {
    let slopes = slopes(values);
    slopes.get(slopes.len() / 2).copied()
}

/// The slope, per step, less what one standard deviation of chance makes of it: where the values scatter widely, a trend
/// that chance made is much less than it looks.
fn certain_slope(values: &[f64]) -> Option<f64> {
    let slopes = slopes(values);
    let below = (slopes.len() as f64 - deviation(values)) / 2.0;
    let position = (0..slopes.len()).rev().find(|position| *position as f64 <= below);
    slopes.get(position.unwrap_or(0)).copied()
}

/// The slopes between any two values, per step, lowest first.
fn slopes(values: &[f64]) -> Vec<f64> {
    let mut slopes: Vec<f64> = Vec::with_capacity(values.len() * values.len() / 2);
    for (position, first) in values.iter().enumerate() {
        let later = values.iter().skip(position + 1);
        slopes.extend(
            (1_u32..)
                .zip(later)
                .map(|(steps, second)| (second - first) / f64::from(steps)),
        );
    }
    slopes.sort_unstable_by(f64::total_cmp);
    slopes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// Ten minutes to hours of a process that leaks so much a minute, under a load that makes waves of 40 MiB.
    fn watched(minutes: i64, leak_mib: f64, load: impl Fn(i64) -> f64) -> Option<f64> {
        let mut troughs = Troughs::default();
        for secs in 0..minutes * 60 {
            // A wave that no stretch has a whole number of.
            let wave = (secs * 37 % 101) as f64 / 101.0;
            let held = 1_000.0 + leak_mib * secs as f64 / 60.0 + 40.0 * wave * load(secs);
            troughs.push(Stamp::at_secs(secs), held * MIB, Some(load(secs)));
        }
        let leaked = troughs.leaked_bytes(Stamp::at_secs(minutes * 60));
        leaked.map(|bytes| bytes / MIB / minutes as f64)
    }

    #[test]
    fn a_leak_is_found_with_its_slope_whatever_the_waves_on_it() {
        for minutes in [12, 60, 300, 1_500] {
            let found = watched(minutes, 1.0, |_| 1.0);
            assert!(
                found.is_some_and(|mib| (mib - 1.0).abs() < 0.1),
                "{minutes}: {found:?}"
            );
        }
    }

    #[test]
    fn nothing_is_known_at_first_and_no_leak_is_seen_where_there_is_none() {
        assert_eq!(watched(8, 1.0, |_| 1.0), None);
        assert_eq!(watched(60, 0.0, |_| 1.0), Some(0.0));
    }

    #[test]
    fn memory_that_grows_with_the_load_is_no_leak() {
        assert_eq!(watched(60, 1.0, |secs| 1.0 + secs as f64 / 600.0), None);
        let steady = watched(60, 1.0, |secs| 1.0 + secs as f64 / 100_000.0);
        assert!(
            steady.is_some_and(|mib| mib > 0.9),
            "a load that hardly grows explains nothing: {steady:?}"
        );
    }

    #[test]
    fn the_statistics_are_those_of_the_textbook() {
        let rising: Vec<f64> = (0..8).map(f64::from).collect();
        // S = 28, variance 8 * 7 * 21 / 18.
        assert!((rises_by(&rising) - 27.0 / (1_176.0_f64 / 18.0).sqrt()).abs() < 1e-9);
        assert!(rises_by(&[1.0; 9]).abs() < 1e-9, "all the same");
        assert_eq!(slope(&[0.0, 1.0, 2.0, 50.0, 4.0]), Some(1.0), "one outlier");
        // Of ten slopes, half of what a deviation (4.08) leaves.
        assert_eq!(certain_slope(&[0.0, 1.0, 2.0, 50.0, 4.0]), Some(1.0));
        assert_eq!(certain_slope(&[0.0, 3.0, 2.0, 5.0, 4.0]), Some(1.0 / 3.0));
        assert_eq!(certain_slope(&rising), Some(1.0), "no scatter");
    }
}
