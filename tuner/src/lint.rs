//! What is valid in a ladder and hardly meant: each finding says where, why it matters and what to do.

use serde::Serialize;
use serde_json::Value;

use crate::condition::Clause;
use crate::rule::{Cost, Ladder, Rule, SetValue, Setting};

/// Something that is valid and hardly meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// Which kind, a stable word.
    pub kind: &'static str,
    /// The engine.
    pub engine: String,
    /// The rule.
    pub rule: String,
    /// The key below the rule, such as `when.exit` or `when.all[1].enter`.
    pub key: String,
    /// What is there.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub to_do: &'static str,
}

/// Signals of which high values are the pressure.
const HIGH: [&str; 14] = [
    "vram.used_bytes",
    "vram.used_ratio",
    "vram.others_bytes",
    "run.vram_bytes",
    "allocator.slack_ratio",
    "allocator.stuck_ratio",
    "gpu.temperature_celsius",
    "engine.kv_used_ratio",
    "engine.requests_waiting",
    "engine.refused_ratio",
    "engine.preemptions_per_sec",
    "engine.ttft_p95_secs",
    "engine.tpot_p95_secs",
    "host.swap_used_bytes",
];
/// Signals of which low values are.
const LOW: [&str; 3] = [
    "vram.free_bytes",
    "vram.full_in_secs",
    "host.memory_available_bytes",
];

/// Engines that take their memory at start and keep it, whatever they serve.
const PREALLOCATING: [&str; 3] = ["vllm", "sglang", "llama-server"];
/// What does not move there.
const DEVICE_MEMORY: [&str; 5] = [
    "vram.used_bytes",
    "vram.free_bytes",
    "vram.used_ratio",
    "vram.full_in_secs",
    "run.vram_bytes",
];

/// A ratio's lines lie at least this far apart.
const NARROW_RATIO: f64 = 0.05;

/// Looks a ladder through; `profile` is its engine's. In the order of its rules.
#[must_use]
pub fn lint(ladder: &Ladder, profile: &str) -> Vec<Lint> {
    let mut found = Vec::new();
    for (position, rule) in ladder.rules.iter().enumerate() {
        let earlier = ladder.rules.get(..position).unwrap_or_default();
        let at = |kind, key: String, what, why, to_do| Lint {
            kind,
            engine: ladder.engine.clone(),
            rule: rule.name.clone(),
            key,
            what,
            why,
            to_do,
        };
        for (place, clause) in rule.when.clauses().iter().enumerate() {
            found.extend(
                of_clause(rule, clause, profile).map(|(kind, key, what, why, to_do)| {
                    at(kind, clause_key(rule, place, key), what, why, to_do)
                }),
            );
        }
        found.extend(
            of_rule(rule).map(|(kind, key, what, why, to_do)| at(kind, key.to_owned(), what, why, to_do)),
        );
        found.extend(
            of_order(rule, earlier).map(|(kind, key, what, why, to_do)| at(kind, key, what, why, to_do)),
        );
    }
    found
}

