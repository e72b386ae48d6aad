//! The text that a configuration file shall have: what its author wrote, with what the active rungs set.

use serde_json::{Number, Value};

use crate::edit::{self, EditError, Format, KeyPath, Reason};
use crate::rule::{SetValue, Setting};

/// What one rung lays over the author's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// The rung's name.
    pub rung: String,
    /// What it sets.
    pub settings: Vec<Setting>,
}

/// The author's text with the overlays of all active rungs, in order: where two set one key, the later counts.
/// A scale is computed from the author's value, whatever other rungs do. Without overlays, the text byte for byte.
///
/// # Errors
/// [`EditError`] when a value cannot be set safely, or there is no number to scale.
pub fn render(base: &[u8], format: Format, overlays: &[Overlay]) -> Result<Vec<u8>, EditError> {
    let settings = || overlays.iter().flat_map(|overlay| &overlay.settings);
    if settings().next().is_none() {
        return Ok(base.to_vec());
    }
    let base = edit::text(base)?;
    let mut text = base.to_owned();
    for Setting { path, value } in settings() {
        text = match value {
            SetValue::Value(value) => edit::set(&text, format, path, value)?,
            SetValue::Scale { factor, min, max } => {
                let value = scaled(
                    base,
                    format,
                    path,
                    &Scale {
                        factor: *factor,
                        min: *min,
                        max: *max,
                    },
                )?;
                edit::set(&text, format, path, &value)?
            }
        };
    }
    Ok(text.into_bytes())
}

/// Which of these keys have another value, or another notation that readers may take for another value, in a new text.
/// A key that cannot be read in the new text any more counts as touched.
///
/// # Errors
/// [`EditError`] when one of the texts is not valid at all, so that nothing can be said about keys.
pub fn touched_keys<'a>(
    base: &[u8],
    new_base: &[u8],
    format: Format,
    keys: impl IntoIterator<Item = &'a KeyPath>,
) -> Result<Vec<KeyPath>, EditError> {
    let (base, new_base) = (edit::text(base)?, edit::text(new_base)?);
    let mut touched = Vec::new();
    for key in keys {
        let place = |text| match edit::find(text, format, key) {
            Ok(found) => Ok(Some(found.map(|found| (found.value, found.certain)))),
            Err(EditError { path: Some(_), .. }) => Ok(None),
            Err(error) => Err(error),
        };
        match (place(base)?, place(new_base)?) {
            (Some(before), Some(after)) if before == after => {}
            _ => touched.push(key.clone()),
        }
    }
    Ok(touched)
}

struct Scale {
    factor: f64,
    min: Option<f64>,
    max: Option<f64>,
}

fn scaled(base: &str, format: Format, path: &KeyPath, scale: &Scale) -> Result<Value, EditError> {
    let refused = |line, reason| {
        Err(EditError {
            path: Some(path.clone()),
            line,
            reason,
        })
    };
    let Some(found) = edit::find(base, format, path)? else {
        return refused(None, Reason::NothingToScale);
    };
    let Value::Number(number) = &found.value else {
        return refused(
            found.line,
            Reason::NotANumber {
                found: found.value.to_string(),
            },
        );
    };
    if !found.certain {
        return refused(
            found.line,
            Reason::Disputed {
                found: found.value.to_string(),
            },
        );
    }
    match scale.of(number) {
        Some(number) => Ok(Value::Number(number)),
        None => refused(found.line, Reason::BadScale),
    }
}

