//! Rules tried out on readings that somebody wrote down: what they decide, and where they stand at given times.

pub mod notation;

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_trace::{Mode, Stamp, signal};

use crate::evaluate::evaluate;
use crate::explain::{RuleExplanation, explain};
use crate::outcome::Outcome;
use crate::replay::estimate::{takes, with_rungs};
use crate::rule::Ladder;
use crate::series::Series;
use crate::signals::Readings;
use crate::stat::Stat;
use crate::state::LadderState;
use notation::{Lasts, MOST_STEPS, Part};

/// A world for rules.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The rules.
    pub ladder: Ladder,
    /// The time between two readings; above 0.
    pub step: Duration,
    /// What the device can give to processes, bytes.
    pub usable_bytes: Option<u64>,
    /// Readings by signal, as they would be without any rung. A signal that is not here is unknown.
    pub series: BTreeMap<String, Vec<Part>>,
    /// Whether the readings are as they stand, whatever rungs are taken.
    pub fixed: bool,
    /// What an action of a rule really frees, bytes; what is expected unless it is here.
    pub frees: BTreeMap<String, i64>,
    /// How actions of a rule end; kept unless it is here.
    pub ends: BTreeMap<String, Ending>,
}

/// How an action ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did not help and was taken back.
    RolledBack,
    /// Nothing was touched.
    Refused,
}

/// A trial under way.
#[derive(Debug)]
pub struct Run {
    trial: Trial,
    state: LadderState,
    seen: BTreeMap<String, Series>,
    values: BTreeMap<String, Vec<(u32, Part)>>,
    /// The next step.
    step: u32,
    readings: Readings,
    under_way: Option<(Stamp, Duration, String, Option<i64>)>,
    decisions: Vec<String>,
}

/// The stamp of the first reading: any time will do.
const BEGIN: i64 = 1_000_000;

impl Trial {
    /// Begins it.
    #[must_use]
    pub fn begin(self) -> Run {
        let steps = |part: &Part| match part.lasts {
            Lasts::Steps(steps) => steps,
            Lasts::Time(time) => {
                let steps = time.as_nanos().div_ceil(self.step.as_nanos().max(1));
                u32::try_from(steps).unwrap_or(MOST_STEPS).clamp(1, MOST_STEPS)
            }
        };
        let parts = |parts: &Vec<Part>| parts.iter().map(|part| (steps(part), *part)).collect();
        let values = self
            .series
            .iter()
            .map(|(signal, all)| (signal.clone(), parts(all)))
            .collect();
        let max_age = signal::MAX_AGE.max(self.step.saturating_mul(3));
        Run {
            state: LadderState::default(),
            seen: BTreeMap::new(),
            values,
            step: 0,
            readings: Readings::unknown(max_age),
            under_way: None,
            decisions: Vec::new(),
            trial: self,
        }
    }
}

impl Run {
    /// Goes on until `time` after the first reading, that reading included.
    pub fn until(&mut self, time: Duration) {
        while self.trial.step.saturating_mul(self.step) <= time && self.step < MOST_STEPS {
            let now = self.now();
            self.tick(now);
            self.step += 1;
        }
    }

    /// What was decided since this was last asked, in order: "apply quantize".
    pub fn decided(&mut self) -> Vec<String> {
        std::mem::take(&mut self.decisions)
    }

    /// Where the rules stand after the last reading.
    #[must_use]
    pub fn stands(&self) -> Vec<RuleExplanation> {
        let last = self.step.saturating_sub(1);
        let now = Stamp::at_secs(BEGIN).plus(self.trial.step.saturating_mul(last));
        explain(&self.trial.ladder, &self.state, &self.readings, now)
    }

    fn now(&self) -> Stamp {
        Stamp::at_secs(BEGIN).plus(self.trial.step.saturating_mul(self.step))
    }

    fn tick(&mut self, now: Stamp) {
        if let Some((_, took, rule, effect)) = self.under_way.take_if(|(at, ..)| at.mono_ns <= now.mono_ns) {
            let outcome = match self.trial.ends.get(&rule) {
                None => Outcome::Kept {
                    effect_bytes: self.trial.frees.get(&rule).copied().or(effect),
                },
                Some(Ending::RolledBack) => Outcome::RolledBack,
                Some(Ending::Refused) => Outcome::Refused,
            };
            self.state.on_outcome(&rule, outcome, now);
            self.state.was_away(took);
        }
        self.readings = self.read(now);
        let evaluation = evaluate(&self.trial.ladder, &self.state, &self.readings, now);
        self.state = evaluation.state;
        for transition in &evaluation.transitions {
            self.decisions
                .push(format!("{} {}", transition.verdict, transition.rule));
            if transition.mode == Mode::Act {
                let cost = self.trial.ladder.rule(&transition.rule).map(|rule| rule.cost);
                let took = cost.map_or(Duration::ZERO, takes);
                let effect = transition.expected_effect_bytes;
                self.under_way = Some((now.plus(took), took, transition.rule.clone(), effect));
            }
        }
    }