type Found<K> = (&'static str, K, String, &'static str, &'static str);

fn of_clause<'a>(
    rule: &'a Rule,
    clause: &'a Clause,
    profile: &'a str,
) -> impl Iterator<Item = Found<&'static str>> + 'a {
    let signal = &*clause.probe.signal;
    let show = |value| clause.unit.show(value);
    let backwards =
        (HIGH.contains(&signal) && clause.is_under()) || (LOW.contains(&signal) && !clause.is_under());
    let side = backwards.then(|| {
        let pressed = if clause.is_under() { "low" } else { "high" };
        (
            "exit_side",
            "exit",
            format!(
                "with enter at {} and exit at {} the rung is taken while {signal} is {pressed}",
                show(clause.enter),
                show(clause.exit)
            ),
            "it would act when there is no pressure, and let go when there is",
            "exchange the two lines: exit lies on the safe side of enter",
        )
    });
    let still = (PREALLOCATING.contains(&profile) && DEVICE_MEMORY.contains(&signal)).then(|| {
        (
            "still_signal",
            "signal",
            format!("{signal} hardly moves on an engine of profile {profile}"),
            "such an engine takes its memory when it starts and keeps it: the line is crossed at once, or never",
            "use engine.kv_used_ratio, engine.requests_waiting or engine.preemptions_per_sec",
        )
    });
    let is_ratio = clause.unit == plimsoll_trace::signal::Unit::Ratio;
    let gap = (clause.enter - clause.exit).abs();
    let narrow = (is_ratio && gap + 1e-9 < NARROW_RATIO).then(|| {
        (
            "narrow_gap",
            "exit",
            format!(
                "exit at {} lies close to enter at {}",
                show(clause.exit),
                show(clause.enter)
            ),
            "noise alone crosses such a gap, and the rung comes and goes",
            "leave 5 points at least; 15 is the default",
        )
    });
    let frees_memory = [
        "vram.used_bytes",
        "vram.used_ratio",
        "vram.free_bytes",
        "run.vram_bytes",
    ]
    .contains(&signal);
    let saves = (frees_memory && rule.saves_bytes.is_none()).then(|| {
        (
            "no_saves",
            "signal",
            format!("the rule is on {signal} and does not say what it `saves`"),
            "until its effect was seen once, nobody knows how far to climb, and it is never released by itself",
            "add an estimate, such as saves = \"2GiB\"; what is observed takes its place",
        )
    });
    let capacity = (signal == "engine.kv_used_ratio" && rule.capacity.is_none()).then(|| {
        (
            "no_capacity",
            "signal",
            "the rule is on engine.kv_used_ratio and does not say what `capacity` it gives".to_owned(),
            "what the cache's use would be without the rung is unknown, so it is never released by itself",
            "add how many times as much the cache holds, such as capacity = 2.0",
        )
    });
    [side, still, narrow, saves, capacity].into_iter().flatten()
}

fn of_rule(rule: &Rule) -> impl Iterator<Item = Found<&'static str>> {
    let waits = rule.cost == Cost::Hot && !rule.held_for.is_zero();
    let hot = waits.then(|| {
        (
            "hot_waits",
            "for",
            format!(
                "a hot rung waits for {}",
                plimsoll_trace::units::show_duration(rule.held_for)
            ),
            "demand rises by gigabytes within a second: an action that costs nothing comes too late when it waits",
            "leave `for` out; waiting is for reloads and restarts",
        )
    });
    hot.into_iter()
}

/// What a rule is beside those below it.
fn of_order<'a>(rule: &'a Rule, earlier: &'a [Rule]) -> impl Iterator<Item = Found<String>> + 'a {
    let dearer = earlier.iter().find(|other| other.cost > rule.cost);
    let cheaper = dearer.map(|other| {
        (
            "cheaper_above",
            "cost".to_owned(),
            format!("it costs less than '{}', which comes before it", other.name),
            "rungs are taken in file order: the dear one would be taken first",
            "put the cheaper rule first",
        )
    });
    let first = rule.when.clauses().first();
    let sooner = first.and_then(|clause| {
        earlier.iter().find_map(|other| {
            let below = other.when.clauses().first()?;
            let same = below.probe == clause.probe && below.is_under() == clause.is_under();
            let sooner = if clause.is_under() {
                clause.enter > below.enter
            } else {
                clause.enter < below.enter
            };
            (same && sooner).then_some((other, below))
        })
    });
    let sooner = sooner.map(|(other, below)| {
        (
            "line_below",
            "when".to_owned(),
            format!(
                "its line lies before that of '{}', {}",
                other.name,
                below.unit.show(below.enter)
            ),
            "a higher rung is for more pressure: here the lower one is taken along each time, before its own line",
            "let the lines rise with the rungs, or change the order",
        )
    });
    let settings = rule.set.iter().flat_map(move |setting| {
        let below = earlier.iter().rev().find_map(|other| {
            let same = |it: &&Setting| it.path == setting.path;
            other.set.iter().find(same).map(|it| (other, it))
        });
        below.and_then(|(other, below)| grows(setting, below).map(|why| (setting, other, why)))
    });
    let weaker = settings.map(|(setting, other, what)| {
        (
            "does_not_grow",
            format!("set.{}", setting.path),
            format!("{what} '{}' sets it below", other.name),
            "rungs add up, and the later one counts: this one takes back a part of what was won, or wins nothing",
            "set it further than the rung below, or leave it out",
        )
    });
    cheaper.into_iter().chain(sooner).chain(weaker)
}

