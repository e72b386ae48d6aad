//! Rules as the configuration writes them, checked and with their defaults filled in; and the ladder they form.

mod problem;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::Mode;
use plimsoll_trace::units::{Period, Ratio, Size};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::Limits;
use crate::condition::{Clause, Condition, WhenConfig};
use crate::edit::KeyPath;
use crate::setting;
pub use crate::setting::{SetValue, Setting};
use crate::signals::Probe;
pub use problem::{Problem, RuleError};

/// What taking a rung costs the engine. It sets the defaults of `for`, `hold` and `calm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Nothing to speak of: the engine goes on serving.
    Hot,
    /// A short pause.
    Reload,
    /// Requests in flight are lost, and the engine is away for a while.
    Restart,
}

impl Cost {
    /// How long the condition must hold unless the rule says so.
    ///
    /// Demand rises by gigabytes within a second, so a hot action that waits comes too late; a restart that does not
    /// wait costs more than it saves.
    #[must_use]
    pub const fn held_for(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hot => 0,
            Self::Reload => 15,
            Self::Restart => 60,
        })
    }

    /// How long a rung stays at least unless the rule says so.
    #[must_use]
    pub const fn hold(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hot => 30,
            Self::Reload => 300,
            Self::Restart => 600,
        })
    }

    /// How long a rung that was let go is not taken again. A restart that is taken back by another one helps nobody; where
    /// a change costs less, running out of memory is worse than changing one's mind.
    #[must_use]
    pub const fn rest(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hot | Self::Reload => 0,
            Self::Restart => 600,
        })
    }

    /// How long the projected use must have stayed at `exit` before a release unless the rule says so.
    #[must_use]
    pub const fn calm(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hot => 30,
            Self::Reload => 120,
            Self::Restart => 300,
        })
    }
}

/// A `[[rule]]` as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What people call it; unique among the engine's rules.
    pub name: String,
    /// The engine it belongs to.
    pub engine: String,
    /// What it may do; to observe, unless it says so.
    #[serde(default = "observe")]
    pub mode: Mode,
    /// When it applies.
    pub when: WhenConfig,
    /// Whether it leaves alone what falls by itself, in every clause.
    #[serde(default)]
    pub unless_falling: bool,
    /// What it sets: key path = value, or { scale, min, max }.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// Whose value counts where rules set the same key: that of the highest; of equals, that of the last in the file.
    pub priority: Option<i64>,
    /// Restarts the engine as it is, instead of setting anything.
    #[serde(default)]
    pub restart: bool,
    /// How much memory it frees, as an estimate until that has been observed.
    pub saves: Option<Size>,
    /// How many times as many tokens the KV cache holds with it.
    pub capacity: Option<f64>,
    /// How much worse the answers become, as an estimate; none unless given.
    pub quality_loss: Option<Ratio>,
    /// What taking it costs; from the engine's reload unless given.
    pub cost: Option<Cost>,
    /// How long the condition must hold.
    #[serde(rename = "for")]
    pub held_for: Option<Period>,
    /// How long it stays at least.
    pub hold: Option<Period>,
    /// How long the projected use must have stayed at `exit` before a release.
    pub calm: Option<Period>,
}

fn observe() -> Mode {
    Mode::Observe
}

/// A rule, checked: one rung of an engine's ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub mode: Mode,
    /// When it applies.
    pub when: Condition,
    /// What it sets: no two of the values overlap. Empty for a rule that only has the engine restarted.
    pub set: Vec<Setting>,
    /// Whose value counts where rules set the same key: that of the highest; of equals, that of the last in the file. A
    /// rule without one has 0.
    pub priority: Option<i64>,
    /// The estimate of the memory it frees, bytes.
    pub saves_bytes: Option<u64>,
    /// How many times as many tokens the KV cache holds with it; above 0.
    pub capacity: Option<f64>,
    /// How much worse the answers become, 0..1.
    pub quality_loss: f64,
    /// What taking it costs.
    pub cost: Cost,
    /// How long the condition must hold.
    pub held_for: Duration,
    /// How long it stays at least.
    pub hold: Duration,
    /// How long the projected use must have stayed at `exit` before a release.
    pub calm: Duration,
}

impl Rule {
    /// Whether it has the engine restarted as it is, and is no rung: nothing is in force afterwards that was not before.
    #[must_use]
    pub const fn only_restarts(&self) -> bool {
        self.set.is_empty()
    }
}

/// The rules of one engine in file order: cheapest first, cumulative. Where two rungs set the same key, the one of higher
/// priority wins; of equals the later.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    /// The engine's name.
    pub engine: String,
    /// The rungs, lowest first.
    pub rules: Vec<Rule>,
    /// What changes may cost the engine.
    pub limits: Limits,
    /// How they were written.
    pub source: Source,
}

/// The rules of a ladder as the configuration has them, so that a recording can say which rules decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    text: Arc<str>,
    hash: Arc<str>,
}

impl Source {
    /// Rules that were written so.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            hash: crate::file::hash(text.as_bytes()).into(),
        }
    }

    /// The rules, JSON text; empty when nobody wrote them.
    #[must_use]
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The SHA-256 of the text, in hexadecimal digits.
    #[must_use]
    pub const fn hash(&self) -> &Arc<str> {
        &self.hash
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::new("")
    }
}

