//! When a rule applies: clauses that hold a signal against two lines, joined by all or any.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::signal::{self, Unit};
use plimsoll_trace::units::{Period, Quantity};
use serde::{Deserialize, Serialize};

use crate::rule::Problem;
use crate::signals::{LONGEST_WINDOW, Probe};
pub use crate::stat::Stat;

/// A clause as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClauseConfig {
    /// The signal's name.
    pub signal: String,
    /// The line that takes the rung.
    pub enter: Quantity,
    /// The line that lets it go; for a ratio it may be left out and is then 15 points below `enter`.
    pub exit: Option<Quantity>,
    /// What is looked at.
    pub stat: Option<Stat>,
    /// Over which time, for `mean` and `max`.
    pub window: Option<Period>,
    /// The line from which on hot rungs do not wait for `for`.
    pub emergency: Option<Quantity>,
    /// Whether it presses only while its value does not fall by itself.
    pub unless_falling: Option<bool>,
}

/// `when` as the configuration writes it: one clause, or a list of clauses under `all` or `any`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhenConfig {
    /// The signal's name, for a single clause.
    pub signal: Option<String>,
    /// As in [`ClauseConfig`].
    pub enter: Option<Quantity>,
    /// As in [`ClauseConfig`].
    pub exit: Option<Quantity>,
    /// As in [`ClauseConfig`].
    pub stat: Option<Stat>,
    /// As in [`ClauseConfig`].
    pub window: Option<Period>,
    /// As in [`ClauseConfig`].
    pub emergency: Option<Quantity>,
    /// As in [`ClauseConfig`].
    pub unless_falling: Option<bool>,
    /// Clauses of which every one must hold.
    pub all: Option<Vec<ClauseConfig>>,
    /// Clauses of which one must hold.
    pub any: Option<Vec<ClauseConfig>>,
}

/// A value falls by itself when its mean over five seconds is below this share of that over the five before.
const FALLING: f64 = 0.85;
/// Both five seconds.
const FALL: Duration = Duration::from_secs(10);

/// How the clauses of a condition are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// Every clause must hold.
    All,
    /// One clause must hold.
    Any,
}

/// One signal held against two lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// What is read.
    pub probe: Probe,
    /// The signal's unit.
    pub unit: Unit,
    /// At this line or beyond it, the clause holds.
    pub enter: f64,
    /// At this line or on its safe side, the pressure is over. Below `enter`, or above it for an under-clause.
    pub exit: f64,
    /// At this line or beyond it, hot rungs do not wait for `for`. Beyond `enter`.
    pub emergency: Option<f64>,
    /// Tells whether the value falls by itself; `None` when that does not matter.
    pub fall: Option<Probe>,
}

/// When a rule applies. A single clause is a list of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    join: Join,
    clauses: Vec<Clause>,
}

impl Clause {
    /// Whether low values are the pressure (`enter` below `exit`).
    #[must_use]
    pub fn is_under(&self) -> bool {
        self.enter < self.exit
    }

    /// Whether `value` lies at `enter` or beyond.
    #[must_use]
    pub fn entered(&self, value: f64) -> bool {
        if self.is_under() {
            value <= self.enter
        } else {
            value >= self.enter
        }
    }

    /// Whether `value` lies at the emergency line or beyond; false when there is none.
    #[must_use]
    pub fn is_emergency(&self, value: f64) -> bool {
        self.emergency.is_some_and(|line| {
            if self.is_under() {
                value <= line
            } else {
                value >= line
            }
        })
    }

    /// Whether the pressure goes by itself, by how the value changed from the first half of `FALL` to the second.
    #[must_use]
    pub fn falls(&self, change: f64) -> bool {
        if self.is_under() {
            change > 1.0 / FALLING
        } else {
            change < FALLING
        }
    }

    /// What is read for it.
    pub(crate) fn probes(&self) -> impl Iterator<Item = &Probe> {
        std::iter::once(&self.probe).chain(&self.fall)
    }

