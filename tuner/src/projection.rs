//! What a clause sees now, and what it would see after a rung was taken or let go.

use plimsoll_trace::Stamp;
use serde::Serialize;

use crate::condition::{Clause, Condition, Stat};
use crate::forecast;
use crate::rule::Rule;
use crate::signals::{Probe, Reading, Readings};
use crate::state::{RuleState, Rung};

/// The signal that is made of a trend.
pub(crate) const FULL_IN_SECS: &str = "vram.full_in_secs";

/// Readings as they count for decisions.
pub(crate) struct Sight<'a> {
    pub(crate) readings: &'a Readings,
    /// When the engine's configuration was last changed.
    pub(crate) changed_at: Option<Stamp>,
}

impl Sight<'_> {
    /// Whether the condition holds, and not only for values that fall by themselves. Where it is unknown whether one falls,
    /// it is taken not to.
    pub(crate) fn presses(&self, rule: &Rule) -> Option<bool> {
        rule.when.holds(|clause| {
            let entered = clause.entered(self.value(clause)?);
            Some(entered && self.fall(clause).is_none())
        })
    }

    /// How the clause's value changed lately, if that means that it falls by itself and the rule leaves that alone.
    pub(crate) fn fall(&self, clause: &Clause) -> Option<f64> {
        let change = self.of(clause.fall.as_ref()?)?.value;
        clause.falls(change).then_some(change)
    }

    /// Whether the condition holds, and a value is at its emergency line or beyond.
    pub(crate) fn is_emergency(&self, rule: &Rule) -> bool {
        let beyond = |clause: &Clause| self.value(clause).is_some_and(|value| clause.is_emergency(value));
        rule.when.clauses().iter().any(beyond) && self.presses(rule) == Some(true)
    }

    /// The clause's reading. One that was taken before the last change, or whose window reaches back before it, says
    /// nothing about the present, and is unknown.
    pub(crate) fn reading(&self, clause: &Clause) -> Option<Reading> {
        self.of(&clause.probe)
    }

    fn of(&self, probe: &Probe) -> Option<Reading> {
        let reaches_back = match &*probe.signal {
            FULL_IN_SECS => probe.window + forecast::REMEMBERS,
            _ => probe.window,
        };
        self.readings.get(probe).filter(|reading| {
            self.changed_at.is_none_or(|changed| {
                reading.at.mono_ns > changed.mono_ns && reading.at.since(changed) >= reaches_back
            })
        })
    }

    /// The clause's value.
    pub(crate) fn value(&self, clause: &Clause) -> Option<f64> {
        self.reading(clause).map(|reading| reading.value)
    }

    /// The clause's value after a relief. Only memory, when it will be full, and the KV cache's use can be projected: for
    /// any other signal what a rung does to it is unknown.
    ///
    /// On several devices all memory is taken to be freed on the one under most pressure, and a ratio is taken of
    /// the smallest: too much is expected of a release, never too little. What waits is taken to need as much of the KV
    /// cache as what runs, so a full cache with a queue may be more than full.
    pub(crate) fn after(&self, clause: &Clause, relief: &Relief) -> Option<f64> {
        let value = self.value(clause)?;
        match &*clause.probe.signal {
            "engine.kv_used_ratio" => return Some(value * self.readings.backlog()? / relief.capacity?),
            // No rung moves what others hold, or what is lost.
            "vram.others_bytes" | "run.leaked_bytes" => return Some(value),
            _ => {}
        }
        let freed = relief.bytes? as f64;
        match &*clause.probe.signal {
            "vram.used_bytes" | "run.vram_bytes" => Some((value - freed).max(0.0)),
            "vram.free_bytes" => Some((value + freed).max(0.0)),
            // The rise goes on as it is; only the room is another.
            FULL_IN_SECS if clause.probe.stat == Stat::Last => {
                Some(self.readings.forecast()?.with(freed).full_in_secs())
            }
            "vram.used_ratio" => {
                let usable = self.readings.usable_bytes().filter(|usable| *usable > 0)?;
                Some((value - freed / usable as f64).max(0.0))
            }
            _ => None,
        }
    }
}

/// What taking rungs does, or letting one go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Relief {
    /// Memory that is free afterwards and was not before; negative when one is let go.
    pub(crate) bytes: Option<i64>,
    /// How many times as much the KV cache holds afterwards.
    pub(crate) capacity: Option<f64>,
}

impl Relief {
    /// Nothing is changed.
    pub(crate) const NONE: Self = Self {
        bytes: Some(0),
        capacity: Some(1.0),
    };

    /// What taking a rung does.
    pub(crate) fn of(rule: &Rule, state: &RuleState) -> Self {
        Self {
            bytes: effect(rule, state).map(|effect| effect.bytes),
            capacity: rule.capacity,
        }
    }

    /// Both, one after the other.
    pub(crate) fn and(self, other: Self) -> Self {
        let sum = |(a, b): (i64, i64)| a.saturating_add(b);
        Self {
            bytes: self.bytes.zip(other.bytes).map(sum),
            capacity: self.capacity.zip(other.capacity).map(|(a, b)| a * b),
        }
    }

