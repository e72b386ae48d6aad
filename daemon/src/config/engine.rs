//! Engines and their ladders: the sections put together and checked against each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_collectors::{Match, MetricName, MetricsEndpoint};
use plimsoll_trace::Mode;
use plimsoll_trace::signal::{self, METRIC_PREFIX, Source};
use plimsoll_trace::units::{Period, Ratio};
use plimsoll_tuner::guard::Guards;
use plimsoll_tuner::rule::Problem;
use plimsoll_tuner::{
    Allowed, Applied, ConfigFile, EngineSpec, Format, Health, HttpUrl, KeyPath, Ladder, Reload, RuleConfig,
    RuleError,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ConfigError;
use super::error::nearest;
use super::locate::Locator;
use super::written::Written;

/// One `[engine.NAME]`, as written.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a section such as [engine.chat], where chat is the engine's name"
)]
pub(crate) struct EngineSection {
    profile: String,
    #[serde(rename = "match")]
    matcher: Option<Match>,
    config: Option<PathBuf>,
    config_format: Option<Format>,
    #[serde(default)]
    reload: Reload,
    health: Option<Health>,
    metrics: Option<HttpUrl>,
    applied: Option<Applied>,
    limits: Option<Limits>,
    allow: Option<Map<String, Value>>,
    #[serde(default)]
    on_exit: OnExit,
    quality: Option<Quality>,
}

/// What becomes of rungs that are taken when the daemon ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnExit {
    /// They stay.
    #[default]
    Leave,
    /// They are let go.
    Restore,
}

/// `limits`: what the rules may cost the engine.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    restarts_per_hour: Option<u32>,
    restarts_per_day: Option<u32>,
    downtime_per_hour: Option<Period>,
    cooldown: Option<Period>,
    latency_max: Option<Ratio>,
    quality_loss_max: Option<Ratio>,
}

impl Limits {
    fn resolve(&self) -> plimsoll_tuner::Limits {
        let default = plimsoll_tuner::Limits::default();
        let downtime = self.downtime_per_hour.map(|Period(duration)| duration);
        let quality = self.quality_loss_max.map(|Ratio(loss)| loss);
        plimsoll_tuner::Limits {
            restarts_per_hour: self.restarts_per_hour.unwrap_or(default.restarts_per_hour),
            restarts_per_day: self.restarts_per_day.unwrap_or(default.restarts_per_day),
            downtime_per_hour: downtime.unwrap_or(default.downtime_per_hour),
            quality_loss_max: quality.unwrap_or(default.quality_loss_max),
            cooldown: self.cooldown.map(|Period(duration)| duration),
        }
    }
}

/// `quality`: the person's own check of the answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quality {
    command: Vec<String>,
    timeout: Option<Period>,
}

/// How long a quality command may take unless it says so.
const QUALITY_TIMEOUT: Duration = Duration::from_secs(120);

impl EngineSection {
    /// What a change may do to the engine.
    fn guards(&self) -> Guards {
        let default = Guards::default();
        let limits = self.limits.as_ref();
        let ratio = |value: Option<Ratio>, default: f64| value.map_or(default, |Ratio(ratio)| ratio);
        let quality = self
            .quality
            .as_ref()
            .map(|quality| plimsoll_tuner::guard::Quality {
                command: quality.command.clone(),
                timeout: quality.timeout.map_or(QUALITY_TIMEOUT, |Period(timeout)| timeout),
            });
        Guards {
            latency_max: ratio(limits.and_then(|limits| limits.latency_max), default.latency_max),
            quality_loss_max: ratio(
                limits.and_then(|limits| limits.quality_loss_max),
                default.quality_loss_max,
            ),
            quality,
            metrics: self.metrics.is_some(),
            ..default
        }
    }
}

/// An engine: how its processes are found, and how it is acted on.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) matcher: Option<Match>,
    pub(crate) spec: EngineSpec,
    /// Where it shows its metrics, and what of them its rules name.
    pub(crate) metrics: Option<MetricsEndpoint>,
    pub(crate) on_exit: OnExit,
}

