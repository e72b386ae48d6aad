//! Engines and their ladders: the sections put together and checked against each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plimsoll_collectors::Match;
use plimsoll_trace::Mode;
use plimsoll_tuner::{Applied, ConfigFile, EngineSpec, Format, Health, Ladder, Reload, RuleConfig};
use serde::Deserialize;

use super::error::nearest;
use super::locate::Locator;
use super::ConfigError;

/// One `[engine.NAME]`, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineSection {
    profile: String,
    #[serde(rename = "match")]
    matcher: Option<Match>,
    config: Option<PathBuf>,
    config_format: Option<Format>,
    #[serde(default)]
    reload: Reload,
    health: Option<Health>,
    metrics: Option<String>,
    applied: Option<Applied>,
    limits: Option<serde::de::IgnoredAny>,
    quality: Option<serde::de::IgnoredAny>,
}

/// An engine: how its processes are found, and how it is acted on.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) matcher: Option<Match>,
    pub(crate) spec: EngineSpec,
}

/// The profiles this version knows. A profile other than `custom` will bring its own knobs and warnings.
const PROFILES: [&str; 1] = ["custom"];

pub(super) fn assemble(
    sections: BTreeMap<String, EngineSection>,
    rules: Vec<RuleConfig>,
    at: &Locator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Engine, Ladder)>, ConfigError> {
    let mut by_engine: BTreeMap<&str, Vec<(usize, &RuleConfig)>> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if !sections.contains_key(&rule.engine) {
            let near = nearest(&rule.engine, sections.keys().map(String::as_str));
            let message = format!("rule `{}` names an engine `{}` that is not configured", rule.name, rule.engine);
            return Err(at.error(&["rule", &index.to_string(), "engine"], message, near));
        }
        by_engine.entry(&rule.engine).or_default().push((index, rule));
    }
    let mut engines = Vec::new();
    for (name, section) in &sections {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("the engine's name '{name}' may have letters, digits, '-', '_' and '.' only");
            return Err(at.error(&["engine", name], message, None));
        }
        let own = by_engine.remove(name.as_str()).unwrap_or_default();
        let engine = resolve(name, section, at, warnings)?;
        let cost = engine.spec.reload.cost();
        let resolved = own.iter().map(|(_, rule)| (*rule).clone().resolve(cost)).collect::<Result<_, _>>();
        let ladder = resolved.and_then(|rules| Ladder::new(name, rules)).map_err(|error| {
            let index = own.iter().find(|(_, rule)| rule.name == error.rule).map_or(0, |(index, _)| *index);
            let index = index.to_string();
            let mut keys = vec!["rule", index.as_str()];
            keys.extend(error.key.split('.'));
            at.error(&keys, error.to_string(), None)
        })?;
        check_acting(name, section, &engine.spec, &own, at)?;
        engines.push((engine, ladder));
    }
    Ok(engines)
}

fn resolve(
    name: &str,
    section: &EngineSection,
    at: &Locator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Engine, ConfigError> {
    let fail = |key: &str, message: String, near| at.error(&["engine", name, key], message, near);
    if !PROFILES.contains(&section.profile.as_str()) {
        warnings.push(format!(
            "[engine.{name}] profile = \"{}\" is not known to this version and is taken as \"custom\"",
            section.profile
        ));
    }
    let config = match &section.config {
        None => None,
        Some(path) if path.is_relative() => {
            return Err(fail("config", format!("the engine's file {} must be an absolute path", path.display()), None));
        }
        Some(path) => {
            let format = section.config_format.or_else(|| Format::from_path(path)).ok_or_else(|| {
                let message = format!("the format of {} is not clear; set config_format to yaml, json or toml", path.display());
                fail("config", message, None)
            })?;
            Some(ConfigFile { path: path.clone(), format })
        }
    };
    for (key, present) in [("metrics", section.metrics.is_some()), ("limits", section.limits.is_some()), ("quality", section.quality.is_some())] {
        if present {
            warnings.push(format!("[engine.{name}] {key} is not used by this version yet"));
        }
    }
    Ok(Engine {
        matcher: section.matcher.clone(),
        spec: EngineSpec {
            name: name.to_owned(),
            config,
            reload: section.reload.clone(),
            health: section.health.clone(),
            applied: section.applied.clone(),
        },
    })
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
            EngineSpec { reload: Reload::None, .. } => "its engine has no way to `reload`",
            EngineSpec { health: None, .. } => "its engine has no `health` check to verify a change with",
            EngineSpec { reload: Reload::Signal(_), .. } if section.matcher.is_none() => {
                "its engine has no `match`, so there is no process to signal"
            }
            _ if section.limits.is_some() || section.quality.is_some() => {
                "its engine has `limits` or `quality`, which this version does not enforce yet"
            }
            _ => continue,
        };
        let message = format!("rule `{}` of [engine.{name}] may not act: {missing}; use mode = \"advise\"", rule.name);
        return Err(at.error(&["rule", &index.to_string(), "mode"], message, None));
    }
    Ok(())
}
