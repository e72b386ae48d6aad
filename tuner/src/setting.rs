//! What a rung sets in the engine's configuration.

use serde_json::{Map, Value};

use crate::edit::KeyPath;
use crate::rule::Problem;

/// One value that a rung sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Where.
    pub path: KeyPath,
    /// What.
    pub value: SetValue,
}

/// What a rung sets a key to.
#[derive(Clone, Debug, PartialEq)]
pub enum SetValue {
    /// This value.
    Value(Value),
    /// The value in the person's file, times a factor, kept inside the limits.
    Scale {
        /// Finite and above 0.
        factor: f64,
        /// Not below this.
        min: Option<f64>,
        /// Not above this.
        max: Option<f64>,
    },
}

/// Flattens the table `set`: dotted keys and nested tables are paths; a table with `scale` is a value.
///
/// # Errors
/// The key below the rule, such as `set.model.quantization`, and what is wrong with it.
pub(crate) fn resolve(table: Map<String, Value>) -> Result<Vec<Setting>, (String, Problem)> {
    let mut settings = Vec::new();
    flatten(&[], table, &mut settings)?;
    if settings.is_empty() {
        return Err(("set".to_owned(), Problem::Empty));
    }
    for (position, setting) in settings.iter().enumerate() {
        if let Some(other) = settings
            .iter()
            .take(position)
            .find(|other| other.path.overlaps(&setting.path))
        {
            return Err((
                format!("set.{}", setting.path),
                Problem::Overlap(other.path.to_string()),
            ));
        }
    }
    Ok(settings)
}

fn flatten(
    above: &[String],
    table: Map<String, Value>,
    into: &mut Vec<Setting>,
) -> Result<(), (String, Problem)> {
    for (key, value) in table {
        if key.starts_with("$__toml_private") {
            // How a TOML date arrives here.
            return Err((format!("set.{}", above.join(".")), Problem::Date));
        }
        let written = format!(
            "set.{}{key}",
            above.iter().map(|key| format!("{key}.")).collect::<String>()
        );
        let wrong = |problem| Err((written.clone(), problem));
        let below: KeyPath = match key.parse() {
            Ok(path) => path,
            Err(error) => return wrong(Problem::KeyPath(error)),
        };
        let keys = [above, below.keys()].concat();
        let value = match value {
            Value::Object(inner) => match scale(&inner) {
                Some(Ok(scale)) => scale,
                Some(Err(problem)) => return wrong(problem),
                None if inner.is_empty() => return wrong(Problem::Empty),
                None => {
                    flatten(&keys, inner, into)?;
                    continue;
                }
            },
            // A TOML nan or inf has no JSON form and arrives as null.
            Value::Null => return wrong(Problem::NotFinite),
            plain => SetValue::Value(plain),
        };
        match KeyPath::new(keys) {
            Ok(path) => into.push(Setting { path, value }),
            Err(error) => return wrong(Problem::KeyPath(error)),
        }
    }
    Ok(())
}

/// Reads `{ scale, min, max }`; `None` when the table is a section.
fn scale(table: &Map<String, Value>) -> Option<Result<SetValue, Problem>> {
    let factor = table.get("scale")?.as_f64()?;
    if table
        .keys()
        .any(|key| !["scale", "min", "max"].contains(&key.as_str()))
    {
        return Some(Err(Problem::Scale));
    }
    let limit = |name| {
        table
            .get(name)
            .map(|limit| limit.as_f64().ok_or(Problem::Scale))
            .transpose()
    };
    let (min, max) = match (limit("min"), limit("max")) {
        (Ok(min), Ok(max)) => (min, max),
        _ => return Some(Err(Problem::Scale)),
    };
    let ordered = min.zip(max).is_none_or(|(min, max)| min <= max);
    if factor > 0.0 && ordered {
        Some(Ok(SetValue::Scale { factor, min, max }))
    } else {
        Some(Err(Problem::Scale))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(table: Value) -> Result<Vec<(String, SetValue)>, String> {
        let Value::Object(table) = table else {
            panic!("a table")
        };
        resolve(table)
            .map(|list| {
                list.into_iter()
                    .map(|setting| (setting.path.to_string(), setting.value))
                    .collect()
            })
            .map_err(|(key, problem)| format!("{key}: {problem}"))
    }

    #[test]
    fn dotted_keys_and_sections_are_paths() {
        assert_eq!(
            set(
                json!({"model.quantization": "int8", "chat": {"cache-type-k": "q8_0"}, "ctx": {"scale": 0.5, "min": 16}})
            ),
            Ok(vec![
                ("model.quantization".into(), SetValue::Value(json!("int8"))),
                ("chat.cache-type-k".into(), SetValue::Value(json!("q8_0"))),
                (
                    "ctx".into(),
                    SetValue::Scale {
                        factor: 0.5,
                        min: Some(16.0),
                        max: None
                    }
                ),
            ])
        );
        assert_eq!(
            set(json!({"a": [1, 2]})),
            Ok(vec![("a".into(), SetValue::Value(json!([1, 2])))])
        );
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        for (table, says) in [
            (json!({}), "set: it is empty"),
            (json!({"a": {}}), "set.a: it is empty"),
            (json!({"a": null}), "set.a: it is not a finite number"),
            (
                json!({"a..b": 1}),
                "set.a..b: 'a..b' has an empty key; write for example \"model.quantization\"",
            ),
            (
                json!({"m": {"q": 1}, "m.q": 2}),
                "set.m.q: the same rule sets 'm.q' already",
            ),
            (
                json!({"m": 1, "m.q": 2}),
                "set.m.q: the same rule sets 'm' already",
            ),
            (
                json!({"s": {"a": {"scale": 0}}}),
                "set.s.a: a scale is { scale, min, max }: a factor above 0 and, if wanted, limits with min at most max",
            ),
            (
                json!({"a": {"scale": 2, "minimum": 1}}),
                "set.a: a scale is { scale, min, max }: a factor above 0 and, if wanted, limits with min at most max",
            ),
            (
                json!({"a": {"scale": 2, "min": 3, "max": 1}}),
                "set.a: a scale is { scale, min, max }: a factor above 0 and, if wanted, limits with min at most max",
            ),
        ] {
            assert_eq!(set(table.clone()).unwrap_err(), says, "{table}");
        }
    }
}
