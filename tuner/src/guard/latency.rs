//! Whether requests take longer, or fail more often, than before a change.
//!
//! What counts is the share of requests that take longer than the line: the baseline's 95th percentile and what
//! `latency_max` adds to it. Under an unchanged engine that share is at most 5 %. A change has failed when it is larger by
//! more than chance explains, so that a noisy load alone takes nothing back.
//!
//! A percentile of few requests is itself uncertain, and the line lies that much higher: at the percentile that the
//! baseline's is at most, but for chance. Bounds of histograms are coarse; the same bounds are used on both sides.

use std::time::Duration;

use plimsoll_trace::{EngineFigures, Histogram, Stamp};
use serde_json::{Value, json};

use super::{Finding, Guard, Streak};

/// A baseline reaches over this much time at least.
pub const MIN_BASELINE: Duration = Duration::from_secs(60);
/// And over so many requests; so does each window after the change.
pub const MIN_REQUESTS: f64 = 30.0;
/// More requests make no better baseline, only an older one.
const ENOUGH_REQUESTS: f64 = 200.0;
/// A window after the change is no shorter.
const SHORTEST_WINDOW_SECS: f64 = 2.0;
/// Requests arrive at a comparable rate if it differs by no more than this part of itself, and by chance.
const COMPARABLE: f64 = 0.3;
/// Chance explains what happens more often than once in 10,000 times: e^-9.2.
const CHANCE: f64 = 9.2;
/// Requests that are lost may be this many more, as a share of all.
const MORE_LOST: f64 = 0.02;
/// Fewer requests say nothing about how many are lost.
const FEWEST_FOR_LOSSES: f64 = 10.0;

/// What happened between two readings of an engine's metrics.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    secs: f64,
    /// Requests whose latency is known.
    requests: f64,
    arrivals_per_sec: f64,
    ttft: Option<Histogram>,
    tpot: Option<Histogram>,
    /// Requests that failed or were turned away, and all whose end is known.
    lost: Option<(f64, f64)>,
}

impl Window {
    /// `None` when the engine was started anew in between.
    fn between(then: &EngineFigures, now: &EngineFigures) -> Option<Self> {
        let secs = now.at.since(then.at).as_secs_f64();
        if secs <= 0.0 || now.restarted_since(then) {
            return None;
        }
        let since = |now: &Option<Histogram>, then: &Option<Histogram>| now.as_ref()?.since(then.as_ref()?);
        let more = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| now - then);
        let (ttft, tpot) = (since(&now.ttft, &then.ttft), since(&now.tpot, &then.tpot));
        let requests = ttft.as_ref().or(tpot.as_ref()).map_or(0.0, Histogram::count);
        let refused = more(now.refused, then.refused).unwrap_or(0.0);
        // What came is what was begun, what was turned away, and what stands in the queue since.
        let queued = more(now.waiting, then.waiting).unwrap_or(0.0);
        let lost = more(now.finished, then.finished).map(|finished| {
            let failed = more(now.failed, then.failed).unwrap_or(0.0);
            (failed + refused, finished + refused)
        });
        Some(Self {
            secs,
            requests,
            arrivals_per_sec: ((requests + refused + queued) / secs).max(0.0),
            ttft,
            tpot,
            lost,
        })
    }
}

/// How an engine served before a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline(Window);

/// Why there is no baseline.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// The metrics were not read, or the engine was only just started or changed.
    TooShort {
        /// What there is, seconds.
        secs: f64,
    },
    /// There were too few requests.
    TooFew {
        /// So many.
        requests: f64,
    },
}

impl Missing {
    /// Why, part of a sentence.
    #[must_use]
    pub fn said(&self) -> String {
        match self {
            Self::TooShort { secs } => format!(
                "its latencies are known for {secs:.0} s only, {} s are needed",
                MIN_BASELINE.as_secs()
            ),
            Self::TooFew { requests } => {
                format!("there were {requests:.0} requests only, {MIN_REQUESTS} are needed")
            }
        }
    }
}

