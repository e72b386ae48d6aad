//! What came out: one JSON object for programs, tables for people.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::score::Score;
use super::suite::{Case, Result, WORTHS, clairvoyant_name};

/// Everything as one object; the same for the same arguments.
#[must_use]
pub fn json(workload: &str, requests: usize, measured: &[(&Case, Vec<Result>)]) -> Value {
    let scenarios: Vec<Value> = measured
        .iter()
        .map(|(case, results)| {
            let policies: Map<String, Value> = results
                .iter()
                .map(|result| (result.policy.clone(), policy(case, &result.score)))
                .collect();
            json!({
                "name": case.name,
                "engine_kind": case.kind.as_str(),
                "size": case.size.as_str(),
                "restart_secs": case.restart_secs(),
                "hours": rounded(case.hours, 2),
                "requests": case.requests,
                "policies": policies,
            })
        })
        .collect();
    json!({ "version": 1, "workload": workload, "requests": requests, "scenarios": scenarios })
}

fn policy(case: &Case, score: &Score) -> Value {
    let of_all = |requests: u64| rounded(requests as f64 / case.requests.max(1) as f64, 6);
    let minutes: Vec<f64> = score
        .rung_secs
        .iter()
        .map(|secs| rounded(secs / 60.0, 2))
        .collect();
    json!({
        "oom": score.oom,
        "good_ratio": of_all(score.good),
        "full_quality_good_ratio": of_all(score.full),
        "restarts_per_hour": score.restarts_per_hour(),
        "flaps": score.flaps,
        "downtime_secs": rounded(score.down_secs, 2),
        "lost_requests": score.lost,
        "rung_minutes": minutes,
        "limits_taken_back": score.limits_taken_back,
        "reaction_secs_max": rounded(score.reaction_secs.iter().copied().fold(0.0, f64::max), 2),
        "false_alarms_per_hour": rounded(score.false_alarms as f64 / case.hours.max(1.0 / 60.0), 3),
    })
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Means over cases, by policy.
struct Means<'a> {
    measured: &'a [(&'a Case, Vec<Result>)],
}

impl Means<'_> {
    fn of(&self, policy: &str, figure: impl Fn(&Case, &Score) -> f64) -> f64 {
        let figures: Vec<f64> = self
            .measured
            .iter()
            .filter_map(|(case, results)| {
                let result = results.iter().find(|result| result.policy == policy)?;
                Some(figure(case, &result.score))
            })
            .collect();
        figures.iter().sum::<f64>() / figures.len().max(1) as f64
    }
}

/// Tables: policies over all cases, then each case.
#[must_use]
pub fn markdown(measured: &[(&Case, Vec<Result>)]) -> String {
    let mut text = String::new();
    let means = Means { measured };
    let policies: Vec<&str> = measured
        .first()
        .map(|(_, results)| results.iter().map(|result| result.policy.as_str()).collect())
        .unwrap_or_default();
    text += "| policy | out of memory | good % | full-quality good % | value at 0.5 | at 0.8 | at 0.95 | restarts/h, worst | flaps | down s | lost % |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for policy in &policies {
        let share = |count: u64, case: &Case| 100.0 * count as f64 / case.requests.max(1) as f64;
        let value = |worth: f64| {
            100.0
                * means.of(policy, |case, score| {
                    score.value(worth) / case.requests.max(1) as f64
                })
        };
        let worst = measured
            .iter()
            .flat_map(|(_, results)| results)
            .filter(|result| result.policy == *policy)
            .map(|result| result.score.restarts_per_hour())
            .max();
        let sum = |figure: fn(&Score) -> u32| -> u32 {
            let scores = measured.iter().flat_map(|(_, results)| results);
            scores
                .filter(|result| result.policy == *policy)
                .map(|result| figure(&result.score))
                .sum()
        };
        let [low, middle, high] = WORTHS;
        writeln!(
            text,
            "| {policy} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {:.0} | {:.1} |",
            sum(|score| score.oom),
            means.of(policy, |case, score| share(score.good, case)),
            means.of(policy, |case, score| share(score.full, case)),
            value(low),
            value(middle),
            value(high),
            worst.unwrap_or(0),
            sum(|score| score.flaps),
            means.of(policy, |_, score| score.down_secs),
            means.of(policy, |case, score| share(score.lost, case)),
        )
        .ok();
    }
    text += "\n| case | restart s | out of memory: none, best static, tuner | good %: none, best static, tuner | tuner's value at 0.5, 0.8, 0.95 of the clairvoyant's, % | minutes on each rung | restarts/h | flaps | down s | lost % | slowest reaction s | false alarms/h | regret at 0.5, 0.8, 0.95, % of all |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for (case, results) in measured {
        text += &row(case, results);
    }
    text
}

fn row(case: &Case, results: &[Result]) -> String {
    let find = |policy: &str| results.iter().find(|result| result.policy == policy);
    let (Some(none), Some(tuner)) = (find("none"), find("tuner")) else {
        return String::new();
    };
    let statics = || {
        let is_static = |result: &&Result| result.policy.starts_with("static_");
        results.iter().filter(is_static)
    };
    let percent = |good: u64| 100.0 * good as f64 / case.requests.max(1) as f64;
    let of_clairvoyant: Vec<String> = WORTHS
        .iter()
        .map(|worth| {
            let best = find(&clairvoyant_name(*worth)).map_or(0.0, |result| result.score.value(*worth));
            format!("{:.1}", 100.0 * tuner.score.value(*worth) / best.max(1.0))
        })
        .collect();
    let regret: Vec<String> = WORTHS
        .iter()
        .map(|worth| {
            let best = find(&clairvoyant_name(*worth)).map_or(f64::NAN, |result| result.score.value(*worth));
            let missed = best - tuner.score.value(*worth);
            format!("{:.1}", 100.0 * missed / case.requests.max(1) as f64)
        })
        .collect();
    let minutes: Vec<String> = tuner
        .score
        .rung_secs
        .iter()
        .map(|secs| format!("{:.0}", secs / 60.0))
        .collect();
    format!(
        "| {} | {:.0} | {}, {}, {} | {:.1}, {:.1}, {:.1} | {} | {} | {} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {} |\n",
        case.name,
        case.restart_secs(),
        none.score.oom,
        statics().map(|result| result.score.oom).min().unwrap_or(0),
        tuner.score.oom,
        percent(none.score.good),
        percent(statics().map(|result| result.score.good).max().unwrap_or(0)),
        percent(tuner.score.good),
        of_clairvoyant.join(", "),
        minutes.join(" / "),
        tuner.score.restarts_per_hour(),
        tuner.score.flaps,
        tuner.score.down_secs,
        percent(tuner.score.lost),
        tuner.score.reaction_secs.iter().copied().fold(0.0, f64::max),
        tuner.score.false_alarms as f64 / case.hours.max(1.0 / 60.0),
        regret.join(", "),
    )
}