impl Scale {
    /// The scaled number. A whole number stays whole, rounded down. The limits never push it beyond where it was: a
    /// factor below 1 does not raise a value that already lies below `min`.
    fn of(&self, number: &Number) -> Option<Number> {
        let was = number.as_f64()?;
        let whole = !number.is_f64();
        let (mut min, mut max) = (
            self.min.unwrap_or(f64::NEG_INFINITY),
            self.max.unwrap_or(f64::INFINITY),
        );
        if whole {
            (min, max) = (min.ceil(), max.floor());
        }
        if self.factor < 1.0 {
            min = min.min(was);
        } else {
            max = max.max(was);
        }
        let product = was * self.factor;
        // 50 × 0.58 is a hair less than 29.
        let product = if whole {
            (product + product.abs() * 1e-12).floor()
        } else {
            rounded(product)
        };
        let result = if min <= max {
            product.clamp(min, max)
        } else {
            return None;
        };
        if !whole {
            return Number::from_f64(result);
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        (result.abs() < 9e15 && was.abs() < 9e15).then(|| Number::from(result as i64))
    }
}

/// To twelve digits: 0.9 × 0.9 is 0.81, not 0.81000000000000005.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> KeyPath {
        text.parse().expect("a key path")
    }

    fn overlay(rung: &str, settings: &[(&str, SetValue)]) -> Overlay {
        let setting = |(key, value): &(&str, SetValue)| Setting {
            path: path(key),
            value: value.clone(),
        };
        Overlay {
            rung: rung.into(),
            settings: settings.iter().map(setting).collect(),
        }
    }

    fn scale(factor: f64, min: Option<f64>, max: Option<f64>) -> SetValue {
        SetValue::Scale { factor, min, max }
    }

    fn rendered(base: &str, overlays: &[Overlay]) -> Result<String, String> {
        let bytes = render(base.as_bytes(), Format::Yaml, overlays).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn without_overlays_the_bytes_stay_even_if_they_are_no_text() {
        assert_eq!(render(b"\xff: {", Format::Yaml, &[]), Ok(b"\xff: {".to_vec()));
        let empty = overlay("none", &[]);
        assert_eq!(
            render(b"\xff: {", Format::Yaml, &[empty]),
            Ok(b"\xff: {".to_vec())
        );
    }

    #[test]
    fn later_rungs_win_and_scales_start_from_the_author() {
        let first = overlay(
            "first",
            &[
                ("seqs", scale(0.5, Some(16.0), None)),
                ("dtype", SetValue::Value(json!("fp8"))),
            ],
        );
        let second = overlay(
            "second",
            &[
                ("seqs", scale(0.25, Some(20.0), None)),
                ("dtype", SetValue::Value(json!("int8"))),
            ],
        );
        let base = "seqs: 64 # at once\ndtype: fp16\n";
        insta::assert_snapshot!(rendered(base, std::slice::from_ref(&first)).expect("renders"), @r#"
        seqs: 32 # at once
        dtype: "fp8"
        "#);
        insta::assert_snapshot!(rendered(base, &[first, second]).expect("renders"), @r#"
        seqs: 20 # at once
        dtype: "int8"
        "#);
    }

    #[test]
    fn scales_keep_whole_numbers_whole_and_never_turn_back() {
        let of = |value: Value, factor, min, max| {
            let Value::Number(number) = value else { return None };
            Scale { factor, min, max }.of(&number).map(Value::Number)
        };
        assert_eq!(of(json!(15), 0.5, None, None), Some(json!(7)));
        assert_eq!(of(json!(50), 0.58, None, None), Some(json!(29)));
        assert_eq!(of(json!(64), 0.1, Some(16.0), None), Some(json!(16)));
        assert_eq!(
            of(json!(8), 0.5, Some(16.0), None),
            Some(json!(8)),
            "was below min already"
        );
        assert_eq!(of(json!(8), 4.0, None, Some(20.0)), Some(json!(20)));
        assert_eq!(
            of(json!(30), 4.0, None, Some(20.0)),
            Some(json!(30)),
            "was above max already"
        );
        assert_eq!(of(json!(0.9), 0.9, None, None), Some(json!(0.81)));
        assert_eq!(of(json!(0.5), 0.5, Some(0.3), None), Some(json!(0.3)));
        assert_eq!(of(json!(10), 0.5, Some(9.5), None), Some(json!(10)));
        assert_eq!(of(json!(10), 0.5, Some(8.0), Some(7.0)), None);
        assert_eq!(of(json!(10), f64::NAN, None, None), None);
        assert_eq!(of(json!(10.0), f64::INFINITY, None, None), None);
        assert_eq!(of(json!(u64::MAX), 0.5, None, None), None);
    }

    #[test]
    fn what_cannot_be_scaled_says_why() {
        let half = |base| rendered(base, &[overlay("half", &[("seqs", scale(0.5, None, None))])]);
        insta::assert_snapshot!(half("a: 1\n").expect_err("refused"), @"seqs: the file has no value here that could be scaled; write one, or set a value instead of a scale");
        insta::assert_snapshot!(half("a: 1\nseqs: many\n").expect_err("refused"), @r#"seqs (line 2): "many" is not a number that can be scaled; write a number, or set a value instead of a scale"#);
        insta::assert_snapshot!(half("seqs: 0100\n").expect_err("refused"), @"seqs (line 1): YAML 1.1 and 1.2 disagree about what 64 means; write a plain decimal number, or quote it");
    }

    #[test]
    fn touched_keys_are_those_that_read_differently() {
        let keys = ["a", "b.c", "d", "e", "f", "new"].map(path);
        let base = b"a: 1\nb: {c: x}\nd: 0.9\ne: true\nf: 1\n";
        let new = b"# edited\nd: 0.90 # the same\nb:\n  c: x\na: 2\ne: on\nf: &f 1\n";
        let touched = touched_keys(base, new, Format::Yaml, &keys).expect("both are valid");
        assert_eq!(touched, ["a", "e", "f"].map(path));
        let touched = touched_keys(base, b"b: 3\nd: 0.9\ne: true\nf: 1\na: 1\n", Format::Yaml, &keys);
        assert_eq!(touched, Ok(vec![path("b.c")]));
        assert!(touched_keys(base, b"b: [\n", Format::Yaml, &keys).is_err());
    }
}