impl Baseline {
    /// The baseline that readings give, which are in their order and not from before the engine's last change. The newest
    /// minute counts, or more where that has few requests.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(figures: &[EngineFigures]) -> Result<Self, Missing> {
        let mut best = Err(Missing::TooShort { secs: 0.0 });
        let Some((newest, earlier)) = figures.split_last() else {
            return best;
        };
        for then in earlier.iter().rev() {
            let Some(window) = Window::between(then, newest) else {
                break;
            };
            let (secs, requests) = (window.secs, window.requests);
            best = if secs < MIN_BASELINE.as_secs_f64() {
                Err(Missing::TooShort { secs })
            } else if requests < MIN_REQUESTS {
                Err(Missing::TooFew { requests })
            } else {
                Ok(Self(window))
            };
            if best.is_ok() && requests >= ENOUGH_REQUESTS {
                break;
            }
        }
        best
    }

    /// Requests a second.
    #[must_use]
    pub const fn arrivals_per_sec(&self) -> f64 {
        self.0.arrivals_per_sec
    }

    /// Its numbers.
    #[must_use]
    pub fn numbers(&self) -> Value {
        numbers(&self.0)
    }
}

fn numbers(window: &Window) -> Value {
    let p95 = |histogram: &Option<Histogram>| histogram.as_ref().and_then(|it| it.quantile(0.95));
    json!({
        "secs": window.secs,
        "requests": window.requests,
        "arrivals_per_sec": window.arrivals_per_sec,
        "ttft_p95_secs": p95(&window.ttft),
        "tpot_p95_secs": p95(&window.tpot),
        "lost": window.lost.map(|(lost, _)| lost),
    })
}

/// Holds what comes after a change against what was before. Shown the engine's metrics in their order.
#[derive(Clone, Debug)]
pub struct LatencyJudge {
    baseline: Baseline,
    max: f64,
    /// What comes before is not judged.
    from: Stamp,
    /// Since the engine was warm, and since the last window that was judged.
    first: Option<EngineFigures>,
    last: Option<EngineFigures>,
    fails: Streak,
    passes: Streak,
    latency: Option<Finding>,
    /// Of the requests that were lost.
    losses: Streak,
    errors: Option<Finding>,
    numbers: Value,
    compared: Option<bool>,
    lost: Option<(f64, f64)>,
}

impl LatencyJudge {
    /// Judges what comes after `from`; p95 latencies may rise by `max`, as a share of what they were.
    #[must_use]
    pub fn new(baseline: Baseline, max: f64, from: Stamp) -> Self {
        Self {
            baseline,
            max,
            from,
            first: None,
            last: None,
            fails: Streak::default(),
            passes: Streak::default(),
            latency: None,
            losses: Streak::default(),
            errors: None,
            numbers: json!({}),
            compared: None,
            lost: None,
        }
    }

    /// The next reading. Answers whether the judge needs no further ones.
    pub fn add(&mut self, figures: &EngineFigures) -> bool {
        if figures.at.mono_ns < self.from.mono_ns || self.is_done() {
            return self.is_done();
        }
        let (Some(first), Some(last)) = (&self.first, &self.last) else {
            (self.first, self.last) = (Some(figures.clone()), Some(figures.clone()));
            return false;
        };
        let (Some(all), Some(newest)) = (Window::between(first, figures), Window::between(last, figures))
        else {
            // Out of order, or started anew: from here on.
            if figures.restarted_since(last) {
                (self.first, self.last) = (Some(figures.clone()), Some(figures.clone()));
            }
            return false;
        };
        if newest.secs < SHORTEST_WINDOW_SECS {
            return false;
        }
        self.judge_losses(&all);
        if newest.requests < MIN_REQUESTS {
            return self.is_done();
        }
        self.last = Some(figures.clone());
        let comparable = self.comparable(&newest);
        self.compared = Some(comparable);
        self.numbers = numbers(&all);
        if !comparable {
            self.fails.add(Finding::Inconclusive);
            self.passes.add(Finding::Inconclusive);
            return self.is_done();
        }
        // Whether it is worse shows in all that came since; whether it is well, in each window by itself.
        let worse = match self.finding(&all) {
            Finding::Fail => Finding::Fail,
            _ => Finding::Inconclusive,
        };
        let failed = self.fails.add(worse);
        let passed = self.passes.add(self.finding(&newest));
        self.latency = failed.or(passed);
        self.is_done()
    }

