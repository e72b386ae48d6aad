//! What is counted of a course.

use crate::model::Finished;

/// The first token must come this soon, in seconds.
const FIRST_TOKEN_SECS: f64 = 5.0;
/// A token must come this soon after another, in seconds.
const PER_TOKEN_SECS: f64 = 0.1;
/// A change that is taken back this soon is a flap, in seconds.
const FLAP_SECS: f64 = 600.0;
const HOUR_SECS: f64 = 3_600.0;

/// Whether a request was answered in time.
pub(super) fn is_good(finished: &Finished) -> bool {
    finished.first_token_secs <= FIRST_TOKEN_SECS
        && finished.per_token_secs.is_none_or(|secs| secs <= PER_TOKEN_SECS)
}

/// Where a change leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To a reduced configuration.
    Down,
    /// Back from one.
    Up,
}

/// What became of the load so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Deaths by memory.
    pub oom: u32,
    /// Requests answered in time.
    pub good: u64,
    /// Of these, answered at full quality.
    pub full: u64,
    /// Requests turned away, dropped, or refused while there was no engine.
    pub lost: u64,
    /// Changes of the rung, whatever they cost, that were taken back within ten minutes.
    pub flaps: u32,
    /// Time without an engine that takes requests, in seconds.
    pub down_secs: f64,
    /// Time on each rung, in seconds.
    pub rung_secs: Vec<f64>,
    /// From a condition's first second to the change in force, in seconds, for each rung that was taken.
    pub reaction_secs: Vec<f64>,
    /// Steps inside rung 1 (how much its limit leaves to others) that were taken back within ten minutes.
    pub limits_taken_back: u32,
    /// Changes against pressure that was not there.
    pub false_alarms: usize,
    /// When the policy had a running engine restarted.
    restarts: Vec<f64>,
    /// When the rung was last changed, and which way.
    moved: Option<(f64, Direction)>,
    /// When limits were last changed within their rung, and which way.
    limited: Option<(f64, Direction)>,
}

impl Score {
    pub(super) fn new(rungs: usize) -> Self {
        Self {
            rung_secs: vec![0.0; rungs],
            ..Self::default()
        }
    }

    pub(super) fn finished(&mut self, good: bool, full_quality: bool) {
        self.good += u64::from(good);
        self.full += u64::from(good && full_quality);
    }

    pub(super) fn lose(&mut self, requests: usize) {
        self.lost += requests as u64;
    }

    pub(super) fn on_rung(&mut self, rung: usize, secs: f64) {
        if let Some(sum) = self.rung_secs.get_mut(rung) {
            *sum += secs;
        }
    }

    pub(super) fn restarted(&mut self, now: f64) {
        self.restarts.push(now);
    }

    /// The policy went to another rung.
    pub(super) fn moved(&mut self, now: f64, to: Direction) {
        self.flaps += u32::from(is_taken_back(self.moved, now, to));
        self.moved = Some((now, to));
    }

    /// The policy went to another limit of the same rung.
    pub(super) fn limited(&mut self, now: f64, to: Direction) {
        self.limits_taken_back += u32::from(is_taken_back(self.limited, now, to));
        self.limited = Some((now, to));
    }

    /// Whether a restart, or a death, had any part in this: if not, it is the same whatever restarts cost.
    pub(super) fn was_never_down(&self) -> bool {
        self.down_secs <= 0.0
    }

    /// The most restarts within any 60 minutes.
    #[must_use]
    pub fn restarts_per_hour(&self) -> usize {
        let from = |start: f64| {
            let within = |at: &&f64| (start..start + HOUR_SECS).contains(*at);
            self.restarts.iter().filter(within).count()
        };
        self.restarts.iter().map(|at| from(*at)).max().unwrap_or(0)
    }

    /// Good requests, a degraded one counted `worth` of a full one.
    #[must_use]
    pub fn value(&self, worth: f64) -> f64 {
        self.full as f64 + worth * (self.good - self.full) as f64
    }
}

fn is_taken_back(before: Option<(f64, Direction)>, now: f64, to: Direction) -> bool {
    before.is_some_and(|(at, before)| now - at <= FLAP_SECS && before != to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_counted_in_the_worst_hour() {
        let mut score = Score::new(2);
        for at in [0.0, 601.0, 700.0, 1_200.0, 4_000.0] {
            score.restarted(at);
        }
        assert_eq!(score.restarts_per_hour(), 4);
    }

    #[test]
    fn a_rung_that_is_taken_back_within_ten_minutes_is_a_flap_whatever_it_costs() {
        let mut score = Score::new(2);
        for (at, to) in [
            (0.0, Direction::Down),
            (601.0, Direction::Up),
            (1_201.0, Direction::Down),
            (1_300.0, Direction::Down),
            (1_301.0, Direction::Up),
        ] {
            score.moved(at, to);
        }
        score.limited(1_302.0, Direction::Up);
        score.limited(1_303.0, Direction::Down);
        assert_eq!((score.flaps, score.limits_taken_back), (2, 1));
    }

    #[test]
    fn a_degraded_answer_is_worth_less() {
        let mut score = Score::new(1);
        for (good, full) in [(true, true), (true, false), (true, false), (false, true)] {
            score.finished(good, full);
        }
        assert!((score.value(0.5) - 2.0).abs() < 1e-9);
    }
}
