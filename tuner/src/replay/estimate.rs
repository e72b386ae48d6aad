//! What would have been seen, had other rungs been taken.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_trace::{Mode, Stamp};

use super::works;
use crate::projection::Relief;
use crate::rule::{Cost, Ladder};
use crate::signals::{Probe, Reading, Readings};
use crate::state::{LadderState, RuleState};
use crate::transition::Transition;

/// The part of a replay that is an estimate.
#[derive(Debug)]
pub(super) struct Estimate {
    /// What the rungs do that were taken when it was recorded.
    there: Relief,
    /// The action under way, and when it has worked.
    ends: Option<(Stamp, Duration, String, Option<i64>)>,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            there: Relief::NONE,
            ends: None,
        }
    }
}

/// How long an engine is away for a change.
pub(crate) const fn takes(cost: Cost) -> Duration {
    Duration::from_secs(match cost {
        Cost::Hot => 0,
        Cost::Reload => 5,
        Cost::Restart => 60,
    })
}

impl Estimate {
    /// Takes in which rungs were taken when it was recorded.
    pub(super) fn recorded(&mut self, ladder: Option<&Ladder>, state: Option<&LadderState>) {
        if let (Some(ladder), Some(state)) = (ladder, state) {
            self.there = taken(ladder, state);
        }
    }

    /// An action is begun; it will work.
    pub(super) fn begin(&mut self, ladder: &Ladder, transition: &Transition, now: Stamp) {
        let cost = ladder
            .rule(&transition.rule)
            .map_or(Cost::Restart, |rule| rule.cost);
        let takes = takes(cost);
        let effect = transition.expected_effect_bytes;
        self.ends = Some((now.plus(takes), takes, transition.rule.clone(), effect));
    }

    /// Ends what has worked by now, and moves the readings by what the rungs differ in.
    pub(super) fn move_on(
        &mut self,
        ladder: &Ladder,
        state: &mut LadderState,
        readings: &mut Readings,
        now: Stamp,
    ) {
        if let Some((_, took, rule, effect)) = self.ends.take_if(|(at, ..)| at.mono_ns <= now.mono_ns) {
            state.on_outcome(&rule, works(effect), now);
            state.was_away(took);
            // What was read before is as good as what comes after: it is moved.
            state.changed_at = None;
        }
        shift(ladder, taken(ladder, state).and(self.there.undone()), readings);
    }
}

/// Moves readings of memory and of the KV cache by a relief.
fn shift(ladder: &Ladder, relief: Relief, readings: &mut Readings) {
    let usable = readings.usable_bytes();
    let clauses = ladder.rules.iter().flat_map(|rule| rule.when.clauses());
    let probes: BTreeSet<&Probe> = clauses.map(|clause| &clause.probe).collect();
    for probe in probes {
        let Some(reading) = readings.get(probe) else {
            continue;
        };
        let bytes = relief.bytes.map(|bytes| bytes as f64);
        let value = match (&*probe.signal, bytes, relief.capacity) {
            ("vram.used_bytes" | "run.vram_bytes", Some(freed), _) => (reading.value - freed).max(0.0),
            ("vram.free_bytes", Some(freed), _) => (reading.value + freed).max(0.0),
            ("vram.used_ratio", Some(freed), _) => match usable {
                Some(usable) if usable > 0 => (reading.value - freed / usable as f64).max(0.0),
                _ => continue,
            },
            ("engine.kv_used_ratio", _, Some(times)) => reading.value / times,
            _ => continue,
        };
        let at = reading.at;
        readings.insert(probe.clone(), Reading { value, at });
    }
}

/// Moves readings as if they had been taken without any rung by what the rungs that are taken do.
pub(crate) fn with_rungs(ladder: &Ladder, state: &LadderState, readings: &mut Readings) {
    shift(ladder, taken(ladder, state), readings);
}

/// What all rungs that are taken do together; a rung of which nothing is known does nothing.
fn taken(ladder: &Ladder, state: &LadderState) -> Relief {
    let none = RuleState::default();
    let on = state.active(ladder).filter(|rule| rule.mode != Mode::Observe);
    on.fold(Relief::NONE, |sum, rule| {
        let own = Relief::of(rule, state.rules.get(&rule.name).unwrap_or(&none));
        sum.and(Relief {
            bytes: own.bytes.or(Some(0)),
            capacity: own.capacity.or(Some(1.0)),
        })
    })
}
