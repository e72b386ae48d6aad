//! When a device's memory will be full if it goes on as it does: a Kalman filter with a local linear trend.
//!
//! The state is a level and a slope; the slope wanders slowly. How far readings scatter about a straight line is taken from
//! the median of their deviations, so that single jumps do not count as scatter. A jump is a step: the level moves, the
//! slope does not. Two jumps in a row in one direction are a new slope.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_trace::Stamp;

/// With fewer samples than this nothing is said.
const FEWEST_SAMPLES: u32 = 8;
/// So many deviations say how far readings scatter.
const DEVIATIONS: usize = 32;
/// A reading so many standard deviations off the line is a jump.
const JUMP: f64 = 4.0;
/// By how much level and slope wander in a second, as shares of the variance of the readings. The slope's share is a
/// quarter of the level's; small enough to see through some twenty readings of noise.
const LEVEL_WANDERS: f64 = 1.0 / 64.0;
const SLOPE_WANDERS: f64 = LEVEL_WANDERS / 4.0;
/// The readings' standard deviation is at least this share of the memory: below it nothing matters.
const LEAST_DEVIATION: f64 = 1.0 / 2_000.0;
/// A tenth of a normal distribution lies beyond so many standard deviations.
const TENTH: f64 = 1.281_551_565_545;

/// What is not full within this time, seconds, counts as not filling at all.
pub const NOT_FILLING_SECS: f64 = 86_400.0;
/// A change of the engine shows in the trend for so long.
pub(crate) const REMEMBERS: Duration = Duration::from_secs(10);

/// When a device will be full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Free memory, bytes.
    pub room_bytes: f64,
    /// By how much it shrinks, bytes a second; `None` when no rise can be told from noise.
    pub rise: Option<Rise>,
}

/// How fast memory fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rise {
    /// Bytes a second; above 0.
    pub per_sec: f64,
    /// It is so much faster or slower in four of five cases, bytes a second; below `per_sec`.
    pub give_or_take: f64,
}

impl Forecast {
    /// Seconds until it is full, 0 to [`NOT_FILLING_SECS`]; the latter says that it does not fill, or not within a day.
    #[must_use]
    pub fn full_in_secs(&self) -> f64 {
        self.rise
            .map_or(NOT_FILLING_SECS, |rise| self.until(rise.per_sec))
    }

    /// Between which seconds it will be full in four of five cases. `None` when it does not fill.
    #[must_use]
    pub fn range_secs(&self) -> Option<(f64, f64)> {
        let Rise {
            per_sec,
            give_or_take,
        } = self.rise?;
        Some((
            self.until(per_sec + give_or_take),
            self.until(per_sec - give_or_take),
        ))
    }

    /// The same with so much more memory free.
    pub(crate) fn with(self, freed_bytes: f64) -> Self {
        Self {
            room_bytes: (self.room_bytes + freed_bytes).max(0.0),
            ..self
        }
    }

    fn until(&self, per_sec: f64) -> f64 {
        (self.room_bytes / per_sec).clamp(0.0, NOT_FILLING_SECS)
    }
}

/// The trend of one device's memory in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trend {
    level: f64,
    slope: f64,
    /// Variance of the level, covariance, variance of the slope.
    variance: [f64; 3],
    samples: u32,
    /// The last two readings, newest last.
    readings: [Option<(Stamp, f64)>; 2],
    /// How far readings lay off the line through the two before, as standard deviations of one reading.
    deviations: VecDeque<f64>,
    /// In which direction the last reading jumped; 0 if it did not.
    jumped: f64,
}

impl Trend {
    /// Takes a reading: bytes in use of so many that can be. After a gap of `longest` nothing before it counts.
    pub(crate) fn push(&mut self, at: Stamp, used: f64, usable: f64, longest: Duration) {
        let Some((last, _)) = self.readings[1] else {
            return self.begin(at, used);
        };
        if at.mono_ns <= last.mono_ns {
            return;
        }
        let passed = at.since(last);
        if passed > longest {
            *self = Self::default();
            return self.begin(at, used);
        }
        self.deviate(at, used);
        let noise = self.noise(usable);
        if self.samples == 1 {
            // Two readings make a line.
            let secs = passed.as_secs_f64();
            self.slope = (used - self.level) / secs;
            self.level = used;
            self.variance = [noise, noise / secs, 2.0 * noise / (secs * secs)];
        } else {
            self.filter(passed.as_secs_f64(), used, noise);
        }
        self.samples = self.samples.saturating_add(1);
        self.readings = [self.readings[1], Some((at, used))];
    }

    /// What is to be expected with so much free; `None` while too little was seen.
    pub(crate) fn forecast(&self, room_bytes: f64) -> Option<Forecast> {
        let give_or_take = TENTH * self.variance[2].max(0.0).sqrt();
        let rise = Rise {
            per_sec: self.slope,
            give_or_take,
        };
        (self.samples >= FEWEST_SAMPLES).then_some(Forecast {
            room_bytes,
            rise: (self.slope > give_or_take).then_some(rise),
        })
    }

    fn begin(&mut self, at: Stamp, used: f64) {
        (self.level, self.samples) = (used, 1);
        self.readings = [None, Some((at, used))];
    }

    fn filter(&mut self, secs: f64, used: f64, noise: f64) {
        let [level, both, slope] = self.variance;
        let (mut level, mut both, mut slope) = (
            level + 2.0 * secs * both + secs * secs * slope + secs * noise * LEVEL_WANDERS,
            both + secs * slope,
            slope + secs * noise * SLOPE_WANDERS,
        );
        self.level += secs * self.slope;
        let off = used - self.level;
        let jumps = off * off > JUMP * JUMP * (level + noise);
        if jumps && self.jumped * off > 0.0 {
            // The slope is another one now: as uncertain as it is wrong.
            let wrong = off / secs;
            slope += wrong * wrong;
            both += secs * wrong * wrong;
            level += off * off;
        } else if jumps {
            level += off * off;
        }
        self.jumped = if jumps { off.signum() } else { 0.0 };
        let total = level + noise;
        let (of_level, of_slope) = (level / total, both / total);
        self.level += of_level * off;
        self.slope += of_slope * off;
        self.variance = [
            (1.0 - of_level) * level,
            (1.0 - of_level) * both,
            slope - of_slope * both,
        ];
    }

    /// Notes how far a reading lies off the line through the two before it.
    fn deviate(&mut self, at: Stamp, used: f64) {
        let [Some((first, before)), Some((second, last))] = self.readings else {
            return;
        };
        let step = second.since(first).as_secs_f64();
        let ratio = at.since(second).as_secs_f64() / step;
        let off = used - last - (last - before) * ratio;
        // The three readings scatter independently.
        let scatters = (1.0 + (1.0 + ratio) * (1.0 + ratio) + ratio * ratio).sqrt();
        if self.deviations.len() == DEVIATIONS {
            self.deviations.pop_front();
        }
        self.deviations.push_back((off / scatters).abs());
    }

    /// The variance of a reading: from the median deviation, which is 0.6745 standard deviations of normal noise.
    fn noise(&self, usable: f64) -> f64 {
        let mut sorted: Vec<f64> = self.deviations.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let deviation = (median / 0.6745).max(usable * LEAST_DEVIATION).max(1.0);
        deviation * deviation
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
