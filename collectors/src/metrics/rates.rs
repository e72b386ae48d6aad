//! What is only known from two readings: rates, and percentiles of the latencies of the last half minute.

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_trace::EngineFigures;

/// Over so much time.
const WINDOW: Duration = Duration::from_secs(30);
/// More readings than this are not kept, however fast they come.
const MOST: usize = 64;

/// The readings of the last while.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<EngineFigures>);

impl Recent {
    /// Takes in a reading, and answers with the signals that it gives.
    pub(super) fn take(&mut self, figures: &EngineFigures) -> Vec<(&'static str, f64)> {
        if self.0.back().is_some_and(|last| figures.restarted_since(last)) {
            self.0.clear();
        }
        self.0
            .retain(|then| figures.at.since(then.at) <= WINDOW && then.at.mono_ns < figures.at.mono_ns);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        let values = [
            ("engine.kv_used_ratio", figures.kv_used_ratio),
            ("engine.requests_running", figures.running),
            ("engine.requests_waiting", figures.waiting),
        ];
        let oldest = self.0.front();
        let since = oldest.map(|then| differences(then, figures)).unwrap_or_default();
        self.0.push_back(figures.clone());
        let known = values.into_iter().chain(since);
        known
            .filter_map(|(name, value)| Some((name, value.filter(|value| value.is_finite())?)))
            .collect()
    }
}

/// Unknown where nothing happened that could be measured: an engine without requests has no latency.
fn differences(then: &EngineFigures, now: &EngineFigures) -> [(&'static str, Option<f64>); 4] {
    let secs = now.at.since(then.at).as_secs_f64();
    let more = |pick: fn(&EngineFigures) -> Option<f64>| {
        pick(now)
            .zip(pick(then))
            .map(|(now, then)| now - then)
            .filter(|more| *more >= 0.0)
    };
    let p95 = |pick: fn(&EngineFigures) -> Option<&plimsoll_trace::Histogram>| {
        pick(now)?.since(pick(then)?)?.quantile(0.95)
    };
    let refused = more(|figures| figures.refused);
    let refused_ratio = refused
        .zip(more(|figures| figures.finished))
        .filter(|(refused, finished)| refused + finished > 0.0)
        .map(|(refused, finished)| refused / (refused + finished));
    [
        (
            "engine.preemptions_per_sec",
            more(|figures| figures.preemptions)
                .filter(|_| secs > 0.0)
                .map(|more| more / secs),
        ),
        ("engine.refused_ratio", refused_ratio),
        ("engine.ttft_p95_secs", p95(|figures| figures.ttft.as_ref())),
        ("engine.tpot_p95_secs", p95(|figures| figures.tpot.as_ref())),
    ]
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::{Histogram, Stamp};

    use super::*;

    fn at(secs: i64, preemptions: f64, requests: f64) -> EngineFigures {
        EngineFigures {
            at: Stamp::at_secs(secs),
            preemptions: Some(preemptions),
            ttft: Histogram::new(vec![(1.0, 0.0), (2.0, requests), (f64::INFINITY, requests)]),
            ..EngineFigures::default()
        }
    }

    fn value(signals: &[(&str, f64)], name: &str) -> Option<f64> {
        signals
            .iter()
            .find(|(signal, _)| *signal == name)
            .map(|(_, value)| *value)
    }

    #[test]
    fn rates_need_two_readings_and_latencies_a_request() {
        let mut recent = Recent::default();
        assert_eq!(recent.take(&at(0, 5.0, 7.0)), []);
        let signals = recent.take(&at(10, 6.0, 7.0));
        assert_eq!(value(&signals, "engine.preemptions_per_sec"), Some(0.1));
        assert_eq!(value(&signals, "engine.ttft_p95_secs"), None, "no request came");
        let signals = recent.take(&at(20, 6.0, 27.0));
        assert_eq!(value(&signals, "engine.ttft_p95_secs"), Some(1.95));
        // Started anew.
        assert_eq!(recent.take(&at(21, 0.0, 1.0)), []);
        // What is older than the window does not count.
        let signals = recent.take(&at(100, 90.0, 2.0));
        assert_eq!(value(&signals, "engine.preemptions_per_sec"), None);
    }
}
