//! What an unquoted YAML scalar means, to readers of YAML 1.1 and of YAML 1.2.
//!
//! Python's PyYAML, which most engines load their configuration with, reads 1.1; loaders in Go and Rust mostly read
//! 1.2. Patterns: the types of yaml.org/type (int, float, bool, null, timestamp) as PyYAML implements them, and the core
//! schema of the YAML 1.2.2 specification, section 10.3.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Number, Value};

use crate::edit::text;

/// A plain scalar's meaning.
#[derive(Debug, PartialEq)]
pub(super) struct Meaning {
    /// To a reader of YAML 1.1. Dates and infinities, which JSON has no value for, are their text.
    pub(super) value: Value,
    /// Whether a reader of YAML 1.2 takes it for the same.
    pub(super) certain: bool,
}

pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

pub(super) fn meaning(text: &str) -> Meaning {
    if is_null(text) {
        return Meaning {
            value: Value::Null,
            certain: true,
        };
    }
    let (old, new) = (yaml_1_1(text), yaml_1_2(text));
    // `y` and `n` are booleans to some readers of 1.1 and text to others.
    let certain = old.is_some() && old == new && !matches!(text, "y" | "Y" | "n" | "N");
    Meaning {
        value: old.unwrap_or_else(|| Value::String(text.to_owned())),
        certain,
    }
}

/// A reading: `None` for a value that JSON does not have.
type Reading = Option<Value>;

fn yaml_1_1(text: &str) -> Reading {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => return Some(true.into()),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Some(false.into());
        }
        "=" | "<<" => return None,
        _ => {}
    }
    if FLOAT_1_1.is_match(text) {
        float(&text.replace('_', ""))
    } else if SEXAGESIMAL_1_1.is_match(text) {
        sexagesimal(&text.replace('_', ""))
    } else if INT_1_1.is_match(text) {
        int_1_1(&text.replace('_', ""))
    } else if NOT_FINITE.is_match(text) || TIMESTAMP_1_1.is_match(text) {
        None
    } else {
        Some(Value::String(text.to_owned()))
    }
}

fn yaml_1_2(text: &str) -> Reading {
    match text {
        "true" | "True" | "TRUE" => return Some(true.into()),
        "false" | "False" | "FALSE" => return Some(false.into()),
        _ => {}
    }
    if DECIMAL_1_2.is_match(text) {
        whole(text, 10)
    } else if let Some(digits) = text.strip_prefix("0o").filter(|digits| is_base(digits, 8)) {
        whole(digits, 8)
    } else if let Some(digits) = text.strip_prefix("0x").filter(|digits| is_base(digits, 16)) {
        whole(digits, 16)
    } else if FLOAT_1_2.is_match(text) {
        float(text)
    } else if NOT_FINITE.is_match(text) {
        None
    } else {
        Some(Value::String(text.to_owned()))
    }
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the patterns in this file are valid")
}

static FLOAT_1_1: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?")
});
static SEXAGESIMAL_1_1: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"));
static INT_1_1: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[-+]?(?:0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)"));
static TIMESTAMP_1_1: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?",
    )
});
static NOT_FINITE: LazyLock<Regex> = LazyLock::new(|| pattern(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"));
static DECIMAL_1_2: LazyLock<Regex> = LazyLock::new(|| pattern("[-+]?[0-9]+"));
static FLOAT_1_2: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"));

fn is_base(digits: &str, base: u32) -> bool {
    !digits.is_empty() && digits.chars().all(|c| c.is_digit(base))
}

fn int_1_1(text: &str) -> Reading {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, base) = match digits.as_bytes() {
        [b'0', b'b', ..] => (text::rest(digits, 2), 2),
        [b'0', b'x', ..] => (text::rest(digits, 2), 16),
        [b'0', _, ..] => (text::rest(digits, 1), 8),
        _ => (digits, 10),
    };
    whole(&format!("{sign}{digits}"), base)
}

/// A whole number, or a float when it is too large for one, as JSON readers do.
fn whole(text: &str, base: u32) -> Reading {
    let text = text.strip_prefix('+').unwrap_or(text);
    let number = i64::from_str_radix(text, base).map(Number::from);
    match number.or_else(|_| u64::from_str_radix(text, base).map(Number::from)) {
        Ok(number) => Some(Value::Number(number)),
        Err(_) if base == 10 => float(text),
        Err(_) => None,
    }
}

fn float(text: &str) -> Reading {
    Number::from_f64(text.parse().ok()?).map(Value::Number)
}

/// Base 60: `1:30` is 90, `1:30.5` is 90.5.
fn sexagesimal(text: &str) -> Reading {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = sign
        * digits
            .split(':')
            .try_fold(0.0, |sum, part| part.parse::<f64>().map(|part| sum * 60.0 + part))
            .ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and below 2^53"
    )]
    if text.contains('.') || value.abs() > 9e15 {
        Number::from_f64(value).map(Value::Number)
    } else {
        Some(Value::from(value as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_both_versions_agree_on_is_certain() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("False", json!(false)),
            ("0", json!(0)),
            ("-17", json!(-17)),
            ("+3", json!(3)),
            ("0x1F", json!(31)),
            ("18446744073709551615", json!(u64::MAX)),
            ("0.90", json!(0.9)),
            (".5", json!(0.5)),
            ("1.5e+3", json!(1500.0)),
            ("int8", json!("int8")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("7b-model", json!("7b-model")),
            ("meta/llama: 8B", json!("meta/llama: 8B")),
        ] {
            assert_eq!(meaning(text), Meaning { value, certain: true }, "{text:?}");
        }
    }

    #[test]
    fn what_they_dispute_is_read_as_python_does() {
        for (text, value) in [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("y", json!("y")),
            ("1:30", json!(90)),
            ("-1:30.5", json!(-90.5)),
            ("1_000", json!(1000)),
            ("017", json!(15)),
            ("08", json!("08")),
            ("0b101", json!(5)),
            ("0o17", json!("0o17")),
            ("1e3", json!("1e3")),
            ("1e-5", json!("1e-5")),
            ("1.5e3", json!("1.5e3")),
            ("2026-11-22", json!("2026-11-22")),
            (".inf", json!(".inf")),
            ("=", json!("=")),
        ] {
            assert_eq!(
                meaning(text),
                Meaning {
                    value,
                    certain: false
                },
                "{text:?}"
            );
        }
    }
}
