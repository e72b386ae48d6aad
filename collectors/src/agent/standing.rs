//! How one agent stands: what it was asked for, what it does, what it costs, what it lost.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::{Frame, State};

use super::figures::{COST_RATIO, DUTY_RATIO, Values};
use super::translate::{Losses, cut};

/// The latest of one agent. What it has not told is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Its process, as the socket says.
    pub pid: Option<u32>,
    /// The tier that it was asked for.
    pub wanted: Option<TraceTier>,
    /// The tier in force.
    pub tier: Option<TraceTier>,
    /// What it is doing.
    pub state: Option<State>,
    /// Why, in a sentence.
    pub message: String,
    /// The share of its process's time that it may cost; 1 is no limit.
    pub budget_ratio: Option<f64>,
    /// The share that it cost when it last said so.
    pub cost_ratio: Option<f64>,
    /// For which share of the time it recorded kernels.
    pub duty_ratio: Option<f64>,
    /// Device memory that CUPTI may hold for it, bytes.
    pub device_bytes: Option<u64>,
    /// How often it brings records in and hears what it is told.
    pub flush: Option<Duration>,
    /// What was lost since it connected, by reason.
    pub losses: BTreeMap<&'static str, u64>,
}

impl Standing {
    pub(super) fn take(&mut self, frame: &Frame) {
        match frame {
            Frame::Process(process) => {
                self.wanted = Some(process.tier);
                self.flush = Some(Duration::from_millis(process.flush_ms.into()));
                self.budget_ratio = process.budget_ppm.map(|ppm| f64::from(ppm) / 1e6);
            }
            Frame::State { state, message } => {
                self.state = Some(*state);
                self.message = cut(message);
            }
            Frame::Cost(cost) => {
                self.tier = Some(cost.tier);
                self.device_bytes = cost.device_bytes;
            }
            _ => {}
        }
    }

    pub(super) fn figures(&mut self, values: &Values) {
        self.cost_ratio = values[COST_RATIO].or(self.cost_ratio);
        self.duty_ratio = values[DUTY_RATIO].or(self.duty_ratio);
    }

    pub(super) fn lost(&mut self, losses: &Losses) {
        for (reason, count) in losses {
            let sum = self.losses.entry(reason).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}