    /// Whether it is known to do nothing for this condition: for one of its clauses that is known, and for no other the
    /// contrary.
    pub(crate) fn is_useless(&self, when: &Condition, sight: &Sight<'_>) -> bool {
        let helps = |clause: &Clause| {
            let (now, after) = (sight.after(clause, &Self::NONE)?, sight.after(clause, self)?);
            Some(if clause.is_under() {
                after > now
            } else {
                after < now
            })
        };
        let known: Vec<bool> = when.clauses().iter().filter_map(helps).collect();
        !known.is_empty() && known.iter().all(|helps| !helps)
    }

    /// Taking it back.
    pub(crate) fn undone(self) -> Self {
        Self {
            bytes: self.bytes.map(i64::saturating_neg),
            capacity: self.capacity.map(f64::recip),
        }
    }

    /// Whether nothing is known of it.
    pub(crate) const fn is_unknown(&self) -> bool {
        self.bytes.is_none() && self.capacity.is_none()
    }
}

/// Where the figure for a rung's effect comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectSource {
    /// The median of what was observed.
    Learned,
    /// What was observed this time, together with lower rungs that were taken along.
    Measured,
    /// The rule's `saves`.
    Saves,
}

/// How much memory a rung frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// Bytes; at least 0.
    pub bytes: i64,
    /// Where the figure comes from.
    pub source: EffectSource,
}

/// How much memory a rung frees: the median of what was seen, else what was seen this time, else `saves`.
pub(crate) fn effect(rule: &Rule, state: &RuleState) -> Option<Effect> {
    let measured = match state.rung {
        Rung::On { measured_bytes, .. } => measured_bytes,
        _ => None,
    };
    let saves = || {
        rule.saves_bytes
            .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
    };
    let (bytes, source) = median(&state.effects_bytes)
        .map(|bytes| (bytes, EffectSource::Learned))
        .or_else(|| measured.map(|bytes| (bytes, EffectSource::Measured)))
        .or_else(|| saves().map(|bytes| (bytes, EffectSource::Saves)))?;
    Some(Effect {
        bytes: bytes.max(0),
        source,
    })
}

/// The median; of an even number of values the higher of the middle two, which is the cautious one for a release.
fn median(values: &[i64]) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rule::tests::rule;

    #[test]
    fn effects_are_learned_then_measured_then_given() {
        let mut rule =
            rule("name='a'\nengine='e'\nwhen={signal='vram.used_ratio',enter=0.8}\nset={a=1}").unwrap();
        let mut state = RuleState::default();
        assert_eq!(effect(&rule, &state), None);
        rule.saves_bytes = Some(5);
        assert_eq!(
            effect(&rule, &state),
            Some(Effect {
                bytes: 5,
                source: EffectSource::Saves
            })
        );
        state.rung = Rung::On {
            since: Stamp::default(),
            measured_bytes: Some(4),
            release_proposed: None,
        };
        assert_eq!(
            effect(&rule, &state),
            Some(Effect {
                bytes: 4,
                source: EffectSource::Measured
            })
        );
        state.effects_bytes = vec![9, 1, 7];
        assert_eq!(
            effect(&rule, &state),
            Some(Effect {
                bytes: 7,
                source: EffectSource::Learned
            })
        );
        state.effects_bytes = vec![-3];
        assert_eq!(effect(&rule, &state).map(|effect| effect.bytes), Some(0));
    }

    #[test]
    fn only_memory_is_projected_and_only_fresh_readings_count() {
        for (signal, after) in [
            ("vram.used_bytes", Some(100.0)),
            ("run.vram_bytes", Some(100.0)),
            ("vram.free_bytes", Some(20.0)),
            ("vram.others_bytes", Some(60.0)),
            ("vram.used_ratio", Some(60.2)),
            ("engine.kv_used_ratio", Some(45.0)),
            ("engine.requests_waiting", None),
        ] {
            let ratio = if signal.ends_with("_ratio") {
                "enter=1,exit=0"
            } else {
                "enter=9,exit=1"
            };
            let rule = rule(&format!(
                "name='a'\nengine='e'\nwhen={{signal='{signal}',{ratio}}}\nset={{a=1}}"
            ))
            .unwrap();
            let clause = &rule.when.clauses()[0];
            let mut readings = Readings::unknown(Duration::from_secs(10));
            readings.insert(
                clause.probe.clone(),
                Reading {
                    value: 60.0,
                    at: Stamp::at_secs(5),
                },
            );
            readings.set_usable_bytes(Some(200));
            // Half as many wait as run: all together need one and a half times as much.
            readings.set_load(10.0, 5.0);
            let mut sight = Sight {
                readings: &readings,
                changed_at: None,
            };
            let relief = Relief {
                bytes: Some(-40),
                capacity: Some(2.0),
            };
            assert_eq!(sight.after(clause, &relief), after, "{signal}");
            sight.changed_at = Some(Stamp::at_secs(5));
            assert_eq!(sight.value(clause), None);
            sight.changed_at = Some(Stamp::at_secs(4));
            assert_eq!(sight.value(clause), Some(60.0));
        }
    }
}