    /// Whether it needs no further reading.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.latency == Some(Finding::Fail)
            || self.errors == Some(Finding::Fail)
            || (self.latency == Some(Finding::Pass) && self.errors != Some(Finding::Inconclusive))
    }

    /// What it came to: latencies, and requests that were lost.
    #[must_use]
    pub fn guards(&self) -> [Guard; 2] {
        let most = self.max * 100.0;
        let numbers =
            json!({ "before": self.baseline.numbers(), "after": self.numbers, "latency_max": self.max });
        let latency = match (self.latency, self.compared) {
            (Some(Finding::Pass), _) => Guard::new(
                "latency",
                Finding::Pass,
                format!("its latencies are not more than {most:.0} % above what they were"),
            ),
            (Some(Finding::Fail), _) => Guard::new(
                "latency",
                Finding::Fail,
                format!("its 95th percentile of latency rose by more than {most:.0} % at comparable load"),
            ),
            (_, Some(false)) => Guard::new(
                "latency",
                Finding::Inconclusive,
                "the load is another one than before, so latencies cannot be compared",
            ),
            _ => Guard::new(
                "latency",
                Finding::Inconclusive,
                "too few requests came to compare latencies",
            ),
        };
        let lost = self
            .lost
            .map(|(lost, all)| json!({ "lost": lost, "requests": all }));
        let errors = match self.errors {
            Some(Finding::Fail) => Guard::new("errors", Finding::Fail, "it loses more requests than before"),
            Some(Finding::Pass) => {
                Guard::new("errors", Finding::Pass, "it loses no more requests than before")
            }
            _ => Guard::unable("errors", "too few requests came to compare how many are lost"),
        };
        [latency.with(numbers), errors.with(json!({ "after": lost }))]
    }

    fn comparable(&self, window: &Window) -> bool {
        let before = self.baseline.0.arrivals_per_sec;
        let by_chance = 3.0 * (before / window.secs).sqrt();
        (window.arrivals_per_sec - before).abs() <= COMPARABLE * before + by_chance
    }

    fn finding(&self, window: &Window) -> Finding {
        let before = &self.baseline.0;
        let pairs = [(&before.ttft, &window.ttft), (&before.tpot, &window.tpot)];
        let known = pairs
            .into_iter()
            .filter_map(|(before, after)| before.as_ref().zip(after.as_ref()));
        let findings: Vec<Finding> = known
            .filter(|(before, after)| before.count() >= MIN_REQUESTS && after.count() >= MIN_REQUESTS)
            .filter_map(|(before, after)| slower(before, after, self.max))
            .collect();
        if findings.contains(&Finding::Fail) {
            Finding::Fail
        } else if findings.is_empty() || findings.contains(&Finding::Inconclusive) {
            Finding::Inconclusive
        } else {
            Finding::Pass
        }
    }

    fn judge_losses(&mut self, window: &Window) {
        let Some((lost, all)) = window.lost.filter(|(_, all)| *all >= FEWEST_FOR_LOSSES) else {
            return;
        };
        self.lost = Some((lost, all));
        // As many as chance may have hidden before.
        let usual = self
            .baseline
            .0
            .lost
            .filter(|(_, all)| *all > 0.0)
            .map_or(0.0, |(lost, all)| (lost + 2.0 * (lost + 1.0).sqrt()) / all);
        let allowed = (usual + MORE_LOST).min(1.0);
        let finding = if beyond_chance(lost, all, allowed) {
            Finding::Fail
        } else if lost <= allowed * all {
            Finding::Pass
        } else {
            Finding::Inconclusive
        };
        self.errors = self.losses.add(finding).or(Some(Finding::Inconclusive));
    }
}

/// Whether one latency rose by more than `max`.
fn slower(before: &Histogram, after: &Histogram, max: f64) -> Option<Finding> {
    let requests = before.count();
    let uncertain = 1.5 * (0.95 * 0.05 / requests).sqrt();
    let at_most = (0.95 + uncertain).min(1.0 - 0.5 / requests);
    let line = before.quantile(at_most)? * (1.0 + max);
    if beyond_chance(after.above(line), after.count(), 0.05) {
        Some(Finding::Fail)
    } else if after.quantile(0.95)? <= line {
        Some(Finding::Pass)
    } else {
        Some(Finding::Inconclusive)
    }
}

/// Whether `hits` of `all` are more than chance explains where each is one with probability `share`: by Chernoff's bound,
/// which is e^(-n D) with the relative entropy D of the two shares.
fn beyond_chance(hits: f64, all: f64, share: f64) -> bool {
    let seen = (hits / all).clamp(0.0, 1.0);
    if all <= 0.0 || seen <= share || share <= 0.0 || share >= 1.0 {
        return all > 0.0 && hits > 0.0 && share <= 0.0;
    }
    let part = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    all * (part(seen, share) + part(1.0 - seen, 1.0 - share)) > CHANCE
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
