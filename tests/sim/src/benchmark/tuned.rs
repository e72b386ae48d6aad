//! The tuner itself as a policy: its rules, its evaluation and its memory, fed once a second with what the engine shows.
//! Only what carries a decision out is not the real one: the world changes the rung.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{Batch, DeviceSample, EngineSample, ProcessSample, Record, RunId, Stamp, Verdict};
use plimsoll_tuner::{EngineView, Ladder, LadderState, Outcome, Rule, Signals, Transition, evaluate};

use super::rungs::LadderError;
use super::score::Score;
use super::world::{Reading, Scenario, World};

const DEVICE: &str = "GPU-benchmark";

/// The whole load under the tuner.
pub(super) fn tuned(scenario: &Arc<Scenario>) -> Result<Score, LadderError> {
    let ladder = scenario.rungs.ladder()?;
    let mut world = World::new(Arc::clone(scenario), 0);
    let mut state = LadderState::default();
    let mut signals = Signals::new(Duration::from_secs(1));
    signals.watch([&ladder]);
    let mut view = EngineView {
        devices: vec![Arc::from(DEVICE)],
        run: None,
    };
    let mut deaths = 0;
    let mut alarms = Alarms::default();
    // The rule whose change is being made, and when its condition began to hold, in seconds.
    let mut changing: Option<(String, f64)> = None;
    while !world.is_over() {
        let reading = world.advance(1.0);
        let batch = shown(&reading, scenario.hardware.usable_bytes);
        let now = batch.at;
        view.run = Some(RunId(reading.life));
        signals.update(&batch);
        if reading.oom > deaths {
            deaths = reading.oom;
            state.ran_out_of_memory(now);
        }
        alarms.see(&reading);
        if let Some((rule, since)) = changing.take_if(|_| reading.ready) {
            kept(&mut state, &rule, now);
            world.score_mut().reaction_secs.push(reading.at_secs - since);
        }
        let readings = signals.readings(&ladder, &view, now);
        let evaluation = evaluate(&ladder, &state, &readings, now);
        state = evaluation.state;
        for transition in &evaluation.transitions {
            let rule = &transition.rule;
            // The limits are no alarm: they come with the first request.
            if transition.verdict == Verdict::Apply
                && ladder.rules.first().is_none_or(|first| first.name != *rule)
            {
                alarms.raised(reading.at_secs);
            }
            if ladder.rule(rule).is_some_and(Rule::only_restarts) {
                world.restart();
            } else {
                world.change(scenario.rungs.all(rungs(&ladder, transition)));
            }
            let held_secs = transition.detail["held_secs"].as_f64().unwrap_or(0.0);
            let since_secs = reading.at_secs - held_secs;
            if transition.detail["cost"] == "hot" && world.is_up() {
                // In force at once.
                kept(&mut state, rule, now);
                world.score_mut().reaction_secs.push(held_secs);
            } else {
                changing = Some((rule.clone(), since_secs));
            }
        }
    }
    world.score_mut().false_alarms = alarms.unfounded();
    Ok(world.into_score())
}

/// Changes against pressure, and whether there was any.
#[derive(Default)]
struct Alarms {
    /// When each was raised, and whether pressure was seen near that time.
    raised: Vec<(f64, bool)>,
    /// When pressure was last seen.
    pressed_secs: Option<f64>,
}

impl Alarms {
    /// Pressure within this time before or after justifies an alarm: twice the horizon of a prediction.
    const NEAR_SECS: f64 = 60.0;
    /// Memory in use from which on there is pressure; so is there when requests are turned away or put off.
    const FULL_RATIO: f64 = 0.95;

    fn see(&mut self, reading: &Reading) {
        let pressed = reading.used_ratio >= Self::FULL_RATIO
            || reading.refused_ratio > 0.0
            || reading.preemptions_per_sec > 0.0;
        if !pressed {
            return;
        }
        self.pressed_secs = Some(reading.at_secs);
        let recent = self.raised.iter_mut().rev();
        recent
            .take_while(|(at, _)| reading.at_secs - *at <= Self::NEAR_SECS)
            .for_each(|(_, founded)| *founded = true);
    }

    fn raised(&mut self, at_secs: f64) {
        let founded = self
            .pressed_secs
            .is_some_and(|pressed| at_secs - pressed <= Self::NEAR_SECS);
        self.raised.push((at_secs, founded));
    }

    fn unfounded(&self) -> usize {
        self.raised.iter().filter(|(_, founded)| !founded).count()
    }
}

fn kept(state: &mut LadderState, rule: &str, now: Stamp) {
    state.on_outcome(rule, Outcome::Applied, now);
    state.on_outcome(rule, Outcome::Kept { effect_bytes: None }, now);
}

/// The rungs that are in force after a transition.
fn rungs<'a>(ladder: &'a Ladder, transition: &'a Transition) -> impl Iterator<Item = usize> + 'a {
    let position = |name: &String| ladder.rules.iter().position(|rule| rule.name == *name);
    transition
        .rungs
        .iter()
        .filter_map(position)
        .map(|position| position + 1)
}

/// What the collectors would deliver.
fn shown(reading: &Reading, usable_bytes: u64) -> Batch {
    let at = Stamp::at_secs(0).plus(Duration::from_secs_f64(reading.at_secs));
    let mut batch = Batch::new(at);
    let device: Arc<str> = Arc::from(DEVICE);
    batch.records.push(Record::Device(DeviceSample {
        total_bytes: Some(usable_bytes),
        reserved_bytes: Some(0),
        used_bytes: Some(reading.used_bytes),
        free_bytes: usable_bytes.checked_sub(reading.used_bytes),
        ..DeviceSample::unknown(Arc::clone(&device))
    }));
    if reading.own_bytes > 0 {
        batch.records.push(Record::Process(ProcessSample {
            device,
            pid: 1,
            run: Some(RunId(reading.life)),
            used_bytes: Some(reading.own_bytes),
            sm_busy_ratio: None,
            process: None,
            container: None,
        }));
    }
    if !reading.ready {
        return batch;
    }
    for (signal, value) in [
        ("engine.kv_used_ratio", reading.kv_used_ratio),
        ("engine.requests_running", Some(reading.running as f64)),
        ("engine.requests_waiting", Some(reading.waiting as f64)),
        ("engine.refused_ratio", Some(reading.refused_ratio)),
        ("engine.preemptions_per_sec", Some(reading.preemptions_per_sec)),
    ] {
        batch.records.extend(value.map(|value| {
            Record::Engine(EngineSample {
                run: RunId(reading.life),
                signal: Arc::from(signal),
                value,
            })
        }));
    }
    batch
}