    fn read(&mut self, now: Stamp) -> Readings {
        let mut readings = Readings::unknown(self.readings.max_age());
        readings.set_usable_bytes(self.trial.usable_bytes);
        let mut newest: BTreeMap<&str, f64> = BTreeMap::new();
        let step = self.step;
        for (signal, parts) in &self.values {
            let value = value(parts, step);
            newest.extend(value.map(|value| (signal.as_str(), value)));
            let keep = crate::signals::LONGEST_WINDOW;
            self.seen
                .entry(signal.clone())
                .or_default()
                .push(now, value, keep);
        }
        let max_age = readings.max_age();
        for clause in self
            .trial
            .ladder
            .rules
            .iter()
            .flat_map(|rule| rule.when.clauses())
        {
            let probe = &clause.probe;
            let series = self.seen.get(&*probe.signal);
            let window = if probe.stat == Stat::Last {
                Duration::ZERO
            } else {
                probe.window
            };
            if let Some(reading) = series.and_then(|series| series.read(probe.stat, window, max_age, now)) {
                readings.insert(probe.clone(), reading);
            }
        }
        if let (Some(running), Some(waiting)) = (
            newest.get("engine.requests_running"),
            newest.get("engine.requests_waiting"),
        ) {
            readings.set_load(*running, *waiting);
        }
        if !self.trial.fixed {
            with_rungs(&self.trial.ladder, &self.state, &mut readings);
        }
        readings
    }
}

/// The value of a series at a step; the last one stays.
fn value(parts: &[(u32, Part)], step: u32) -> Option<f64> {
    let mut begins = 0_u32;
    for (steps, part) in parts {
        let into = step.saturating_sub(begins);
        if into < *steps {
            let (from, to) = (part.from?, part.to?);
            // A line reaches its end with its last step.
            let last = steps.saturating_sub(1).max(1);
            return Some(from + (to - from) * f64::from(into) / f64::from(last));
        }
        begins = begins.saturating_add(*steps);
    }
    parts.last().and_then(|(_, part)| part.to)
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::signal::Unit;

    use super::*;
    use crate::rule::tests::rule;

    fn trial(series: &str) -> Trial {
        let toml = "name='quantize'\nengine='e'\nmode='act'\nsaves='6GiB'\nfor='10s'\nhold='60s'\ncalm='30s'
            when={signal='vram.used_ratio',enter=0.9,exit=0.7}\nset={a=1}";
        Trial {
            ladder: Ladder::new("e", vec![rule(toml).unwrap()]).unwrap(),
            step: Duration::from_secs(1),
            usable_bytes: Some(24 << 30),
            series: [(
                "vram.used_ratio".to_owned(),
                notation::parse(series, Unit::Ratio).unwrap(),
            )]
            .into(),
            fixed: false,
            frees: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    fn at(run: &mut Run, secs: u64) -> (Vec<String>, &'static str) {
        run.until(Duration::from_secs(secs));
        (run.decided(), run.stands()[0].phase.as_str())
    }

    #[test]
    fn demand_is_seen_through_the_rungs_that_are_taken() {
        let mut run = trial("0.5 x10, 0.5..0.95 over 60s, 95% for 5m, 0.5").begin();
        assert_eq!(at(&mut run, 60), (vec![], "idle"));
        assert_eq!(at(&mut run, 70), (vec![], "pending"));
        assert_eq!(at(&mut run, 74), (vec!["apply quantize".to_owned()], "applying"));
        assert_eq!(at(&mut run, 80), (vec![], "committed"));
        // 70 % is read, and 95 % is what it would be without the rung.
        assert_eq!(at(&mut run, 300), (vec![], "committed"));
        assert_eq!(at(&mut run, 420).0, ["release quantize"]);
        assert_eq!(at(&mut run, 430), (vec![], "idle"));
    }

    #[test]
    fn unknown_readings_and_other_endings() {
        let mut run = trial("0.95 x5, unknown x20, 0.95").begin();
        assert_eq!(at(&mut run, 22), (vec![], "unknown"));
        let mut other = trial("0.95");
        other.ends.insert("quantize".to_owned(), Ending::RolledBack);
        let mut run = other.begin();
        assert_eq!(
            at(&mut run, 30),
            (vec!["apply quantize".to_owned()], "rolled_back")
        );
    }
}
