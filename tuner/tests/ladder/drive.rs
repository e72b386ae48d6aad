//! A small world for ladders: rules as the daemon reads them, driven one tick per second.

use std::time::Duration;

use plimsoll_trace::{Mode, Stamp};
use plimsoll_tuner::rule::Cost;
use plimsoll_tuner::signals::Reading;
use plimsoll_tuner::{
    Evaluation, Ladder, LadderState, Outcome, Readings, RuleConfig, Transition, evaluate, explain,
};

pub(crate) const GIB: i64 = 1 << 30;
const USABLE: u64 = 24 << 30;

/// A ladder from the rules of a configuration file.
pub(crate) fn ladder(toml: &str) -> Ladder {
    #[derive(serde::Deserialize)]
    struct File {
        rule: Vec<RuleConfig>,
    }
    let file: File = toml_edit::de::from_str(toml).expect("valid TOML");
    let rules = file
        .rule
        .into_iter()
        .map(|rule| rule.resolve(Cost::Reload).expect("a valid rule"));
    Ladder::new("engine", rules.collect()).expect("names differ")
}

/// Checkpointing, then quantizing, as in the manual, but quick.
pub(crate) fn two_rungs() -> Ladder {
    ladder(
        r#"
        [[rule]]
        name = "checkpointing"
        engine = "engine"
        mode = "act"
        when = { signal = "vram.used_ratio", enter = 0.80, exit = 0.65 }
        set = { gradient_checkpointing = true }
        saves = "2GiB"
        for = 0
        hold = "30s"
        calm = "20s"

        [[rule]]
        name = "quantize"
        engine = "engine"
        mode = "act"
        when = { signal = "vram.used_ratio", enter = "92%", exit = "75%" }
        set = { "model.quantization" = "int8" }
        saves = "5GiB"
        for = "10s"
        hold = "60s"
        calm = "30s"
        "#,
    )
}

pub(crate) fn one_rung(mode: &str, extra: &str) -> Ladder {
    ladder(&format!(
        r#"
        [[rule]]
        name = "quantize"
        engine = "engine"
        mode = "{mode}"
        when = {{ signal = "vram.used_ratio", enter = "92%", exit = "75%" }}
        set = {{ "model.quantization" = "int8" }}
        for = "10s"
        hold = "60s"
        calm = "30s"
        {extra}
        "#
    ))
}

/// An engine's ladder as the daemon drives it, one tick per second.
pub(crate) struct Drive {
    pub(crate) ladder: Ladder,
    pub(crate) state: LadderState,
    pub(crate) now: Stamp,
    /// Every transition with the second it came in.
    pub(crate) log: Vec<(i64, String)>,
    pub(crate) withdrawn: Vec<&'static str>,
    pub(crate) last: Option<Readings>,
}

impl Drive {
    pub(crate) fn new(ladder: Ladder) -> Self {
        Self {
            ladder,
            state: LadderState::default(),
            now: Stamp::at_secs(1_000),
            log: Vec::new(),
            withdrawn: Vec::new(),
            last: None,
        }
    }

    /// One tick, a second after the last, in which the first signal of every rule reads `value`.
    pub(crate) fn tick(&mut self, value: Option<f64>) -> Vec<Transition> {
        self.now = self.now.plus(Duration::from_secs(1));
        let readings = readings(&self.ladder, value, self.now);
        let Evaluation {
            state,
            transitions,
            withdrawn,
        } = evaluate(&self.ladder, &self.state, &readings, self.now);
        self.state = state;
        let secs = self.now.mono_ns / 1_000_000_000 - 1_000;
        self.log.extend(
            transitions
                .iter()
                .map(|it| (secs, format!("{} {}", it.verdict, it.rule))),
        );
        self.withdrawn.extend(withdrawn.iter().map(|it| it.explanation));
        self.last = Some(readings);
        transitions
    }

    /// `ticks` ticks with the same value; every transition in mode act works at once and frees what was expected.
    pub(crate) fn run(&mut self, ticks: usize, value: Option<f64>) {
        for _ in 0..ticks {
            for transition in self.tick(value) {
                if transition.mode == Mode::Act {
                    let effect_bytes = transition.expected_effect_bytes;
                    self.state
                        .on_outcome(&transition.rule, Outcome::Kept { effect_bytes }, self.now);
                }
            }
        }
    }

    pub(crate) fn active(&self) -> Vec<&str> {
        self.state
            .active(&self.ladder)
            .map(|rule| rule.name.as_str())
            .collect()
    }

    pub(crate) fn logged(&self) -> Vec<(i64, &str)> {
        self.log.iter().map(|(at, what)| (*at, what.as_str())).collect()
    }

    pub(crate) fn phase(&self) -> &'static str {
        let readings = self.last.as_ref().expect("a tick");
        explain(&self.ladder, &self.state, readings, self.now)[0]
            .phase
            .as_str()
    }

    pub(crate) fn blocks(&self, rule: usize) -> Vec<String> {
        let readings = self.last.as_ref().expect("a tick");
        let explained = explain(&self.ladder, &self.state, readings, self.now);
        explained[rule]
            .blocks
            .iter()
            .map(|block| block.text.clone())
            .collect()
    }
}

/// Readings in which every signal of the ladder has this value.
pub(crate) fn readings(ladder: &Ladder, value: Option<f64>, at: Stamp) -> Readings {
    let mut readings = Readings::unknown(Duration::from_secs(10));
    readings.set_usable_bytes(Some(USABLE));
    for clause in ladder.rules.iter().flat_map(|rule| rule.when.clauses()) {
        if let Some(value) = value {
            readings.insert(clause.probe.clone(), Reading { value, at });
        }
    }
    readings
}
