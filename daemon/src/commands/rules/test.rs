//! `plimsoll rules test`: the tests of a file, tried out one by one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll_trace::signal;
use plimsoll_trace::units::{Period, Size, show_duration};
use plimsoll_tuner::trial::{Ending, Trial, notation};
use plimsoll_tuner::{Ladder, Phase};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Outcome, print, print_json};
use crate::config::{ladders, ladders_of};
use crate::failure::Failure;

/// What a file of tests has beside rules.
#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    test: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a test: [[test]]")]
struct Test {
    name: String,
    /// Whose rules, where the file has those of several engines.
    engine: Option<String>,
    #[serde(default = "second")]
    step: Period,
    /// What the device can give to processes.
    usable: Option<Size>,
    series: BTreeMap<String, String>,
    /// Readings as they stand, whatever rungs are taken.
    #[serde(default)]
    fixed: bool,
    #[serde(default)]
    frees: BTreeMap<String, Size>,
    #[serde(default)]
    ends: BTreeMap<String, End>,
    expect: Vec<Expected>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    RolledBack,
    Refused,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "what is expected: { at, states, decisions }"
)]
struct Expected {
    at: Period,
    #[serde(default)]
    states: BTreeMap<String, String>,
    /// All decisions since the expectation before, in order.
    decisions: Option<Vec<String>>,
}

const fn second() -> Period {
    Period(Duration::from_secs(1))
}

/// Something that is not as expected.
struct Failing {
    at: Duration,
    /// What it is about: a rule, or the decisions.
    of: String,
    expected: String,
    found: String,
    /// Why, for people.
    because: Vec<String>,
}