/// How a setting fails to go further than that of a lower rung, where that can be told.
fn grows(setting: &Setting, below: &Setting) -> Option<&'static str> {
    let number = |value: &Value| value.as_f64();
    match (&setting.value, &below.value) {
        (one, other) if one == other => Some("it is the value that"),
        (SetValue::Scale { factor, .. }, SetValue::Scale { factor: other, .. }) => {
            let back = if *other < 1.0 {
                factor > other
            } else {
                factor < other
            };
            back.then_some("the factor goes less far than")
        }
        // Which way a plain number relieves is not known.
        (SetValue::Value(one), SetValue::Value(other)) => match (number(one), number(other)) {
            (None, None) if one.is_boolean() && other.is_boolean() => Some("it is switched back to before"),
            _ => None,
        },
        _ => None,
    }
}

fn clause_key(rule: &Rule, place: usize, key: &str) -> String {
    match (rule.when.clauses().len(), rule.when.join()) {
        (1, _) => format!("when.{key}"),
        (_, crate::condition::Join::All) => format!("when.all[{place}].{key}"),
        (_, crate::condition::Join::Any) => format!("when.any[{place}].{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests::rule;

    fn kinds(profile: &str, rules: &[&str]) -> Vec<String> {
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, text)| rule(&format!("name='r{index}'\nengine='e'\n{text}")).unwrap());
        let ladder = Ladder::new("e", rules.collect()).unwrap();
        let found = lint(&ladder, profile);
        found
            .iter()
            .map(|lint| format!("{} {} {}", lint.rule, lint.kind, lint.key))
            .collect()
    }

    #[test]
    fn a_good_ladder_has_none() {
        let rules = [
            "when={signal='vram.used_ratio',enter=0.8}\nset={seqs={scale=0.5}}\nsaves='1GiB'\ncost='hot'",
            "when={signal='vram.used_ratio',enter=0.92}\nset={seqs={scale=0.25}}\nsaves='2GiB'",
        ];
        assert!(kinds("custom", &rules).is_empty());
        let vllm = "when={signal='engine.kv_used_ratio',enter=0.95}\nset={a=1}\ncapacity=2.0";
        assert!(kinds("vllm", &[vllm]).is_empty());
    }

    #[test]
    fn each_kind_is_found_where_it_is() {
        let saved = "set={a=1}\nsaves='1GiB'";
        let one = |profile: &str, text: &str| kinds(profile, &[text]);
        assert_eq!(
            one(
                "custom",
                &format!("when={{signal='vram.used_ratio',enter=0.5,exit=0.8}}\n{saved}")
            ),
            ["r0 exit_side when.exit"]
        );
        assert_eq!(
            one(
                "custom",
                &format!("when={{signal='vram.free_bytes',enter='4GiB',exit='1GiB'}}\n{saved}")
            ),
            ["r0 exit_side when.exit"]
        );
        assert_eq!(
            one(
                "vllm",
                &format!("when={{signal='vram.used_ratio',enter=0.8}}\n{saved}")
            ),
            ["r0 still_signal when.signal"]
        );
        assert_eq!(
            one(
                "custom",
                &format!("when={{signal='vram.used_ratio',enter=0.8,exit=0.78}}\n{saved}")
            ),
            ["r0 narrow_gap when.exit"]
        );
        assert_eq!(
            one(
                "custom",
                "when={all=[{signal='gpu.busy_ratio',enter=0.8},{signal='run.vram_bytes',enter=9,exit=1}]}\nset={a=1}"
            ),
            ["r0 no_saves when.all[1].signal"]
        );
        assert_eq!(
            one(
                "vllm",
                "when={signal='engine.kv_used_ratio',enter=0.95}\nset={a=1}"
            ),
            ["r0 no_capacity when.signal"]
        );
        assert_eq!(
            one(
                "custom",
                &format!("when={{signal='vram.used_ratio',enter=0.8}}\nfor='10s'\ncost='hot'\n{saved}")
            ),
            ["r0 hot_waits for"]
        );
    }

    #[test]
    fn rungs_that_do_not_grow() {
        let first = "when={signal='vram.used_ratio',enter=0.9}\nset={a=true,b={scale=0.5}}\nsaves='1GiB'\ncost='restart'";
        let second = "when={signal='vram.used_ratio',enter=0.8}\nset={a=true,b={scale=0.75}}\nsaves='1GiB'\ncost='reload'";
        assert_eq!(
            kinds("custom", &[first, second]),
            [
                "r1 cheaper_above cost",
                "r1 line_below when",
                "r1 does_not_grow set.a",
                "r1 does_not_grow set.b",
            ]
        );
    }
}
