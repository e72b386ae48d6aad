//! The rules as they were written, for the recording: what decides and nothing else, and the ladder that comes of it again.

use std::path::Path;

use plimsoll_tuner::rule::Cost;
use plimsoll_tuner::{Ladder, Source};
use serde_json::{Map, Value, json};
use toml_edit::DocumentMut;

use super::{ConfigError, File, engine, locate};

/// What of an engine's section has no part in any decision, and may hold what is nobody's business.
const NOT_RECORDED: [&str; 9] = [
    "match",
    "config",
    "config_format",
    "reload",
    "health",
    "metrics",
    "applied",
    "quality",
    "on_exit",
];

/// What the tests of rules have beside rules.
const BESIDE: &str = "test";

/// A configuration's text as data.
pub(super) struct Written {
    value: Value,
    recorded: bool,
}

impl Written {
    /// Of a text that is valid.
    pub(super) fn new(text: &str) -> Self {
        Self {
            value: toml_edit::de::from_str(text).unwrap_or_default(),
            recorded: false,
        }
    }

    /// Whether it comes from a recording, which says nothing about how the engine is acted on.
    pub(super) const fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// The rules of one engine, with what their reload costs.
    pub(super) fn source(&self, engine: &str, cost: Cost) -> Source {
        let own = |rule: &&Value| rule.get("engine").and_then(Value::as_str) == Some(engine);
        let list = self.value.get("rule").and_then(Value::as_array);
        let mut rules: Vec<Value> = list.into_iter().flatten().filter(own).cloned().collect();
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            rule.entry("cost").or_insert_with(|| json!(cost));
        }
        let section = self.value.pointer("/engine").and_then(|all| all.get(engine));
        let mut section: Map<String, Value> = section.and_then(Value::as_object).cloned().unwrap_or_default();
        NOT_RECORDED.iter().for_each(|key| drop(section.remove(*key)));
        Source::new(&json!({ "engine": { engine: section }, "rule": rules }).to_string())
    }
}

/// The ladders of a file that may leave out how its engines are acted on, or their sections as a whole: for looking at
/// rules, not for carrying them out.
///
/// # Errors
/// The first thing that is not valid, with its line.
pub(crate) fn ladders(text: &str, path: &Path) -> Result<Vec<Ladder>, ConfigError> {
    let wrong = |error: &toml_edit::de::Error| super::error::from_toml(error, text, path);
    let file: File = if text.contains(BESIDE) {
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| wrong(&error.into()))?;
        document.remove(BESIDE);
        toml_edit::de::from_document(document).map_err(|error| wrong(&error))?
    } else {
        toml_edit::de::from_str(text).map_err(|error| wrong(&error))?
    };
    let mut file = file;
    for rule in &file.rule {
        if !file.engine.contains_key(&rule.engine)
            && let Ok(section) = serde_json::from_value(json!({ "profile": "custom" }))
        {
            file.engine.insert(rule.engine.clone(), section);
        }
    }
    let written = Written {
        recorded: true,
        ..Written::new(text)
    };
    let at = locate::Locator::new(text, path);
    let engines = engine::assemble(file.engine, file.rule, &written, &at, &mut Vec::new())?;
    Ok(engines.into_iter().map(|(_, ladder)| ladder).collect())
}

/// The same of a file on the disk.
///
/// # Errors
/// When it cannot be read, or is not valid.
pub(crate) fn ladders_of(path: &Path) -> Result<Vec<Ladder>, ConfigError> {
    ladders(&super::read(path)?, path)
}

/// The ladder of recorded rules; `None` when they name no engine.
///
/// # Errors
/// When this version does not understand them.
pub(crate) fn recorded_ladder(text: &str) -> Result<Option<Ladder>, ConfigError> {
    let path = Path::new("the recorded rules");
    let wrong = |message: String| ConfigError::Invalid {
        path: path.to_owned(),
        line: None,
        message,
        nearest: None,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let file: File = serde_json::from_value(value.clone()).map_err(|error| wrong(error.to_string()))?;
    let written = Written {
        value,
        recorded: true,
    };
    let at = locate::Locator::new("", path);
    let engines = engine::assemble(file.engine, file.rule, &written, &at, &mut Vec::new())?;
    // What was recorded stays what it is called, whatever this version would write.
    Ok(engines
        .into_iter()
        .next()
        .map(|(_, ladder)| ladder.written(Source::new(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const TEXT: &str = r#"
[engine.chat]
profile = "custom"
match = { exe = "e" }
config = "/srv/e.yaml"
reload = { command = ["true"] }
health = { http = "http://127.0.0.1:1/", within = "9s" }
limits = { restarts_per_hour = 7 }
[[rule]]
name = "quantize"
engine = "chat"
mode = "act"
when = { signal = "vram.used_ratio", enter = "92%", exit = "75%" }
set = { "model.quantization" = "int8", seqs = { scale = 0.5, min = 16 } }
saves = "5GiB"
[engine.other]
profile = "custom"
"#;

    #[test]
    fn recorded_rules_are_the_rules() {
        let config = Config::parse(TEXT, Path::new("plimsoll.toml")).unwrap();
        let ladder = &config.engines[0].1;
        let text = ladder.source.text();
        let again = recorded_ladder(text).unwrap().unwrap();
        assert_eq!(&again, ladder);
        assert_eq!(again.limits.restarts_per_hour, 7);
        assert!(!text.contains("/srv") && !text.contains("127.0.0.1"), "{text}");
        assert_ne!(config.engines[1].1.source, ladder.source);
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for text in ["", "[]", r#"{"rule":[{"name":1}]}"#] {
            assert!(recorded_ladder(text).is_err(), "{text}");
        }
        assert!(recorded_ladder("{}").unwrap().is_none());
    }
}
