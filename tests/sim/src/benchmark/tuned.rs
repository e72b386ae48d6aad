//! The tuner itself as a policy: its rules, its evaluation and its memory, fed once a second with what the engine shows.
//! Only what carries a decision out is not the real one: the world changes the rung.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{Batch, DeviceSample, EngineSample, ProcessSample, Record, RunId, Stamp};
use plimsoll_tuner::{EngineView, Ladder, LadderState, Outcome, Signals, Transition, evaluate};

use super::rungs::LadderError;
use super::score::Score;
use super::world::{Reading, Scenario, World};

const DEVICE: &str = "GPU-benchmark";
const RUN: RunId = RunId(1);

/// The whole load under the tuner.
pub(super) fn tuned(scenario: &Arc<Scenario>) -> Result<Score, LadderError> {
    let ladder = scenario.rungs.ladder()?;
    let mut world = World::new(Arc::clone(scenario), 0);
    let mut state = LadderState::default();
    let mut signals = Signals::new(Duration::from_secs(1));
    signals.watch([&ladder]);
    let view = EngineView {
        devices: vec![Arc::from(DEVICE)],
        run: Some(RUN),
    };
    let mut deaths = 0;
    // The rule whose change is being made, and when its condition began to hold, in seconds.
    let mut changing: Option<(String, f64)> = None;
    while !world.is_over() {
        let reading = world.advance(1.0);
        let batch = shown(&reading, scenario.hardware.usable_bytes);
        let now = batch.at;
        signals.update(&batch);
        if reading.oom > deaths {
            deaths = reading.oom;
            state.ran_out_of_memory(now);
        }
        if let Some((rule, since)) = changing.take_if(|_| reading.ready) {
            state.on_outcome(&rule, Outcome::Applied, now);
            state.on_outcome(&rule, Outcome::Kept { effect_bytes: None }, now);
            world.score_mut().reaction_secs.push(reading.at_secs - since);
        }
        let readings = signals.readings(&ladder, &view, now);
        let evaluation = evaluate(&ladder, &state, &readings, now);
        state = evaluation.state;
        for transition in &evaluation.transitions {
            world.change(rung(&ladder, transition));
            let held_secs = transition.detail["held_secs"].as_f64().unwrap_or(0.0);
            changing = Some((transition.rule.clone(), reading.at_secs - held_secs));
        }
    }
    Ok(world.into_score())
}

/// The configuration that a transition leads to: that of the highest rung in force afterwards.
fn rung(ladder: &Ladder, transition: &Transition) -> usize {
    let highest = transition.rungs.last();
    highest
        .and_then(|name| ladder.rules.iter().position(|rule| rule.name == *name))
        .map_or(0, |position| position + 1)
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
            run: Some(RUN),
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
        ("engine.ttft_p95_secs", reading.ttft_p95_secs),
        ("engine.tpot_p95_secs", reading.tpot_p95_secs),
    ] {
        batch.records.extend(value.map(|value| {
            Record::Engine(EngineSample {
                run: RUN,
                signal: Arc::from(signal),
                value,
            })
        }));
    }
    batch
}