impl RuleConfig {
    /// Checks the rule and fills in its defaults; `reload_cost` is what the engine's reload costs.
    ///
    /// # Errors
    /// [`RuleError`] with the first key that is wrong.
    pub fn resolve(self, reload_cost: Cost) -> Result<Rule, RuleError> {
        let name = self.name;
        let fail = |(key, problem)| RuleError {
            rule: name.clone(),
            key,
            problem,
        };
        if name.trim().is_empty() {
            return Err(fail(("name".to_owned(), Problem::Empty)));
        }
        let mut when = self.when.resolve().map_err(fail)?;
        if self.unless_falling {
            when.watch_fall();
        }
        let cost = self
            .cost
            .unwrap_or(if self.restart { Cost::Restart } else { reload_cost });
        if self.restart && (!self.set.is_empty() || cost != Cost::Restart) {
            return Err(fail(("restart".to_owned(), Problem::RestartAlone)));
        }
        let set = if self.restart {
            Vec::new()
        } else {
            setting::resolve(self.set).map_err(fail)?
        };
        let capacity = self.capacity;
        if capacity.is_some_and(|times| !times.is_finite() || times <= 0.0) {
            return Err(fail(("capacity".to_owned(), Problem::Capacity)));
        }
        let or = |period: Option<Period>, default| period.map_or(default, |Period(duration)| duration);
        Ok(Rule {
            mode: self.mode,
            when,
            set,
            priority: self.priority,
            saves_bytes: self.saves.map(|Size(bytes)| bytes),
            capacity,
            quality_loss: self.quality_loss.map_or(0.0, |Ratio(loss)| loss),
            cost,
            held_for: or(self.held_for, cost.held_for()),
            hold: or(self.hold, cost.hold()),
            calm: or(self.calm, cost.calm()),
            name,
        })
    }
}

impl Rule {
    /// What is read for its condition.
    pub(crate) fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.when.clauses().iter().flat_map(Clause::probes)
    }

    /// Where this rule and another set the same key to different values though both were given the same priority: the key
    /// of this one and that of the other. Rules without a priority are told apart by their order.
    fn conflict<'a>(&'a self, other: &'a Self) -> Option<(&'a KeyPath, &'a KeyPath)> {
        if self.priority.is_none() || self.priority != other.priority {
            return None;
        }
        let pairs = self
            .set
            .iter()
            .flat_map(|own| other.set.iter().map(move |theirs| (own, theirs)));
        pairs
            .filter(|(own, theirs)| own.path.overlaps(&theirs.path) && own != theirs)
            .map(|(own, theirs)| (&own.path, &theirs.path))
            .next()
    }
}

impl Ladder {
    /// The ladder of these rules, in this order.
    ///
    /// # Errors
    /// [`RuleError`] when two rules have the same name, or the same priority and different values for one key.
    pub fn new(engine: impl Into<String>, rules: Vec<Rule>) -> Result<Self, RuleError> {
        for (position, rule) in rules.iter().enumerate() {
            for earlier in rules.iter().take(position) {
                if earlier.name == rule.name {
                    return Err(RuleError {
                        rule: rule.name.clone(),
                        key: "name".to_owned(),
                        problem: Problem::SameName,
                    });
                }
                if let Some((own, other)) = rule.conflict(earlier) {
                    return Err(RuleError {
                        rule: rule.name.clone(),
                        key: format!("set.{own}"),
                        problem: Problem::Conflict {
                            other: earlier.name.clone(),
                            key: other.clone(),
                        },
                    });
                }
            }
        }
        Ok(Self {
            engine: engine.into(),
            rules,
            limits: Limits::default(),
            source: Source::default(),
        })
    }

    /// The same ladder within other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// These rules in the order in which their settings are laid over each other: where two set one key, the last wins.
    pub(crate) fn by_priority(&self, wanted: impl Fn(&Rule) -> bool) -> Vec<&Rule> {
        let mut rules: Vec<&Rule> = self.rules.iter().filter(|rule| wanted(rule)).collect();
        rules.sort_by_key(|rule| rule.priority.unwrap_or(0));
        rules
    }

