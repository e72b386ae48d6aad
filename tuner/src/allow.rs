//! What the rules of an engine may set: a list of keys, each with the values it may take.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::edit::{KeyPath, KeyPathError};
use crate::rule::{Problem, Rule, RuleError, SetValue};

/// The keys that the rules of an engine may set, and to what. An entry holds for everything below its key too.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowed(Vec<(KeyPath, Values)>);

#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// Whatever it is.
    Any,
    /// A number from here to there.
    Range { min: Option<f64>, max: Option<f64> },
    /// One of these.
    OneOf(Vec<Value>),
}

/// A list of allowed keys that cannot be used.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("allow{}: {problem}", if key.is_empty() { String::new() } else { format!(".{key}") })]
pub struct AllowError {
    /// The key below `allow`.
    pub key: String,
    problem: AllowProblem,
}

#[derive(Clone, Debug, PartialEq, Error)]
enum AllowProblem {
    #[error("write true for any value, {{ min = 16, max = 512 }} for a number, or a list of values")]
    Form,
    #[error("min is above max")]
    Empty,
    #[error("it is allowed twice, here and as '{0}'")]
    Twice(KeyPath),
    #[error(transparent)]
    KeyPath(#[from] KeyPathError),
}

impl Allowed {
    /// Reads the table `allow`: dotted keys and nested tables are paths, as in a rule's `set`.
    ///
    /// # Errors
    /// [`AllowError`] with the first entry that is wrong.
    pub fn read(table: &Map<String, Value>) -> Result<Self, AllowError> {
        let mut entries = Vec::new();
        collect(&[], table, &mut entries)?;
        for (position, (path, _)) in entries.iter().enumerate() {
            let same = entries
                .iter()
                .take(position)
                .find(|(other, _)| other.overlaps(path));
            if let Some((other, _)) = same {
                return Err(AllowError {
                    key: path.to_string(),
                    problem: AllowProblem::Twice(other.clone()),
                });
            }
        }
        Ok(Self(entries))
    }

    /// The rule with every scale kept inside what is allowed.
    ///
    /// # Errors
    /// [`RuleError`] with the first setting that is not allowed.
    pub fn narrow(&self, mut rule: Rule) -> Result<Rule, RuleError> {
        for setting in &mut rule.set {
            if let Err(problem) = self.check(&setting.path, &mut setting.value) {
                return Err(RuleError {
                    rule: rule.name,
                    key: format!("set.{}", setting.path),
                    problem,
                });
            }
        }
        Ok(rule)
    }

    fn check(&self, path: &KeyPath, value: &mut SetValue) -> Result<(), Problem> {
        let covers = |(key, _): &&(KeyPath, Values)| path.keys().starts_with(key.keys());
        let Some((_, values)) = self.0.iter().find(covers) else {
            return Err(Problem::NotAllowed {
                nearest: self.nearest(path),
            });
        };
        let outside = || {
            Err(Problem::OutsideAllowed {
                allowed: values.to_string(),
            })
        };
        match (values, value) {
            (Values::Any, _) => Ok(()),
            (Values::OneOf(list), SetValue::Value(value)) if list.contains(value) => Ok(()),
            (Values::Range { min, max }, SetValue::Value(value)) => {
                let fits = value.as_f64().is_some_and(|number| {
                    min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)
                });
                if fits { Ok(()) } else { outside() }
            }
            (
                Values::Range { min, max },
                SetValue::Scale {
                    min: least,
                    max: most,
                    ..
                },
            ) => {
                *least = least.map_or(*min, |least| Some(min.map_or(least, |min| least.max(min))));
                *most = most.map_or(*max, |most| Some(max.map_or(most, |max| most.min(max))));
                match least.zip(*most) {
                    Some((least, most)) if least > most => outside(),
                    _ => Ok(()),
                }
            }
            (Values::OneOf(_), _) => outside(),
        }
    }

    fn nearest(&self, path: &KeyPath) -> Option<String> {
        let path = path.to_string();
        let keys = self.0.iter().map(|(key, _)| key.to_string());
        // So many letters off may be a misspelling.
        let off = |key: String| (strsim::damerau_levenshtein(&key, &path), key);
        let near = keys.map(off).filter(|(off, _)| *off <= path.len() / 3);
        near.min().map(|(_, key)| key)
    }
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any value"),
            Self::Range { min: None, max: None } => f.write_str("any number"),
            Self::Range {
                min: Some(min),
                max: None,
            } => write!(f, "a number of at least {min}"),
            Self::Range {
                min: None,
                max: Some(max),
            } => write!(f, "a number of at most {max}"),
            Self::Range {
                min: Some(min),
                max: Some(max),
            } => write!(f, "a number from {min} to {max}"),
            Self::OneOf(list) => {
                let list: Vec<String> = list.iter().map(Value::to_string).collect();
                f.write_str(&list.join(", "))
            }
        }
    }
}

fn collect(
    above: &[String],
    table: &Map<String, Value>,
    into: &mut Vec<(KeyPath, Values)>,
) -> Result<(), AllowError> {
    for (key, value) in table {
        let wrong = |problem| AllowError {
            key: [above, std::slice::from_ref(key)].concat().join("."),
            problem,
        };
        let below: KeyPath = key.parse().map_err(|error| wrong(AllowProblem::KeyPath(error)))?;
        let keys = [above, below.keys()].concat();
        let values = match value {
            Value::Bool(true) => Values::Any,
            Value::Array(list) if !list.is_empty() => Values::OneOf(list.clone()),
            Value::Object(inner) => match range(inner) {
                Some(Ok(range)) => range,
                Some(Err(problem)) => return Err(wrong(problem)),
                None => {
                    collect(&keys, inner, into)?;
                    continue;
                }
            },
            _ => return Err(wrong(AllowProblem::Form)),
        };
        let path = KeyPath::new(keys).map_err(|error| wrong(AllowProblem::KeyPath(error)))?;
        into.push((path, values));
    }
    Ok(())
}

