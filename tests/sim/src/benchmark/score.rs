//! What is counted of a course.

use crate::model::Finished;

use super::world::Scenario;

/// The first token must come this soon, in seconds.
pub const FIRST_TOKEN_SECS: f64 = 5.0;
/// A token must come this soon after another, in seconds.
pub const PER_TOKEN_SECS: f64 = 0.1;
/// A change that is taken back this soon is a flap, in seconds.
pub const FLAP_SECS: f64 = 600.0;

/// Whether a request was answered in time.
#[must_use]
pub fn is_good(finished: &Finished) -> bool {
    finished.first_token_secs <= FIRST_TOKEN_SECS
        && finished.per_token_secs.is_none_or(|secs| secs <= PER_TOKEN_SECS)
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
    /// Requests answered.
    pub served: u64,
    /// Requests turned away, dropped, or refused while there was no engine.
    pub lost: u64,
    /// Restarts that the policy asked for.
    pub restarts: u32,
    /// Changes that were taken back within [`FLAP_SECS`].
    pub flaps: u32,
    /// Time without an engine that takes requests, in seconds.
    pub down_secs: f64,
    /// Time on each rung, in seconds.
    pub rung_secs: Vec<f64>,
    pub(super) last_rung: usize,
    pub(super) neighbor_bytes: u64,
    changes: Vec<(f64, usize, usize)>,
}

impl Score {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            rung_secs: vec![0.0; scenario.rungs.len()],
            ..Self::default()
        }
    }

    pub(super) fn finished(&mut self, good: bool, full_quality: bool) {
        self.served += 1;
        self.good += u64::from(good);
        self.full += u64::from(good && full_quality);
    }

    pub(super) fn lost(&mut self, requests: usize) {
        self.lost += requests as u64;
    }

    pub(super) fn down(&mut self, secs: f64) {
        self.down_secs += secs;
    }

    pub(super) fn on_rung(&mut self, rung: usize, secs: f64) {
        if let Some(sum) = self.rung_secs.get_mut(rung) {
            *sum += secs;
        }
    }

    pub(super) fn changed(&mut self, now: f64, from: usize, to: usize, restart: bool) {
        self.restarts += u32::from(restart);
        let up = to > from;
        let reversed = |&(at, a, b): &(f64, usize, usize)| now - at <= FLAP_SECS && (b > a) != up;
        // Limits that come and go cost nobody anything; a reversal counts where it had to be reloaded.
        if restart && self.changes.last().is_some_and(reversed) {
            self.flaps += 1;
        }
        if restart {
            self.changes.push((now, from, to));
        }
        self.last_rung = from;
    }

    /// Good requests, a degraded one counted `worth` of a full one.
    #[must_use]
    pub fn value(&self, worth: f64) -> f64 {
        self.full as f64 + worth * (self.good - self.full) as f64
    }
}