    /// The same ladder, as it was written so.
    #[must_use]
    pub fn written(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// The rule of this name.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A rule from TOML, as the daemon reads it.
    pub(crate) fn rule(toml: &str) -> Result<Rule, String> {
        let config: RuleConfig = toml_edit::de::from_str(toml).map_err(|error| error.to_string())?;
        config.resolve(Cost::Reload).map_err(|error| error.to_string())
    }

    #[test]
    fn the_contracts_rules_are_read() {
        let quantize = rule(
            r#"name = "quantize"
               engine = "deepseek"
               mode = "act"
               when = { signal = "vram.used_ratio", enter = "92%", exit = "75%" }
               set  = { "model.quantization" = "int8" }
               saves = "5GiB""#,
        )
        .unwrap();
        assert_eq!(quantize.mode, Mode::Act);
        assert_eq!(quantize.saves_bytes, Some(5 << 30));
        assert_eq!(quantize.set[0].path.keys(), ["model", "quantization"]);
        assert_eq!(
            (quantize.cost, quantize.held_for),
            (Cost::Reload, Duration::from_secs(15))
        );

        let kv = rule(
            r#"name = "kv-fp8"
               engine = "chat"
               when = { all = [ { signal = "engine.kv_used_ratio", stat = "mean", window = "30s", enter = "95%", exit = "70%" },
                                { signal = "engine.requests_waiting", enter = 4, exit = 1 } ] }
               set  = { kv-cache-dtype = "fp8", chat.cache-type-k = "q8_0", max-num-seqs = { scale = 0.5, min = 16 } }
               cost = "restart"
               for = "30s"
               calm = "7m""#,
        )
        .unwrap();
        assert_eq!(kv.mode, Mode::Observe);
        assert_eq!(kv.when.clauses().len(), 2);
        assert_eq!(kv.set[1].path.keys(), ["chat", "cache-type-k"]);
        assert_eq!(kv.held_for, Duration::from_secs(30));
        assert_eq!(
            (kv.hold, kv.calm),
            (Duration::from_secs(600), Duration::from_secs(420))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_rule_and_key() {
        let base = "name = 'a'\nengine = 'e'\n";
        for (rest, says) in [
            (
                "when = { signal = 'vram.used', enter = 0.8 }\nset = { a = 1 }",
                "rule 'a', when.signal: there is no signal 'vram.used'; did you mean 'vram.used_ratio'?",
            ),
            (
                "when = { signal = 'vram.used_ratio', enter = 0.8 }\nset = { a = inf }",
                "rule 'a', set.a: it is not a finite number",
            ),
            (
                "when = { signal = 'vram.used_ratio', enter = 0.8 }\nset = { a = 2026-01-01 }",
                "rule 'a', set.a: a date cannot be set; write it as text",
            ),
            (
                "when = { signal = 'vram.used_ratio', enter = nan }\nset = { a = 1 }",
                "rule 'a', when.enter: it is not a finite number",
            ),
            (
                "when = { signal = 'vram.used_ratio', enter = 0.8 }\nset = {}",
                "rule 'a', set: it is empty",
            ),
        ] {
            assert_eq!(rule(&format!("{base}{rest}")).unwrap_err(), says);
        }
        let unnamed = rule(
            "name = ' '\nengine = 'e'\nwhen = { signal = 'vram.used_ratio', enter = 0.8 }\nset = { a = 1 }",
        );
        assert_eq!(unnamed.unwrap_err(), "rule ' ', name: it is empty");
        let misspelt = rule(&format!(
            "{base}when = {{ signal = 'vram.used_ratio', enter = 0.8 }}\nset = {{ a = 1 }}\nholds = '1m'"
        ));
        assert!(misspelt.unwrap_err().contains("unknown field `holds`"));
    }

    #[test]
    fn the_highest_priority_wins_and_equal_ones_must_agree() {
        let setting = |name: &str, rest: &str| {
            rule(&format!(
                "name = '{name}'\nengine = 'e'\nwhen = {{ signal = 'vram.used_ratio', enter = 0.8 }}\n{rest}"
            ))
            .unwrap()
        };
        let order = |rules: &[Rule]| {
            let ladder = Ladder::new("e", rules.to_vec()).map_err(|error| error.to_string())?;
            let names = ladder.by_priority(|_| true).into_iter();
            Ok::<_, String>(names.map(|rule| rule.name.clone()).collect::<Vec<_>>().concat())
        };
        let (a, b) = (
            setting("a", "priority = 5\nset = { model.q = 1 }"),
            setting("b", "set = { model.q = 2 }"),
        );
        let (c, d) = (
            setting("c", "priority = -1\nset = { model = 3 }"),
            setting("d", "set = { model.q = 4 }"),
        );
        assert_eq!(order(&[a.clone(), b, c, d]).unwrap(), "cbda");
        // Of one priority: another key is fine, and so is the same value.
        let (e, f) = (
            setting("e", "priority = 5\nset = { other = 1 }"),
            setting("f", "priority = 5\nset = { model.q = 1 }"),
        );
        assert_eq!(order(&[a.clone(), e, f]).unwrap(), "aef");
        for set in ["model.q = 2", "model = 1", "model.q = { scale = 0.5 }"] {
            let g = setting("g", &format!("priority = 5\nset = {{ {set} }}"));
            let said = order(&[a.clone(), g]).unwrap_err();
            assert!(
                said.ends_with("rule 'a' has the same priority and sets 'model.q' to another value; give one of them a higher priority"),
                "{said}"
            );
        }
    }

    #[test]
    fn names_are_told_apart() {
        let one = rule(
            "name = 'a'\nengine = 'e'\nwhen = { signal = 'vram.used_ratio', enter = 0.8 }\nset = { a = 1 }",
        )
        .unwrap();
        let error = Ladder::new("e", vec![one.clone(), one]).unwrap_err();
        assert_eq!((error.rule.as_str(), error.key.as_str()), ("a", "name"));
    }
}