/// Reads `{ min, max }`; `None` when the table is a section.
fn range(table: &Map<String, Value>) -> Option<Result<Values, AllowProblem>> {
    if table.is_empty() {
        return Some(Err(AllowProblem::Form));
    }
    if !table.keys().all(|key| key == "min" || key == "max") || table.values().any(Value::is_object) {
        return None;
    }
    let limit = |name| table.get(name).map(Value::as_f64);
    Some(match (limit("min"), limit("max")) {
        (Some(None), _) | (_, Some(None)) => Err(AllowProblem::Form),
        (Some(Some(min)), Some(Some(max))) if min > max => Err(AllowProblem::Empty),
        (min, max) => Ok(Values::Range {
            min: min.flatten(),
            max: max.flatten(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rule::tests::rule;

    fn allowed(table: Value) -> Result<Allowed, String> {
        let Value::Object(table) = table else {
            panic!("a table")
        };
        Allowed::read(&table).map_err(|error| error.to_string())
    }

    fn narrowed(set: &str) -> Result<Rule, String> {
        let list = allowed(json!({
            "max-num-seqs": { "min": 16, "max": 512 },
            "model": { "quantization": ["none", "int8"], "context.length": { "min": 4096 } },
            "chat": true,
        }));
        let text = format!(
            "name = 'a'\nengine = 'e'\nwhen = {{ signal = 'vram.used_ratio', enter = 0.8 }}\nset = {{ {set} }}"
        );
        list?.narrow(rule(&text)?).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_allowed_passes_and_scales_are_narrowed() {
        for set in [
            "max-num-seqs = 16",
            "model.quantization = 'int8'",
            "model.context.length = 8192.0",
            "chat.cache.type-k = 'q8_0'",
        ] {
            assert!(narrowed(set).is_ok(), "{set}");
        }
        let limits = |set: &str| match narrowed(set).unwrap().set[0].value {
            SetValue::Scale { min, max, .. } => (min, max),
            SetValue::Value(_) => panic!("a scale"),
        };
        assert_eq!(
            limits("max-num-seqs = { scale = 0.5 }"),
            (Some(16.0), Some(512.0))
        );
        assert_eq!(
            limits("max-num-seqs = { scale = 0.5, min = 8, max = 64 }"),
            (Some(16.0), Some(64.0))
        );
        assert_eq!(
            limits("model.context.length = { scale = 0.5, min = 9000 }"),
            (Some(9000.0), None)
        );
    }

    #[test]
    fn what_is_not_allowed_is_said() {
        for (set, says) in [
            (
                "max-num-seq = 16",
                "rule 'a', set.max-num-seq: the engine's `allow` does not list this key; did you mean 'max-num-seqs'?",
            ),
            (
                "model = { a = 1 }",
                "rule 'a', set.model.a: the engine's `allow` does not list this key",
            ),
            (
                "seed = 1",
                "rule 'a', set.seed: the engine's `allow` does not list this key",
            ),
            (
                "max-num-seqs = 8",
                "rule 'a', set.max-num-seqs: the engine's `allow` has here: a number from 16 to 512",
            ),
            (
                "max-num-seqs = '64'",
                "rule 'a', set.max-num-seqs: the engine's `allow` has here: a number from 16 to 512",
            ),
            (
                "max-num-seqs = { scale = 0.5, min = 600 }",
                "rule 'a', set.max-num-seqs: the engine's `allow` has here: a number from 16 to 512",
            ),
            (
                "model.quantization = 'int4'",
                "rule 'a', set.model.quantization: the engine's `allow` has here: \"none\", \"int8\"",
            ),
            (
                "model.quantization = { scale = 0.5 }",
                "rule 'a', set.model.quantization: the engine's `allow` has here: \"none\", \"int8\"",
            ),
            (
                "model.context.length = 1",
                "rule 'a', set.model.context.length: the engine's `allow` has here: a number of at least 4096",
            ),
        ] {
            assert_eq!(narrowed(set).unwrap_err(), says, "{set}");
        }
    }

    #[test]
    fn what_is_no_list_is_said() {
        const FORM: &str =
            "write true for any value, { min = 16, max = 512 } for a number, or a list of values";
        for (table, says) in [
            (json!({"a": 1}), format!("allow.a: {FORM}")),
            (json!({"a": {}}), format!("allow.a: {FORM}")),
            (json!({"a": []}), format!("allow.a: {FORM}")),
            (json!({"a": {"min": "1"}}), format!("allow.a: {FORM}")),
            (json!({"a": {"min": 1, "mxa": 2}}), format!("allow.a.min: {FORM}")),
            (
                json!({"a": {"min": 2, "max": 1}}),
                "allow.a: min is above max".to_owned(),
            ),
            (
                json!({"a": true, "a.b": true}),
                "allow.a.b: it is allowed twice, here and as 'a'".to_owned(),
            ),
        ] {
            assert_eq!(allowed(table.clone()).unwrap_err(), says, "{table}");
        }
        assert!(allowed(json!({})).is_ok(), "nothing may be set");
    }
}