    /// Looks from now on whether the value falls by itself.
    fn watch_fall(&mut self) {
        self.fall = Some(Probe {
            signal: Arc::clone(&self.probe.signal),
            stat: Stat::Change,
            window: FALL,
        });
    }

    /// Whether `value` lies at `exit` or on its safe side.
    #[must_use]
    pub fn exited(&self, value: f64) -> bool {
        if self.is_under() {
            value >= self.exit
        } else {
            value <= self.exit
        }
    }
}

impl Condition {
    /// How the clauses are joined.
    #[must_use]
    pub const fn join(&self) -> Join {
        self.join
    }

    /// The clauses; at least one.
    #[must_use]
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    /// Whether the condition holds for these values, one per clause. `None`: it depends on a value that is unknown.
    pub(crate) fn entered(&self, values: impl Fn(&Clause) -> Option<f64>) -> Option<bool> {
        self.holds(|clause| values(clause).map(|value| clause.entered(value)))
    }

    /// Whether the condition holds by what is so of each clause. `None`: it depends on what is unknown.
    pub(crate) fn holds(&self, clause: impl Fn(&Clause) -> Option<bool>) -> Option<bool> {
        self.joined(self.clauses.iter().map(clause))
    }

    /// The same of what is so of each clause, in order.
    pub(crate) fn joined(&self, truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
        match self.join {
            Join::All => every(truths),
            Join::Any => some(truths),
        }
    }

    /// Looks from now on at each clause whether its value falls by itself.
    pub(crate) fn watch_fall(&mut self) {
        self.clauses.iter_mut().for_each(Clause::watch_fall);
    }

    /// Whether the pressure is over for these values: the condition could not come to hold again without crossing a
    /// whole band between `exit` and `enter`. `None`: it depends on a value that is unknown.
    pub(crate) fn exited(&self, values: impl Fn(&Clause) -> Option<f64>) -> Option<bool> {
        let clauses = self
            .clauses
            .iter()
            .map(|clause| values(clause).map(|value| clause.exited(value)));
        match self.join {
            Join::All => some(clauses),
            Join::Any => every(clauses),
        }
    }
}

/// "And" over three values: one false decides, else an unknown makes it unknown.
fn every(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = true;
    for truth in truths {
        match truth {
            Some(false) => return Some(false),
            Some(true) => {}
            None => known = false,
        }
    }
    known.then_some(true)
}

/// "Or" over three values.
fn some(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    every(truths.map(|truth| truth.map(|truth| !truth))).map(|truth| !truth)
}

impl WhenConfig {
    /// Checks names, units and lines.
    ///
    /// # Errors
    /// The key below the rule, such as `when.all[1].enter`, and what is wrong with it.
    pub fn resolve(self) -> Result<Condition, (String, Problem)> {
        let single = self.signal.is_some()
            || self.enter.is_some()
            || self.exit.is_some()
            || self.stat.is_some()
            || self.window.is_some()
            || self.emergency.is_some()
            || self.unless_falling.is_some();
        let (join, list, name) = match (single, self.all, self.any) {
            (true, None, None) => {
                let missing = |key: &'static str| ("when".to_owned(), Problem::Missing(key));
                let clause = ClauseConfig {
                    signal: self.signal.ok_or_else(|| missing("signal"))?,
                    enter: self.enter.ok_or_else(|| missing("enter"))?,
                    exit: self.exit,
                    stat: self.stat,
                    window: self.window,
                    emergency: self.emergency,
                    unless_falling: self.unless_falling,
                };
                let clauses = vec![clause.resolve("when")?];
                return Ok(Condition {
                    join: Join::All,
                    clauses,
                });
            }
            (false, Some(list), None) => (Join::All, list, "when.all"),
            (false, None, Some(list)) => (Join::Any, list, "when.any"),
            _ => return Err(("when".to_owned(), Problem::WhenForm)),
        };
        if list.is_empty() {
            return Err((name.to_owned(), Problem::Empty));
        }
        let clauses = list
            .into_iter()
            .enumerate()
            .map(|(position, clause)| clause.resolve(&format!("{name}[{position}]")))
            .collect::<Result<_, _>>()?;
        Ok(Condition { join, clauses })
    }
}

