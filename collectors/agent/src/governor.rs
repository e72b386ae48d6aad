//! The budget: how much of the process's time the agent may cost, and what it leaves out to stay below.
//!
//! An account. Time that passes pays the budget's share in, and what the agent costs is taken out. It holds what ten
//! seconds pay in, and begins full, so that a short program is recorded whole; a run of one second may therefore cost
//! eleven times its budget, one of a minute a sixth more (`plimsoll kernels` says so). When it is empty, kernels are not recorded
//! until it is half full again: so recording takes turns with resting, and over time costs what the budget allows. When
//! even the turns come to nothing, the tier is stepped down for a while.

use plimsoll_trace::TraceTier;

/// What the account holds at most, in time that passes.
const HOLDS_NS: f64 = 10e9;
/// What it can be overdrawn by, in time that passes: a burst is forgotten after so long.
const OWES_NS: f64 = 120e9;
/// Turns are looked at over so long.
const LOOK_NS: u64 = 60_000_000_000;
/// Less than this share of the time recorded is nothing.
const NOTHING: f64 = 0.01;
/// How long a tier is left after it was stepped down from.
const REST_NS: u64 = 600_000_000_000;

/// What may be recorded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Kernels, as far as the tier has them.
    pub(crate) kernels: bool,
    /// The tier in force.
    pub(crate) tier: TraceTier,
}

/// The account. It reads no clock.
#[derive(Clone, Debug)]
pub(crate) struct Governor {
    /// `None`: there is no limit.
    budget: Option<f64>,
    asked: TraceTier,
    balance_ns: f64,
    is_recording: bool,
    /// How far below the tier that was asked for.
    steps: usize,
    looked_ns: u64,
    recorded_ns: u64,
    /// Whether the account was ever not overdrawn since the last look.
    was_afloat: bool,
    rested_ns: u64,
}

const TIERS: [TraceTier; 4] = [
    TraceTier::Kernels,
    TraceTier::Graph,
    TraceTier::Memory,
    TraceTier::Off,
];

impl Governor {
    pub(crate) fn new(budget: Option<f64>, tier: TraceTier) -> Self {
        Self {
            budget,
            asked: tier,
            balance_ns: budget.unwrap_or(0.0) * HOLDS_NS,
            is_recording: true,
            steps: 0,
            looked_ns: 0,
            recorded_ns: 0,
            was_afloat: true,
            rested_ns: 0,
        }
    }

    /// So much time passed, and the agent cost so much of it. What may be recorded from here on?
    #[expect(clippy::cast_precision_loss, reason = "times far below 2^52 ns")]
    pub(crate) fn judge(&mut self, wall_ns: u64, cost_ns: u64) -> Verdict {
        let Some(budget) = self.budget else {
            return self.verdict();
        };
        let holds = budget * HOLDS_NS;
        let balance = self.balance_ns + budget * wall_ns as f64 - cost_ns as f64;
        self.balance_ns = balance.clamp(-budget * OWES_NS, holds);
        self.looked_ns += wall_ns;
        if self.is_recording {
            self.recorded_ns += wall_ns;
        }
        self.was_afloat |= self.balance_ns >= 0.0;
        if self.balance_ns < 0.0 {
            self.is_recording = false;
        } else if self.balance_ns >= holds / 2.0 {
            self.is_recording = true;
        }
        if self.looked_ns >= LOOK_NS {
            self.look();
        }
        if self.steps > 0 {
            self.rested_ns += wall_ns;
            if self.rested_ns >= REST_NS && self.balance_ns >= holds {
                (self.steps, self.rested_ns) = (self.steps - 1, 0);
            }
        }
        self.verdict()
    }

    /// Looks back at the last while: was it worth it?
    #[expect(clippy::cast_precision_loss, reason = "times far below 2^52 ns")]
    fn look(&mut self) {
        let share = self.recorded_ns as f64 / self.looked_ns as f64;
        let records_kernels = self.tier() != TraceTier::Memory && self.tier() != TraceTier::Off;
        // What is left when kernels rest costs too much as well, or kernels never get a turn.
        if !self.was_afloat || (records_kernels && share < NOTHING) {
            self.step_down();
        }
        (self.looked_ns, self.recorded_ns, self.was_afloat) = (0, 0, false);
    }