/// The names of profiles that have been given out. Any other name is accepted too, unless it is a misspelling of these;
/// this version treats each as `custom`.
const PROFILES: [&str; 7] = [
    "custom",
    "deepspeed",
    "llama-server",
    "ollama",
    "sglang",
    "triton",
    "vllm",
];
/// At most so many letters off is a misspelling.
const MISSPELT: usize = 2;
/// How long a health check may take to come true.
const WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

pub(super) fn assemble(
    sections: BTreeMap<String, EngineSection>,
    rules: Vec<RuleConfig>,
    written: &Written,
    at: &Locator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Engine, Ladder)>, ConfigError> {
    let mut by_engine: BTreeMap<&str, Vec<(usize, &RuleConfig)>> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if !sections.contains_key(&rule.engine) {
            let near = nearest(&rule.engine, sections.keys().map(String::as_str));
            let message = format!(
                "rule `{}` names an engine `{}` that is not configured",
                rule.name, rule.engine
            );
            return Err(at.error(&["rule", &index.to_string(), "engine"], message, near));
        }
        by_engine.entry(&rule.engine).or_default().push((index, rule));
    }
    let mut engines = Vec::new();
    for (name, section) in &sections {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            let message =
                format!("the engine's name '{name}' may have letters, digits, '-', '_' and '.' only");
            return Err(at.error(&["engine", name], message, None));
        }
        let own = by_engine.remove(name.as_str()).unwrap_or_default();
        let mut engine = resolve(name, section, at, warnings)?;
        let cost = engine.spec.reload.cost();
        let wrong = |index: usize, error: &RuleError| {
            let index = index.to_string();
            let mut keys = vec!["rule", index.as_str()];
            // "when.all[1].enter"
            keys.extend(error.key.split(['.', '[', ']']).filter(|key| !key.is_empty()));
            let advice = advice(&error.problem, |other, key| line_of(&own, other, key, at));
            at.error(&keys, format!("{error}{advice}"), None)
        };
        let allowed = match &section.allow {
            Some(table) => Some(Allowed::read(table).map_err(|error| {
                let keys = ["engine", name, "allow"].into_iter().chain(error.key.split('.'));
                at.error(&keys.collect::<Vec<_>>(), format!("engine.{name}.{error}"), None)
            })?),
            None => None,
        };
        let mut rules = Vec::new();
        for (index, rule) in &own {
            let rule = (*rule).clone().resolve(cost);
            let rule = rule.and_then(|rule| match &allowed {
                Some(allowed) => allowed.narrow(rule),
                None => Ok(rule),
            });
            rules.push(rule.map_err(|error| wrong(*index, &error))?);
        }
        let ladder = Ladder::new(name, rules).map_err(|error| {
            // Of two rules with one name, the later is the one too many.
            let index = own
                .iter()
                .rfind(|(_, rule)| rule.name == error.rule)
                .map_or(0, |(index, _)| *index);
            wrong(index, &error)
        })?;
        let ladder = match &section.limits {
            Some(limits) => ladder.within(limits.resolve()),
            None => ladder,
        };
        for rule in &ladder.rules {
            let probes = rule.when.clauses().iter().map(|clause| &clause.probe.signal);
            if section.matcher.is_none()
                && let Some(signal) = probes.clone().find(|signal| is_of_processes(signal))
            {
                warnings.push(format!(
                    "rule '{}' of [engine.{name}]: the engine has no `match`, so nobody knows which devices it uses, and {signal} stays unknown",
                    rule.name
                ));
            }
            if section.metrics.is_none()
                && let Some(signal) = probes.clone().find(|signal| is_of_metrics(signal))
            {
                warnings.push(format!(
                    "rule '{}' of [engine.{name}]: the engine has no `metrics`, the address where it shows them, so {signal} stays unknown",
                    rule.name
                ));
            }
        }
        for (rule, (index, _)) in ladder.rules.iter().zip(&own) {
            let signals = rule.when.clauses().iter().map(|clause| &clause.probe.signal);
            for signal in signals {
                let Some(metric) = signal.strip_prefix(METRIC_PREFIX) else {
                    continue;
                };
                let metric: MetricName = metric.parse().map_err(|error| {
                    let message = format!("rule `{}` of [engine.{name}]: {error}", rule.name);
                    at.error(&["rule", &index.to_string(), "when"], message, None)
                })?;
                if let Some(endpoint) = &mut engine.metrics
                    && !endpoint.named.iter().any(|(known, _)| known == signal)
                {
                    endpoint.named.push((Arc::clone(signal), metric));
                }
            }
        }
        if !written.is_recorded() {
            check_restarts(name, &engine.spec, &own, at)?;
            check_acting(name, section, &engine.spec, &own, at)?;
        }
        let source = written.source(name, cost);
        engines.push((engine, ladder.written(source)));
    }
    check_files(&engines, at)?;
    Ok(engines)
}

