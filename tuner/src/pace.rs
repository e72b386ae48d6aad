//! How soon a line could be crossed, by how fast values were seen to move: for how often they are to be read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use plimsoll_trace::Stamp;
use plimsoll_trace::signal::{self, Source};

use crate::condition::Clause;
use crate::projection::FULL_IN_SECS;
use crate::rule::Rule;
use crate::signals::{Probe, Reading, Readings};

/// A speed that was seen is expected again for so long.
const EXPECTED_FOR: Duration = Duration::from_secs(60);

/// Speeds are measured over so long at least.
const MOVES_WITHIN: Duration = Duration::from_secs(1);

/// How fast the values moved that an engine's rules look at.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<Probe, Seen>);

#[derive(Debug)]
struct Seen {
    /// The readings of the last second, and the newest before them; oldest first.
    lately: VecDeque<Reading>,
    /// The fastest rise and the fastest fall, a second, and when each was seen.
    rise: (f64, Stamp),
    fall: (f64, Stamp),
}

impl Pace {
    /// Takes note of what is seen now. Answers how long the nearest of the lines that these rules wait for takes to be
    /// crossed at least, if values move as fast as they did lately. `None`: none of them moves towards one.
    pub(crate) fn soonest<'a>(
        &mut self,
        rules: impl Iterator<Item = &'a Rule>,
        readings: &Readings,
        now: Stamp,
    ) -> Option<Duration> {
        let mut soonest = f64::INFINITY;
        for clause in rules.flat_map(|rule| rule.when.clauses()).filter(is_sampled) {
            let Some(reading) = readings.get(&clause.probe) else {
                self.0.remove(&clause.probe);
                continue;
            };
            let seen = match self.0.get_mut(&clause.probe) {
                Some(seen) => seen,
                None => self.0.entry(clause.probe.clone()).or_insert(Seen {
                    lately: VecDeque::new(),
                    rise: (0.0, now),
                    fall: (0.0, now),
                }),
            };
            seen.take(reading, now);
            let (line, speed) = (next_line(clause, reading.value), seen.towards(clause));
            if let Some(line) = line.filter(|_| speed > 0.0) {
                soonest = soonest.min((line - reading.value).abs() / speed);
            }
        }
        Duration::try_from_secs_f64(soonest).ok()
    }
}

impl Seen {
    fn take(&mut self, reading: Reading, now: Stamp) {
        if self
            .lately
            .back()
            .is_some_and(|last| last.at.mono_ns >= reading.at.mono_ns)
        {
            return;
        }
        while self
            .lately
            .get(1)
            .is_some_and(|next| reading.at.since(next.at) >= MOVES_WITHIN)
        {
            self.lately.pop_front();
        }
        // A jump between two samples that lie close together is no faster than one within a second.
        let speed = |before: &Reading| {
            (reading.value - before.value) / reading.at.since(before.at).max(MOVES_WITHIN).as_secs_f64()
        };
        let rise = self.lately.iter().map(speed).fold(0.0, f64::max);
        let fall = self.lately.iter().map(speed).fold(0.0, f64::min);
        self.lately.push_back(reading);
        for (fastest, speed) in [(&mut self.rise, rise), (&mut self.fall, -fall)] {
            if speed >= fastest.0 || now.since(fastest.1) > EXPECTED_FOR {
                *fastest = (speed, now);
            }
        }
    }

    fn towards(&self, clause: &Clause) -> f64 {
        if clause.is_under() {
            self.fall.0
        } else {
            self.rise.0
        }
    }
}

/// Whether the clause sees more when samples are taken more often. A forecast jumps; what it is made of does not.
fn is_sampled(clause: &&Clause) -> bool {
    let source = signal::find(&clause.probe.signal).map(|signal| signal.source);
    let name = &*clause.probe.signal;
    name != FULL_IN_SECS && matches!(source, Some(Source::Device | Source::Run | Source::Host))
}

/// The line that is crossed next: `enter`, and beyond it the emergency line, if there is one.
fn next_line(clause: &Clause, value: f64) -> Option<f64> {
    if clause.entered(value) {
        clause.emergency.filter(|_| !clause.is_emergency(value))
    } else {
        Some(clause.enter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests::rule;

    /// How soon, in milliseconds, after each of these values, a second apart.
    fn soonest(lines: &str, values: &[f64]) -> Vec<Option<u128>> {
        soonest_every(1_000, lines, values)
    }

    fn soonest_every(ms: i64, lines: &str, values: &[f64]) -> Vec<Option<u128>> {
        let rule = rule(&format!(
            "name='a'\nengine='e'\nset={{a=1}}\nwhen={{signal='vram.used_bytes',{lines}}}"
        ))
        .unwrap();
        let mut pace = Pace::default();
        let each = |(step, value): (i64, &f64)| {
            let now = Stamp::at_secs(0).before(-step * ms * 1_000_000);
            let mut readings = Readings::unknown(Duration::from_secs(10));
            let reading = Reading {
                value: *value,
                at: now,
            };
            readings.insert(rule.when.clauses()[0].probe.clone(), reading);
            let soonest = pace.soonest(std::iter::once(&rule), &readings, now);
            soonest.map(|soonest| soonest.as_millis())
        };
        (0..).zip(values).map(each).collect()
    }

    #[test]
    fn the_fastest_rise_of_late_counts() {
        let soon = soonest("enter=100,exit=50", &[10.0, 10.0, 20.0, 22.0, 12.0, 95.0, 100.0]);
        assert_eq!(
            soon,
            [None, None, Some(8_000), Some(7_800), Some(8_800), Some(60), None],
            "nothing is waited for beyond the line"
        );
        let still: Vec<f64> = [10.0, 20.0].into_iter().chain([20.0; 70]).collect();
        let soon = soonest("enter=100,exit=50", &still);
        assert_eq!(
            (soon[60], soon[70]),
            (Some(8_000), None),
            "forgotten after a minute"
        );
    }

    #[test]
    fn a_jump_is_no_faster_for_being_seen_sooner_and_a_steady_rise_no_slower() {
        let soon = soonest_every(100, "enter=100,exit=50", &[10.0, 10.0, 60.0, 60.0]);
        assert_eq!(soon, [None, None, Some(800), Some(800)]);
        let rise: Vec<f64> = (0..30).map(f64::from).collect();
        let soon = soonest_every(100, "enter=100,exit=50", &rise);
        assert_eq!(soon[20], Some(8_000), "ten a second");
    }

    #[test]
    fn low_lines_are_crossed_by_falling_and_emergencies_come_next() {
        let soon = soonest("enter=10,exit=50", &[30.0, 40.0, 35.0]);
        assert_eq!(soon, [None, None, Some(5_000)]);
        let soon = soonest("enter=50,exit=10,emergency=90", &[30.0, 40.0, 60.0, 95.0]);
        assert_eq!(soon, [None, Some(1_000), Some(1_500), None]);
    }
}