/// A ratio's `exit` lies this far below `enter` unless it is given.
const DEFAULT_GAP_RATIO: f64 = 0.15;

impl ClauseConfig {
    fn resolve(self, at: &str) -> Result<Clause, (String, Problem)> {
        let wrong = |key: &str, problem: Problem| (format!("{at}.{key}"), problem);
        let Some(signal) = signal::find(&self.signal) else {
            return Err(wrong("signal", Problem::unknown_signal(self.signal)));
        };
        let line = |key: &str, quantity: &Quantity| match signal.unit.read(quantity) {
            Err(error) => Err(wrong(key, Problem::Unit(error))),
            Ok(value) if !value.is_finite() => Err(wrong(key, Problem::NotFinite)),
            Ok(value) if signal.unit == Unit::Ratio && !(0.0..=1.0).contains(&value) => {
                Err(wrong(key, Problem::NotARatio(value)))
            }
            Ok(value) => Ok(value),
        };
        let enter = line("enter", &self.enter)?;
        let exit = match &self.exit {
            Some(exit) => line("exit", exit)?,
            // Rounded, so that 0.8 less 15 points is the 0.65 that a person would write.
            None if signal.unit == Unit::Ratio && enter >= DEFAULT_GAP_RATIO => {
                ((enter - DEFAULT_GAP_RATIO) * 1e12).round() / 1e12
            }
            None => return Err(wrong("exit", Problem::NoExit)),
        };
        #[expect(clippy::float_cmp, reason = "two lines as written; any gap at all is a gap")]
        if enter == exit {
            return Err(wrong("exit", Problem::NoGap));
        }
        let emergency = match &self.emergency {
            Some(emergency) => Some(line("emergency", emergency)?),
            None => None,
        };
        let is_beyond = |line: f64| if enter < exit { line < enter } else { line > enter };
        if emergency.is_some_and(|line| !is_beyond(line)) {
            return Err(wrong("emergency", Problem::NoEmergency));
        }
        let stat = self.stat.unwrap_or_default();
        let window = match (stat, self.window) {
            (Stat::Last, None) => Duration::ZERO,
            (Stat::Last, Some(_)) => return Err(wrong("window", Problem::WindowWithoutStat)),
            (_, Some(Period(window))) if !window.is_zero() && window <= LONGEST_WINDOW => window,
            (_, Some(_)) => return Err(wrong("window", Problem::Window)),
            (_, None) => return Err(wrong("window", Problem::NoWindow)),
        };
        let probe = Probe {
            signal: Arc::from(self.signal),
            stat,
            window,
        };
        let mut clause = Clause {
            probe,
            unit: signal.unit,
            enter,
            exit,
            emergency,
            fall: None,
        };
        if self.unless_falling == Some(true) {
            clause.watch_fall();
        }
        Ok(clause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(json: &str) -> Result<Condition, String> {
        let config: WhenConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config
            .resolve()
            .map_err(|(key, problem)| format!("{key}: {problem}"))
    }

    #[test]
    fn lines_are_read_by_the_unit_of_the_signal() {
        let condition = when(r#"{"signal":"vram.used_ratio","enter":"80%"}"#).unwrap();
        let clause = &condition.clauses[0];
        assert_eq!((clause.enter, clause.exit, clause.is_under()), (0.8, 0.65, false));
        assert!(clause.entered(0.8) && !clause.entered(0.799));
        assert!(clause.exited(0.65) && !clause.exited(0.651));

        let condition = when(r#"{"signal":"vram.free_bytes","enter":"1KiB","exit":4096}"#).unwrap();
        let clause = &condition.clauses[0];
        assert_eq!(
            (clause.enter, clause.exit, clause.is_under()),
            (1024.0, 4096.0, true)
        );
        assert!(clause.entered(1024.0) && !clause.entered(1025.0));
        assert!(clause.exited(4096.0) && !clause.exited(4095.0));
    }

    #[test]
    fn lists_and_windows() {
        let condition = when(
            r#"{"any":[{"signal":"engine.requests_waiting","stat":"mean","window":"30s","enter":4,"exit":0},
                       {"signal":"metric:queue{a=\"b\"}","enter":9,"exit":1}]}"#,
        )
        .unwrap();
        assert_eq!(condition.join, Join::Any);
        assert_eq!(condition.clauses[0].probe.window, Duration::from_secs(30));
        assert_eq!(&*condition.clauses[1].probe.signal, "metric:queue{a=\"b\"}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        let cases = [
            (
                r#"{"signal":"vram.use_ratio","enter":0.8}"#,
                "when.signal: there is no signal 'vram.use_ratio'; did you mean 'vram.used_ratio'?",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":80}"#,
                "when.enter: 80 is not between 0 and 1; write for example 0.8 or \"80%\"",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":"4GiB"}"#,
                "when.enter: '4GiB' is not a ratio; write for example 0.8 or \"80%\"",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.1}"#,
                "when.exit: it must be given here: only a ratio of at least 15 % has a default",
            ),
            (
                r#"{"signal":"vram.used_bytes","enter":"4GiB"}"#,
                "when.exit: it must be given here: only a ratio of at least 15 % has a default",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"exit":"80%"}"#,
                "when.exit: it equals `enter`; leave a gap, or the rule would come and go with every sample",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"emergency":0.8}"#,
                "when.emergency: it must lie beyond `enter`, away from `exit`",
            ),
            (
                r#"{"signal":"vram.free_bytes","enter":"1GiB","exit":"4GiB","emergency":"2GiB"}"#,
                "when.emergency: it must lie beyond `enter`, away from `exit`",
            ),
            (r#"{"signal":"vram.used_ratio"}"#, "when: `enter` is missing"),
            (r#"{"enter":0.8}"#, "when: `signal` is missing"),
            (
                "{}",
                "when: write one clause { signal, enter, exit }, or { all = [clauses] }, or { any = [clauses] }",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"all":[]}"#,
                "when: write one clause { signal, enter, exit }, or { all = [clauses] }, or { any = [clauses] }",
            ),
            (r#"{"all":[]}"#, "when.all: it is empty"),
            (
                r#"{"any":[{"signal":"vram.used_ratio","enter":0.8},{"signal":"x","enter":1}]}"#,
                "when.any[1].signal: there is no signal 'x'",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"window":"5s"}"#,
                "when.window: only `stat = \"mean\"`, `\"max\"` and percentiles such as `\"p95\"` look at a window",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"stat":"max"}"#,
                "when.window: `stat` needs a window here, such as \"30s\"",
            ),
            (
                r#"{"signal":"vram.used_ratio","enter":0.8,"stat":"max","window":"1h"}"#,
                "when.window: a window is more than 0 and at most 10 min",
            ),
        ];
        for (json, says) in cases {
            assert_eq!(when(json).unwrap_err(), says, "{json}");
        }
        assert!(
            when(r#"{"signal":"vram.used_ratio","enter":0.8,"stats":"max"}"#)
                .unwrap_err()
                .contains("unknown field `stats`")
        );
    }

    #[test]
    fn unknown_decides_only_where_it_matters() {
        let (t, f, u) = (Some(true), Some(false), None);
        assert_eq!(every([t, u, f].into_iter()), f);
        assert_eq!(every([t, u].into_iter()), u);
        assert_eq!(every([t, t].into_iter()), t);
        assert_eq!(some([f, u, t].into_iter()), t);
        assert_eq!(some([f, u].into_iter()), u);
        assert_eq!(some([f, f].into_iter()), f);
    }
}
