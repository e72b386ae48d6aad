//! Whether a rung freed the memory that it promised.

use serde_json::json;

use super::{Finding, Guard, Streak};

/// A change that frees less than this part of what it promised did not work.
const HALF: f64 = 0.5;
/// Readings whose median counts as the effect.
const MEDIAN_OF: usize = 3;

/// Compares what an engine holds with what it held before. Shown readings until it says that it knows; what has not come
/// by the deadline did not come.
#[derive(Clone, Debug)]
pub struct MemoryJudge {
    before_bytes: Option<f64>,
    promised_bytes: Option<f64>,
    streak: Streak,
    said: Option<Finding>,
    /// The newest ones.
    readings: Vec<f64>,
}

impl MemoryJudge {
    /// `before_bytes` is what was held before the change; `promised_bytes` what the change is to free. A promise of nothing
    /// is none.
    #[must_use]
    pub fn new(before_bytes: Option<f64>, promised_bytes: Option<f64>) -> Self {
        Self {
            before_bytes,
            promised_bytes: promised_bytes.filter(|bytes| *bytes > 0.0),
            streak: Streak::default(),
            said: None,
            readings: Vec::new(),
        }
    }

    /// The next reading after the change. Answers whether the judge needs no further ones.
    pub fn add(&mut self, held_bytes: f64) -> bool {
        if self.readings.len() == MEDIAN_OF {
            self.readings.remove(0);
        }
        self.readings.push(held_bytes);
        if let Some((freed, promised)) = self.freed().zip(self.promised_bytes) {
            let finding = if freed >= HALF * promised {
                Finding::Pass
            } else {
                Finding::Fail
            };
            // Memory comes late: what fails now may pass in a moment, what passed is known.
            if self.said != Some(Finding::Pass) {
                self.said = self.streak.add(finding);
            }
        }
        self.is_done()
    }

    /// Whether it needs no further reading: the promise was kept, or there is none and the effect is known.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let settled = self.readings.len() >= MEDIAN_OF;
        settled
            && (self.said == Some(Finding::Pass)
                || self.promised_bytes.is_none()
                || self.before_bytes.is_none())
    }

    /// What was freed by the last readings, bytes; negative when more is held than before. `None` while unknown.
    #[must_use]
    pub fn effect_bytes(&self) -> Option<f64> {
        let mut readings = self.readings.clone();
        readings.sort_by(f64::total_cmp);
        let held = readings.get(readings.len() / 2)?;
        Some(self.before_bytes? - held)
    }

    /// What is held by the last readings.
    #[must_use]
    pub fn after_bytes(&self) -> Option<f64> {
        Some(self.before_bytes? - self.effect_bytes()?)
    }

    /// What it came to.
    #[must_use]
    pub fn guard(&self) -> Guard {
        let numbers = json!({
            "before_bytes": self.before_bytes,
            "freed_bytes": self.effect_bytes(),
            "promised_bytes": self.promised_bytes,
        });
        let name = "memory";
        let guard = match (self.promised_bytes, self.before_bytes, self.effect_bytes()) {
            (None, ..) => Guard::unable(name, "how much it should free is not known"),
            (_, None, _) => Guard::unable(name, "what the engine held before is not known"),
            (_, _, None) => Guard::new(
                name,
                Finding::Inconclusive,
                "what the engine holds now is not known",
            ),
            (Some(promised), _, Some(freed)) => {
                let share = freed / promised * 100.0;
                match self.said {
                    Some(Finding::Pass) => Guard::new(
                        name,
                        Finding::Pass,
                        format!("it freed {share:.0} % of what it promised"),
                    ),
                    Some(Finding::Fail) => Guard::new(
                        name,
                        Finding::Fail,
                        format!("it freed {share:.0} % of what it promised, less than half"),
                    ),
                    _ => Guard::new(
                        name,
                        Finding::Inconclusive,
                        "too little was seen to tell whether it freed what it promised",
                    ),
                }
            }
        };
        guard.with(numbers)
    }

    fn freed(&self) -> Option<f64> {
        Some(self.before_bytes? - self.readings.last()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: Option<f64>, promised: Option<f64>, readings: &[f64]) -> (bool, Finding, bool) {
        let mut judge = MemoryJudge::new(before, promised);
        let mut done = false;
        for reading in readings {
            done = judge.add(*reading);
        }
        let guard = judge.guard();
        (done, guard.finding, guard.able)
    }

    #[test]
    fn half_of_the_promise_is_enough_and_may_come_late() {
        use Finding::{Fail, Inconclusive, Pass};

        for (readings, said) in [
            (&[100.0, 100.0, 60.0, 55.0, 60.0][..], (true, Pass, true)),
            (&[100.0, 99.0, 98.0, 100.0], (false, Fail, true)),
            (&[80.0, 80.0, 80.0], (true, Pass, true)),
            (&[80.0, 100.0, 80.0], (false, Inconclusive, true)),
            (&[], (false, Inconclusive, true)),
        ] {
            assert_eq!(after(Some(100.0), Some(40.0), readings), said, "{readings:?}");
        }
    }

    #[test]
    fn without_a_promise_only_the_effect_is_taken() {
        let (done, finding, able) = after(Some(100.0), None, &[90.0, 70.0, 80.0]);
        assert_eq!((done, finding, able), (true, Finding::Inconclusive, false));
        let mut judge = MemoryJudge::new(Some(100.0), Some(0.0));
        for reading in [90.0, 70.0, 80.0] {
            judge.add(reading);
        }
        assert_eq!(
            (judge.effect_bytes(), judge.after_bytes()),
            (Some(20.0), Some(80.0))
        );
        assert_eq!(
            after(None, Some(5.0), &[1.0, 1.0, 1.0]),
            (true, Finding::Inconclusive, false)
        );
    }
}
