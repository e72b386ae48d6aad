//! Values as text, and changes to trees of values.

use serde_json::{Map, Value};

/// A value on one line, in the notation that YAML, JSON and TOML share. A section has none in TOML; it is not asked for.
///
/// Text is in double quotes with JSON's escapes, and floats have no exponent: YAML 1.1 takes `1e3` for text.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if float.fract() == 0.0 => format!("{float:.1}"),
            Some(float) => float.to_string(),
            None => number.to_string(),
        },
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// More is escaped than JSON asks for: YAML 1.1 folds the line breaks of Unicode and refuses what it takes for not
/// printable, and TOML refuses the delete character.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

/// Sets the value at a path; what is missing on the way, or null, becomes a section.
pub(super) fn put(node: &mut Value, keys: &[String], value: &Value) {
    let Some((key, rest)) = keys.split_first() else {
        *node = value.clone();
        return;
    };
    if node.is_null() {
        *node = Value::Object(Map::new());
    }
    if let Value::Object(entries) = node {
        put(entries.entry(key.as_str()).or_insert(Value::Null), rest, value);
    }
}

/// Removes the key at a path.
pub(super) fn take(node: &mut Value, keys: &[String]) {
    if let (Value::Object(entries), Some((key, rest))) = (node, keys.split_first()) {
        if rest.is_empty() {
            entries.shift_remove(key);
        } else if let Some(inner) = entries.get_mut(key) {
            take(inner, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_mean_the_same_everywhere() {
        for (value, text) in [
            (json!("int8"), "\"int8\""),
            (
                json!("a\"\\\n\t\u{7f}\u{2028}é😀"),
                "\"a\\\"\\\\\\n\\t\\u007F\\u2028é😀\"",
            ),
            (json!(16), "16"),
            (json!(0.9), "0.9"),
            (json!(1.0), "1.0"),
            (json!(1e-7), "0.0000001"),
            (json!(1e21), "1000000000000000000000.0"),
            (json!(true), "true"),
            (json!(["a", 1]), "[\"a\", 1]"),
        ] {
            assert_eq!(literal(&value), text);
        }
    }
}
