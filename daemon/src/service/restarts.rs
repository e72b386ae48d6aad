//! The signal `engine.restarts`: how often another process took an engine's place within the last hour. It is stored like what
//! an engine says of itself, so that a replay sees what the rules saw.

use std::collections::HashMap;
use std::sync::Arc;

use plimsoll_trace::{EngineSample, Record, RunId, Stamp};

const SIGNAL: &str = "engine.restarts";
const HOUR_NS: i64 = 3_600_000_000_000;
/// What has not changed is said again this often; the signal would be unknown otherwise.
const AGAIN_NS: i64 = 5_000_000_000;

/// When engines' processes were replaced.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    engines: HashMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When, ns since the Unix epoch; the first start of an engine is none.
    at_ns: Vec<i64>,
    /// What was said last, and when.
    said: Option<(RunId, usize, i64)>,
}

impl Restarts {
    /// From what is stored: each start of an engine's run within the hour that had one before it, and each engine that ever ran
    /// with a time long ago.
    pub(super) fn new(stored: Vec<(String, i64)>) -> Self {
        let mut restarts = Self::default();
        for (engine, at_ns) in stored {
            restarts.engines.entry(engine).or_default().at_ns.push(at_ns);
        }
        restarts
    }

    /// Takes in what began.
    pub(super) fn follow(&mut self, records: &[Record], at: Stamp) {
        let started = records.iter().filter_map(|record| match record {
            Record::RunStart(start) => start.engine.as_ref(),
            _ => None,
        });
        for engine in started {
            match self.engines.get_mut(engine) {
                Some(seen) => seen.at_ns.push(at.unix_ns),
                None => drop(self.engines.insert(engine.clone(), Seen::default())),
            }
        }
    }

    /// What is to be said now of an engine that runs, if that is anything new or was not said for a while.
    pub(super) fn sample(&mut self, engine: &str, run: RunId, at: Stamp) -> Option<Record> {
        let seen = self.engines.get_mut(engine)?;
        seen.at_ns
            .retain(|then| at.unix_ns.saturating_sub(*then) < HOUR_NS);
        let count = seen.at_ns.len();
        let is_known = seen.said.is_some_and(|(said_of, said, then)| {
            (said_of, said) == (run, count) && at.unix_ns.saturating_sub(then) < AGAIN_NS
        });
        if is_known {
            return None;
        }
        seen.said = Some((run, count, at.unix_ns));
        #[expect(clippy::cast_precision_loss, reason = "a handful within an hour")]
        let value = count as f64;
        let signal = Arc::from(SIGNAL);
        Some(Record::Engine(EngineSample { run, signal, value }))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::{RunStart, TraceTier};

    use super::*;

    fn start(id: i64) -> Record {
        Record::RunStart(RunStart {
            id: RunId(id),
            name: "e".into(),
            engine: Some("e".into()),
            host: "h".into(),
            pid: None,
            process_key: None,
            command: None,
            trace_tier: TraceTier::Off,
        })
    }

    fn value(restarts: &mut Restarts, run: i64, secs: i64) -> Option<f64> {
        match restarts.sample("e", RunId(run), Stamp::at_secs(secs))? {
            Record::Engine(sample) => Some(sample.value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_start_is_none_and_an_hour_later_none_counts() {
        let mut restarts = Restarts::default();
        assert_eq!(value(&mut restarts, 1, 0), None, "an engine that never ran");
        restarts.follow(&[start(1)], Stamp::at_secs(10));
        assert_eq!(value(&mut restarts, 1, 10), Some(0.0));
        assert_eq!(value(&mut restarts, 1, 12), None, "said a moment ago");
        assert_eq!(value(&mut restarts, 1, 15), Some(0.0));
        restarts.follow(&[start(2)], Stamp::at_secs(16));
        restarts.follow(&[start(3)], Stamp::at_secs(17));
        assert_eq!(value(&mut restarts, 3, 17), Some(2.0));
        assert_eq!(value(&mut restarts, 3, 3_616), Some(1.0));
        assert_eq!(value(&mut restarts, 3, 3_617), Some(0.0));
    }

    #[test]
    fn restarts_before_the_daemons_own_count() {
        let at_ns = Stamp::at_secs(100).unix_ns;
        let long_ago_ns = at_ns - 2 * HOUR_NS;
        let mut restarts = Restarts::new(vec![("e".into(), long_ago_ns), ("e".into(), at_ns)]);
        restarts.follow(&[start(7)], Stamp::at_secs(200));
        assert_eq!(value(&mut restarts, 7, 200), Some(2.0));
    }
}