/// Whether the signal is read where the engine's processes are.
fn is_of_processes(name: &str) -> bool {
    let source = signal::find(name).map(|signal| signal.source);
    matches!(source, Some(Source::Device | Source::Run | Source::Engine))
}

/// Whether the signal is read from the engine's metrics.
fn is_of_metrics(name: &str) -> bool {
    let source = signal::find(name).map(|signal| signal.source);
    source == Some(Source::Engine)
}

/// No two engines may have one file: each would take the other's change for a person's.
fn check_files(engines: &[(Engine, Ladder)], at: &Locator<'_>) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (engine, _) in engines {
        let EngineSpec { name, config, .. } = &engine.spec;
        let Some(ConfigFile { path, .. }) = config else {
            continue;
        };
        // By another name it is the same file all the same.
        let file = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(other) = owners.insert(file, name) {
            let message = format!(
                "engine.{name}.config: {} is the file of engine.{other} already; give each engine a file of its own",
                path.display()
            );
            return Err(at.error(&["engine", name, "config"], message, None));
        }
    }
    Ok(())
}

/// What helps somebody whose signal looks like none that there is, or whose rule is at odds with another one.
fn advice(problem: &Problem, line: impl Fn(&str, &KeyPath) -> Option<usize>) -> String {
    match problem {
        Problem::UnknownSignal { nearest: None, .. } => {
            let names: Vec<&str> = signal::CATALOGUE.iter().map(|signal| signal.name).collect();
            format!("; there are: {}, metric:NAME", names.join(", "))
        }
        Problem::Conflict { other, key } => line(other, key)
            .map(|line| format!("; '{other}' sets it in line {line}"))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// The line in which a rule sets a key.
fn line_of(rules: &[(usize, &RuleConfig)], rule: &str, key: &KeyPath, at: &Locator<'_>) -> Option<usize> {
    let (index, _) = rules.iter().find(|(_, known)| known.name == rule)?;
    let (index, key) = (index.to_string(), key.to_string());
    let keys = ["rule", &index, "set"].into_iter().chain(key.split('.'));
    at.line(&keys.collect::<Vec<_>>())
}

fn resolve(
    name: &str,
    section: &EngineSection,
    at: &Locator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Engine, ConfigError> {
    let fail = |key: &str, message: String, near| at.error(&["engine", name, key], message, near);
    let profile = section.profile.as_str();
    let misspelt =
        |known: &&str| profile != *known && strsim::damerau_levenshtein(profile, known) <= MISSPELT;
    if !PROFILES.contains(&profile) && PROFILES.iter().any(misspelt) {
        let message = format!("engine.{name}.profile: there is no profile '{profile}'");
        return Err(fail("profile", message, nearest(profile, PROFILES.into_iter())));
    }
    if profile != "custom" {
        let text = format!(
            "[engine.{name}] profile = \"{profile}\" is taken as \"custom\": this version has no profiles of its own"
        );
        warnings.push(text);
    }
    if section
        .health
        .as_ref()
        .is_some_and(|health| !WITHIN.contains(&health.within))
    {
        let message = format!("engine.{name}.health.within must lie between 1s and 1h");
        return Err(at.error(&["engine", name, "health", "within"], message, None));
    }
    let config = match &section.config {
        None => None,
        Some(path) if path.is_relative() => {
            return Err(fail(
                "config",
                format!(
                    "engine.{name}.config: the engine's file {} must be an absolute path",
                    path.display()
                ),
                None,
            ));
        }
        Some(path) => {
            let format = section.config_format.or_else(|| Format::from_path(path)).ok_or_else(|| {
                let message = format!("engine.{name}.config: the format of {} is not clear; set config_format to yaml, json or toml", path.display());
                fail("config", message, None)
            })?;
            Some(ConfigFile {
                path: path.clone(),
                format,
            })
        }
    };
    if section
        .quality
        .as_ref()
        .is_some_and(|quality| quality.command.is_empty())
    {
        let message = format!("engine.{name}.quality.command is empty; it is a program and its arguments");
        return Err(at.error(&["engine", name, "quality", "command"], message, None));
    }
    let metrics = section.metrics.as_ref().map(|url| MetricsEndpoint {
        engine: name.to_owned(),
        url: url.0.clone(),
        named: Vec::new(),
    });
    Ok(Engine {
        matcher: section.matcher.clone(),
        metrics,
        on_exit: section.on_exit,
        spec: EngineSpec {
            name: name.to_owned(),
            config,
            reload: section.reload.clone(),
            health: section.health.clone(),
            applied: section.applied.clone(),
            guards: section.guards(),
        },
    })
}

/// A rule that restarts its engine has nothing but the engine's reload to do it with.
fn check_restarts(
    name: &str,
    spec: &EngineSpec,
    rules: &[(usize, &RuleConfig)],
    at: &Locator<'_>,
) -> Result<(), ConfigError> {
    let how = match &spec.reload {
        Reload::Signal(_) => "a signal",
        Reload::Http(_) => "a call",
        // A command may well be one, and without any a person restarts it.
        Reload::Restart(_) | Reload::Command(_) | Reload::None => return Ok(()),
    };
    match rules.iter().find(|(_, rule)| rule.restart) {
        None => Ok(()),
        Some((index, rule)) => {
            let message = format!(
                "rule `{}` of [engine.{name}] cannot restart it: its `reload` is {how}, after which the same process goes on; \
                 write reload = {{ restart = \"NAME.service\" }}, or a command that restarts it",
                rule.name
            );
            Err(at.error(&["rule", &index.to_string(), "restart"], message, None))
        }
    }
}

/// A rule may act only where Plimsoll knows the file, a way to reload and how to tell that the engine serves.
fn check_acting(
    name: &str,
    section: &EngineSection,
    spec: &EngineSpec,
    rules: &[(usize, &RuleConfig)],
    at: &Locator<'_>,
) -> Result<(), ConfigError> {
    for (index, rule) in rules.iter().filter(|(_, rule)| rule.mode == Mode::Act) {
        let missing = match spec {
            EngineSpec { config: None, .. } => "its engine has no `config`, the file to change",
            EngineSpec {
                reload: Reload::None, ..
            } => "its engine has no way to `reload`",
            EngineSpec { health: None, .. } => "its engine has no `health` check to verify a change with",
            EngineSpec {
                reload: Reload::Signal(_),
                ..
            } if section.matcher.is_none() => "its engine has no `match`, so there is no process to signal",
            _ => continue,
        };
        let message = format!(
            "rule `{}` of [engine.{name}] may not act: {missing}; use mode = \"advise\"",
            rule.name
        );
        return Err(at.error(&["rule", &index.to_string(), "mode"], message, None));
    }
    Ok(())
}
