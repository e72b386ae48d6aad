//! The tuner itself as a policy: its rules, its evaluation and its memory, fed with what the engine shows.

use std::sync::Arc;

use plimsoll_trace::{Batch, DeviceSample, EngineSample, Record, RunId, Stamp, Verdict};
use plimsoll_tuner::{EngineView, Ladder, LadderState, Outcome, RuleConfig, Signals, evaluate};
use serde::Deserialize;

use super::score::Score;
use super::world::{Reading, Scenario, World};

const DEVICE: &str = "GPU-sim";

#[derive(Deserialize)]
struct Written {
    rule: Vec<RuleConfig>,
}

/// A ladder from TOML.
pub fn ladder(text: &str) -> Ladder {
    let written: Written = toml_edit::de::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let rules = written
        .rule
        .into_iter()
        .map(|rule| rule.resolve(plimsoll_tuner::rule::Cost::Restart).unwrap())
        .collect();
    Ladder::new("engine", rules).unwrap()
}

fn batch(reading: &Reading, scenario: &Scenario) -> Batch {
    let at = Stamp::at_secs(0).plus(std::time::Duration::from_secs_f64(reading.at_secs));
    let mut batch = Batch::new(at);
    let mut device = DeviceSample::unknown(Arc::from(DEVICE));
    device.total_bytes = Some(scenario.hardware.usable_bytes);
    device.reserved_bytes = Some(0);
    device.used_bytes = Some(reading.used_bytes);
    device.free_bytes = Some(scenario.hardware.usable_bytes.saturating_sub(reading.used_bytes));
    batch.records.push(Record::Device(device));
    let mut engine = |signal: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|_| reading.ready) {
            batch.records.push(Record::Engine(EngineSample { run: RunId(1), signal: Arc::from(signal), value }));
        }
    };
    engine("engine.kv_used_ratio", reading.kv_used_ratio);
    engine("engine.requests_running", Some(reading.running as f64));
    engine("engine.requests_waiting", Some(reading.waiting as f64));
    engine("engine.refused_ratio", reading.refused_ratio);
    engine("engine.preemptions_per_sec", Some(reading.preemptions_per_sec));
    engine("engine.ttft_p95_secs", reading.ttft_p95_secs);
    engine("engine.tpot_p95_secs", reading.tpot_p95_secs);
    batch
}

/// Runs the tuner over a scenario.
pub fn tuned(scenario: &Arc<Scenario>, ladder: &Ladder, start: usize, trace: bool) -> Score {
    let mut world = World::new(Arc::clone(scenario), 0);
    if start > 0 { world.change(start); }
    let mut state = LadderState::default();
    let mut signals = Signals::new(std::time::Duration::from_secs(1));
    signals.watch([ladder]);
    let view = EngineView { devices: vec![Arc::from(DEVICE)], run: Some(RunId(1)) };
    let mut acting: Option<(String, usize)> = None;
    while !world.is_over() {
        let reading = world.advance(1.0);
        let batch = batch(&reading, scenario);
        signals.update(&batch);
        let now = batch.at;
        if let Some((rule, _)) = &acting {
            if !(reading.ready && world.is_up()) {
                continue;
            }
            state.on_outcome(rule, Outcome::Applied, now);
            state.on_outcome(rule, Outcome::Kept { effect_bytes: None }, now);
            acting = None;
        }
        let readings = signals.readings(ladder, &view, now);
        let evaluation = evaluate(ladder, &state, &readings, now);
        state = evaluation.state;
        for transition in evaluation.transitions {
            let rung = transition
                .rungs
                .last()
                .and_then(|name| ladder.rules.iter().position(|rule| &rule.name == name))
                .map_or(0, |position| position + 1);
            if trace {
                println!("    {:6.0} {:?} -> {rung}: {}", reading.at_secs, transition.verdict, transition.explanation);
            }
            let _ = Verdict::Apply;
            world.change(rung);
            acting = Some((transition.rule.clone(), rung));
        }
    }
    world.score().clone()
}