    fn step_down(&mut self) {
        if self.tier() != TraceTier::Off {
            self.steps += 1;
        }
        self.rested_ns = 0;
    }

    /// The tier in force. Between `kernels` and `memory` there is no cheaper step: whole graphs cannot be chosen later.
    fn tier(&self) -> TraceTier {
        let first = TIERS
            .iter()
            .position(|tier| *tier == self.asked)
            .unwrap_or(TIERS.len() - 1);
        let skipped = usize::from(self.asked == TraceTier::Kernels && self.steps > 0);
        TIERS[(first + self.steps + skipped).min(TIERS.len() - 1)]
    }

    fn verdict(&self) -> Verdict {
        Verdict {
            kernels: self.is_recording,
            tier: self.tier(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Runs so many seconds in which recording costs this share of the time, and resting that. Returns the cost altogether
    /// and how long kernels were recorded, as shares.
    fn run(governor: &mut Governor, seconds: u32, recording: f64, resting: f64) -> (f64, f64, TraceTier) {
        let mut verdict = governor.judge(0, 0);
        let (mut cost, mut recorded) = (0.0, 0.0);
        for _ in 0..seconds {
            let records = verdict.kernels && matches!(verdict.tier, TraceTier::Graph | TraceTier::Kernels);
            let share = match verdict.tier {
                TraceTier::Off => 0.0,
                _ if records => recording,
                _ => resting,
            };
            cost += share;
            recorded += f64::from(u8::from(records));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a few seconds"
            )]
            let cost_ns = (share * 1e9) as u64;
            verdict = governor.judge(SECOND, cost_ns);
        }
        (
            cost / f64::from(seconds),
            recorded / f64::from(seconds),
            verdict.tier,
        )
    }

    #[test]
    fn what_is_cheap_is_recorded_all_the_time() {
        let mut governor = Governor::new(Some(0.01), TraceTier::Graph);
        let (_, recorded, tier) = run(&mut governor, 3_600, 0.009, 0.001);
        assert_eq!((recorded, tier), (1.0, TraceTier::Graph));
    }

    #[test]
    fn what_is_dear_takes_turns_and_stays_within_the_budget() {
        for recording in [0.02, 0.05, 0.3] {
            let mut governor = Governor::new(Some(0.01), TraceTier::Graph);
            let (cost, recorded, tier) = run(&mut governor, 3_600, recording, 0.001);
            assert!(cost <= 0.0105, "{recording}: {cost}");
            // The share that the budget leaves after resting has been paid.
            let fair = 0.009 / (recording - 0.001);
            assert!(
                (0.6..1.4).contains(&(recorded / fair)),
                "{recording}: {recorded} of {fair}"
            );
            assert_eq!(tier, TraceTier::Graph);
        }
    }

    #[test]
    fn what_gets_no_turn_is_left_for_a_while_and_tried_again() {
        let mut governor = Governor::new(Some(0.001), TraceTier::Graph);
        // Each turn of a second costs what a thousand seconds pay in.
        let (_, _, tier) = run(&mut governor, 200, 1.0, 0.0);
        assert_eq!(tier, TraceTier::Memory);
        let (_, recorded, tier) = run(&mut governor, 1_000, 0.0005, 0.0);
        assert_eq!(tier, TraceTier::Graph);
        assert!(recorded > 0.0);
    }

    #[test]
    fn when_even_allocations_are_too_dear_nothing_is_recorded() {
        let mut governor = Governor::new(Some(0.01), TraceTier::Memory);
        assert_eq!(run(&mut governor, 300, 0.0, 0.05).2, TraceTier::Off);
        let mut governor = Governor::new(Some(0.01), TraceTier::Kernels);
        assert_eq!(run(&mut governor, 300, 0.05, 0.05).2, TraceTier::Off);
    }

    #[test]
    fn without_a_budget_there_is_no_limit() {
        let mut governor = Governor::new(None, TraceTier::Kernels);
        assert_eq!(run(&mut governor, 1_000, 1.0, 1.0).1, 1.0);
    }

    #[test]
    fn a_short_program_is_recorded_whole() {
        let mut governor = Governor::new(Some(0.01), TraceTier::Graph);
        assert!(governor.judge(SECOND, 100_000_000).kernels);
        assert!(!governor.judge(SECOND, 100_000_000).kernels);
    }
}
