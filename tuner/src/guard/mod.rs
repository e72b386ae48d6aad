//! Guards: what must be right before a change, while it is made and after it. Each one passes, fails, or cannot tell, and
//! says its numbers.
//!
//! The judges here are pure: they are shown readings in their order and say what follows. Who waits for readings, and what
//! is done about a verdict, is in [`crate::act`].

mod latency;
mod memory;
mod streak;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rule::Cost;

pub use latency::{Baseline, LatencyJudge, MIN_BASELINE, MIN_REQUESTS, Missing};
pub use memory::MemoryJudge;
pub(crate) use streak::Streak;

/// What a guard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// It cannot be told.
    Inconclusive,
}

/// One guard's word.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Which one, a short stable word: "memory", "latency".
    pub name: &'static str,
    /// What it says.
    pub finding: Finding,
    /// Why, part of a sentence for people.
    pub said: String,
    /// The same for programs: a JSON object.
    pub numbers: Value,
    /// Whether it was able to tell at all: something to measure was there before the change. Where it was not, that it
    /// cannot tell is no reason to take anything back.
    pub able: bool,
}

impl Guard {
    /// A guard's word.
    pub(crate) fn new(name: &'static str, finding: Finding, said: impl Into<String>) -> Self {
        Self {
            name,
            finding,
            said: said.into(),
            numbers: json!({}),
            able: true,
        }
    }

    /// That there was nothing to measure by.
    pub(crate) fn unable(name: &'static str, said: impl Into<String>) -> Self {
        Self {
            able: false,
            ..Self::new(name, Finding::Inconclusive, said)
        }
    }

    /// With its numbers.
    #[must_use]
    pub(crate) fn with(self, numbers: Value) -> Self {
        Self { numbers, ..self }
    }

    /// As it is stored with the decision.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = match &self.numbers {
            Value::Object(numbers) => numbers.clone(),
            _ => serde_json::Map::new(),
        };
        object.insert("guard".to_owned(), json!(self.name));
        object.insert("finding".to_owned(), json!(self.finding));
        object.insert("said".to_owned(), json!(self.said));
        Value::Object(object)
    }
}

/// What a change may do to an engine, and how long is watched for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Guards {
    /// By how much the 95th percentiles of latency may rise, as a share of what they were.
    pub latency_max: f64,
    /// By how much the score of the quality command may fall, as a share of what it was.
    pub quality_loss_max: f64,
    /// The person's own check of the answers' quality.
    pub quality: Option<Quality>,
    /// Whether the engine's metrics are read.
    pub metrics: bool,
    /// How long is waited for what.
    pub waits: Waits,
}

/// A command that says how good the engine's answers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The file and the engine's process must have been left alone for this long before a change.
    pub settled: Duration,
    /// An engine that is about to be restarted may take this long to become idle.
    pub idle: Duration,
    /// What comes so soon after a reload is not judged.
    pub warm_up: Duration,
    /// The memory that a rung promised must be seen within this.
    pub memory: Duration,
    /// Latencies and errors are watched for this long at most; a restart three times as long.
    pub latency: Duration,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            latency_max: 0.2,
            quality_loss_max: 0.03,
            quality: None,
            metrics: false,
            waits: Waits::default(),
        }
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            settled: Duration::from_secs(2),
            idle: Duration::from_secs(5),
            warm_up: Duration::from_secs(5),
            memory: Duration::from_secs(30),
            latency: Duration::from_secs(30),
        }
    }
}

impl Waits {
    /// How long latencies are watched after a change of this cost. A hot one is not held up for long: the next rung may be
    /// needed.
    pub(crate) fn latency_of(&self, cost: Cost) -> Duration {
        match cost {
            Cost::Hot => self.latency / 2,
            Cost::Reload => self.latency,
            Cost::Restart => self.latency * 3,
        }
    }
}

/// What becomes of a change whose guards have spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It stays.
    Keep,
    /// It stays, and it is said what could not be told.
    KeepAndSay(String),
    /// It is taken back, for this reason.
    TakeBack(String),
}

/// A failed guard takes a change back. One that could have told and cannot does so where the change costs a restart, and is
/// only said elsewhere.
#[must_use]
pub fn consequence(guards: &[Guard], cost: Cost) -> Consequence {
    let first = |finding| guards.iter().find(|guard| guard.finding == finding && guard.able);
    if let Some(failed) = first(Finding::Fail) {
        return Consequence::TakeBack(failed.said.clone());
    }
    let unsure: Vec<&str> = guards
        .iter()
        .filter(|guard| guard.finding == Finding::Inconclusive && guard.able)
        .map(|guard| guard.said.as_str())
        .collect();
    match (unsure.as_slice(), cost) {
        ([], _) => Consequence::Keep,
        (unsure, Cost::Restart) => Consequence::TakeBack(format!(
            "it cannot be told whether it did harm, which a restart does not get the benefit of: {}",
            unsure.join("; ")
        )),
        (unsure, Cost::Hot | Cost::Reload) => Consequence::KeepAndSay(unsure.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_change() {
        let pass = Guard::new("a", Finding::Pass, "fine");
        let fail = Guard::new("b", Finding::Fail, "worse");
        let unsure = Guard::new("c", Finding::Inconclusive, "too few requests");
        let unable = Guard::unable("d", "nothing is promised");
        for cost in [Cost::Hot, Cost::Reload, Cost::Restart] {
            assert_eq!(
                consequence(&[pass.clone(), unable.clone()], cost),
                Consequence::Keep
            );
            let all = [pass.clone(), unsure.clone(), fail.clone()];
            assert_eq!(consequence(&all, cost), Consequence::TakeBack("worse".to_owned()));
        }
        let all = [pass, unsure, unable];
        assert_eq!(
            consequence(&all, Cost::Reload),
            Consequence::KeepAndSay("too few requests".to_owned())
        );
        assert!(
            matches!(consequence(&all, Cost::Restart), Consequence::TakeBack(why) if why.contains("too few"))
        );
        assert_eq!(
            all[1].to_json(),
            json!({"guard": "c", "finding": "inconclusive", "said": "too few requests"})
        );
    }
}