pub(super) fn run(path: &Path, rules: Option<&Path>, as_json: bool) -> Outcome {
    let unreadable = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    let ladders = match rules {
        Some(rules) => ladders_of(rules)?,
        None => ladders(&text, path)?,
    };
    let file: File = toml_edit::de::from_str(&text).map_err(|error| unreadable(&error))?;
    if file.test.is_empty() {
        return Err(unreadable(&"it has no [[test]]"));
    }
    // All are read before any is run: a file that is not valid is said to be that.
    let trials = file.test.iter().map(|test| trial(test, &ladders));
    let trials: Vec<Trial> = trials
        .collect::<Result<_, String>>()
        .map_err(|error| unreadable(&error))?;
    let results: Vec<(&Test, Vec<Failing>)> = file
        .test
        .iter()
        .zip(trials)
        .map(|(test, trial)| (test, failing(test, trial)))
        .collect();
    let failed = results.iter().filter(|(_, failing)| !failing.is_empty()).count();
    if as_json {
        let tests: Vec<Value> = results
            .iter()
            .map(|(test, failing)| to_json(test, failing))
            .collect();
        print_json(&json!({ "version": 1, "tests": tests, "failed": failed }))?;
    } else {
        let texts: Vec<String> = results
            .iter()
            .map(|(test, failing)| told(test, failing))
            .collect();
        let passed = results.len() - failed;
        print(&format!("{}{passed} passed, {failed} failed\n", texts.concat()))?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The test as a trial, or what is wrong with it.
fn trial(test: &Test, ladders: &[Ladder]) -> Result<Trial, String> {
    let wrong = |problem: String| format!("test '{}': {problem}", test.name);
    let with_rules: Vec<&Ladder> = ladders.iter().filter(|ladder| !ladder.rules.is_empty()).collect();
    let ladder = match (&test.engine, with_rules.as_slice()) {
        (Some(engine), all) => all.iter().find(|ladder| ladder.engine == *engine).copied(),
        (None, [one]) => Some(*one),
        (None, _) => None,
    };
    let ladder = ladder.ok_or_else(|| {
        let names: Vec<&str> = with_rules.iter().map(|ladder| ladder.engine.as_str()).collect();
        wrong(format!(
            "say whose rules with engine = \"NAME\"; there are rules for: {}",
            names.join(", ")
        ))
    })?;
    if test.step.0.is_zero() {
        return Err(wrong("step must be above 0".to_owned()));
    }
    let mut series = BTreeMap::new();
    for (name, text) in &test.series {
        let found =
            signal::find(name).ok_or_else(|| wrong(format!("series: there is no signal '{name}'")))?;
        let parts = notation::parse(text, found.unit).map_err(|error| wrong(format!("{name}: {error}")))?;
        series.insert(name.clone(), parts);
    }
    let known = |rule: &String| match ladder.rule(rule) {
        Some(_) => Ok(()),
        None => Err(wrong(format!("{} has no rule '{rule}'", ladder.engine))),
    };
    test.frees.keys().chain(test.ends.keys()).try_for_each(known)?;
    let mut before = None;
    for expected in &test.expect {
        expected.states.keys().try_for_each(known)?;
        let phases = Phase::ALL.map(Phase::as_str);
        if let Some(state) = expected
            .states
            .values()
            .find(|state| !phases.contains(&state.as_str()))
        {
            return Err(wrong(format!(
                "there is no state '{state}'; there are: {}",
                phases.join(", ")
            )));
        }
        if before.is_some_and(|before| expected.at.0 < before) {
            return Err(wrong(format!(
                "expectations come in order of time, and {} is before the last",
                show_duration(expected.at.0)
            )));
        }
        before = Some(expected.at.0);
    }
    if before.is_none() {
        return Err(wrong("it expects nothing".to_owned()));
    }
    let bytes = |size: &Size| i64::try_from(size.0).unwrap_or(i64::MAX);
    Ok(Trial {
        ladder: ladder.clone(),
        step: test.step.0,
        usable_bytes: test.usable.map(|Size(bytes)| bytes),
        series,
        fixed: test.fixed,
        frees: test
            .frees
            .iter()
            .map(|(rule, size)| (rule.clone(), bytes(size)))
            .collect(),
        ends: test
            .ends
            .iter()
            .map(|(rule, end)| (rule.clone(), end.ending()))
            .collect(),
    })
}

impl End {
    const fn ending(self) -> Ending {
        match self {
            Self::RolledBack => Ending::RolledBack,
            Self::Refused => Ending::Refused,
        }
    }
}

fn failing(test: &Test, trial: Trial) -> Vec<Failing> {
    let mut run = trial.begin();
    let mut failing = Vec::new();
    for expected in &test.expect {
        let at = expected.at.0;
        run.until(at);
        let (stands, decided) = (run.stands(), run.decided());
        for (rule, state) in &expected.states {
            let Some(found) = stands.iter().find(|stands| stands.rule == *rule) else {
                continue;
            };
            if found.phase.as_str() != state {
                let clauses = found.clauses.iter().map(|clause| clause.text.clone());
                let blocks = found.blocks.iter().map(|block| block.text.clone());
                failing.push(Failing {
                    at,
                    of: rule.clone(),
                    expected: state.clone(),
                    found: found.phase.as_str().to_owned(),
                    because: clauses.chain(blocks).collect(),
                });
            }
        }
        if let Some(wanted) = expected.decisions.as_ref().filter(|wanted| **wanted != decided) {
            let list = |decisions: &[String]| match decisions {
                [] => "none".to_owned(),
                all => all.join(", "),
            };
            failing.push(Failing {
                at,
                of: "decisions".to_owned(),
                expected: list(wanted),
                found: list(&decided),
                because: Vec::new(),
            });
        }
    }
    failing
}

fn told(test: &Test, failing: &[Failing]) -> String {
    if failing.is_empty() {
        return format!("ok    {}\n", test.name);
    }
    let mut text = format!("FAIL  {}\n", test.name);
    for one in failing {
        text += &format!("  at {}\n", show_duration(one.at));
        text += &format!("    - {}: {}\n", one.of, one.expected);
        text += &format!("    + {}: {}\n", one.of, one.found);
        for line in &one.because {
            text += &format!("      {line}\n");
        }
    }
    text
}

fn to_json(test: &Test, failing: &[Failing]) -> Value {
    let list = failing.iter().map(|one| {
        json!({
            "at_secs": one.at.as_secs_f64(),
            "of": one.of,
            "expected": one.expected,
            "found": one.found,
            "because": one.because,
        })
    });
    json!({
        "name": test.name,
        "passed": failing.is_empty(),
        "failures": list.collect::<Vec<_>>(),
    })
}
