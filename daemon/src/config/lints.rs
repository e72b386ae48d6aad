//! Lints of a configuration's rules, each with its line.

use std::path::{Path, PathBuf};

use plimsoll_tuner::{Ladder, Lint, lint};
use serde_json::{Value, json};

use super::{Config, ConfigError, locate, place, read};

/// A lint and where it is.
pub(crate) struct Linted {
    pub(crate) lint: Lint,
    pub(crate) line: Option<usize>,
}

/// Lints the rules of the configuration that is in force, or that is named. The file's name comes along.
///
/// # Errors
/// When there is none, or it is not valid.
pub(crate) fn lints_of(named: Option<&Path>) -> Result<(Option<PathBuf>, Vec<Linted>), ConfigError> {
    let Some(path) = place::find(named)? else {
        return Ok((None, Vec::new()));
    };
    let text = read(&path)?;
    let config = Config::parse(&text, &path)?;
    let ladders: Vec<&Ladder> = config.engines.iter().map(|(_, ladder)| ladder).collect();
    let found = lints(&text, &path, &ladders);
    Ok((Some(path), found))
}

/// Lints ladders that were read from a text.
fn lints(text: &str, path: &Path, ladders: &[&Ladder]) -> Vec<Linted> {
    let value: Value = toml_edit::de::from_str(text).unwrap_or_default();
    let at = locate::Locator::new(text, path);
    let profile = |engine: &str| {
        let section = value.get("engine").and_then(|all| all.get(engine));
        section
            .and_then(|section| section.get("profile")?.as_str())
            .unwrap_or("custom")
    };
    let found = ladders
        .iter()
        .flat_map(|ladder| lint(ladder, profile(&ladder.engine)));
    found
        .map(|lint| {
            let line = index(&value, &lint).and_then(|index| {
                let index = index.to_string();
                let mut keys = vec!["rule", index.as_str()];
                keys.extend(lint.key.split(['.', '[', ']']).filter(|key| !key.is_empty()));
                at.line(&keys)
            });
            Linted { lint, line }
        })
        .collect()
}

/// Which of the file's rules it is.
fn index(file: &Value, lint: &Lint) -> Option<usize> {
    let rules = file.get("rule")?.as_array()?;
    rules
        .iter()
        .position(|rule| rule["name"] == lint.rule && rule["engine"] == lint.engine)
}

impl Linted {
    /// What is there, on one line that begins with its place.
    pub(crate) fn what(&self, path: &Path) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let Lint {
            engine,
            rule,
            key,
            what,
            ..
        } = &self.lint;
        format!(
            "{}{line}: rule '{rule}' of {engine}, {key}: {what}",
            path.display()
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut value = json!(self.lint);
        value["line"] = json!(self.line);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lint_has_its_line() {
        let text = "[engine.e]\nprofile = \"vllm\"\n[[rule]]\nname = \"a\"\nengine = \"e\"\n\
                    when = { signal = \"vram.used_ratio\", enter = 0.8 }\nset = { x = 1 }\nsaves = \"1GiB\"\n";
        let path = Path::new("p.toml");
        let config = Config::parse(text, path).unwrap();
        let ladders: Vec<&Ladder> = config.engines.iter().map(|(_, ladder)| ladder).collect();
        let found = lints(text, path, &ladders);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].lint.kind), (Some(6), "still_signal"));
        assert!(
            found[0]
                .what(path)
                .starts_with("p.toml:6: rule 'a' of e, when.signal: ")
        );
    }
}
