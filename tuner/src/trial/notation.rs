//! How a test of rules writes a series of readings: `0.5 x10, 0.5..0.9 over 60s, unknown for 5s, 80%`.
//!
//! Parts follow each other, with commas between them. A part is a value, `unknown`, or two values with `..` between them
//! for a straight line from one to the other; behind it `xN` for so many steps, or `for` or `over` and a time. A part
//! without either is one step. The last value stays until the test ends.

use std::fmt;
use std::time::Duration;

use plimsoll_trace::signal::Unit;
use plimsoll_trace::units::{Quantity, parse_duration};
use thiserror::Error;

/// More steps than this are no test.
pub const MOST_STEPS: u32 = 1_000_000;

/// A part of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The value at its start; `None` is unknown.
    pub from: Option<f64>,
    /// The value that it runs to; the same where it stays.
    pub to: Option<f64>,
    /// How long it lasts.
    pub lasts: Lasts,
}

/// How long a part lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// So many steps; at least one.
    Steps(u32),
    /// So long.
    Time(Duration),
}

/// A part that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{part}' in the series: {problem}")]
pub struct NotationError {
    /// The part as it was written.
    pub part: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads a series of a signal's values.
///
/// # Errors
/// [`NotationError`] with the first part that is not one.
pub fn parse(text: &str, unit: Unit) -> Result<Vec<Part>, NotationError> {
    text.split(',')
        .map(|part| {
            read(part.trim(), unit).map_err(|problem| NotationError {
                part: part.trim().to_owned(),
                problem,
            })
        })
        .collect()
}

fn read(text: &str, unit: Unit) -> Result<Part, String> {
    let mut words = text.split_whitespace();
    let Some(values) = words.next() else {
        return Err("it is empty; write a value, or unknown".to_owned());
    };
    let (from, to) = match values.split_once("..") {
        Some((from, to)) => (value(from, unit)?, value(to, unit)?),
        None => (value(values, unit)?, value(values, unit)?),
    };
    if from.is_none() != to.is_none() {
        return Err("a line runs between two values".to_owned());
    }
    let lasts = match (words.next(), words.next(), words.next()) {
        (None, ..) => Lasts::Steps(1),
        (Some(times), None, _) if times.starts_with('x') => steps(times)?,
        (Some("for" | "over"), Some(time), None) => match parse_duration(time) {
            Ok(time) if !time.is_zero() => Lasts::Time(time),
            Ok(_) => return Err("it lasts no time".to_owned()),
            Err(error) => return Err(error.to_string()),
        },
        _ => {
            return Err(
                "behind the value may come xN, or for or over and a time, such as `over 60s`".to_owned(),
            );
        }
    };
    Ok(Part { from, to, lasts })
}

fn steps(text: &str) -> Result<Lasts, String> {
    let number = text.strip_prefix('x').and_then(|number| number.parse().ok());
    match number.filter(|number| (1..=MOST_STEPS).contains(number)) {
        Some(number) => Ok(Lasts::Steps(number)),
        None => Err(format!(
            "'{text}' is no number of steps between x1 and x{MOST_STEPS}"
        )),
    }
}

fn value(text: &str, unit: Unit) -> Result<Option<f64>, String> {
    if text == "unknown" {
        return Ok(None);
    }
    let quantity = match text.parse::<f64>() {
        Ok(number) => Quantity::Number(number),
        Err(_) => Quantity::Text(text.to_owned()),
    };
    match unit.read(&quantity) {
        Ok(value) if value.is_finite() => Ok(Some(value)),
        Ok(_) => Err(format!("'{text}' is not a finite number")),
        Err(error) => Err(error.to_string()),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value =
            |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        f.write_str(&value(self.from))?;
        if self.from != self.to {
            write!(f, "..{}", value(self.to))?;
        }
        match self.lasts {
            Lasts::Steps(1) => Ok(()),
            Lasts::Steps(steps) => write!(f, " x{steps}"),
            Lasts::Time(time) => write!(f, " for {}ns", time.as_nanos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(from: Option<f64>, to: Option<f64>, lasts: Lasts) -> Part {
        Part { from, to, lasts }
    }

    #[test]
    fn parts_are_read_by_the_signal_s_unit() {
        let secs = |secs| Lasts::Time(Duration::from_secs(secs));
        assert_eq!(
            parse("0.5 x10, 50%..90% over 60s, unknown x5,1 for 2m", Unit::Ratio).unwrap(),
            [
                part(Some(0.5), Some(0.5), Lasts::Steps(10)),
                part(Some(0.5), Some(0.9), secs(60)),
                part(None, None, Lasts::Steps(5)),
                part(Some(1.0), Some(1.0), secs(120)),
            ]
        );
        let gib = f64::from(1 << 30);
        assert_eq!(
            parse("1GiB..2GiB x3", Unit::Bytes).unwrap(),
            [part(Some(gib), Some(2.0 * gib), Lasts::Steps(3))]
        );
        assert_eq!(parse("-1", Unit::Plain).unwrap()[0].from, Some(-1.0));
    }

    #[test]
    fn what_is_no_part_is_said() {
        for (text, says) in [
            ("", "it is empty"),
            ("1,,2", "it is empty"),
            ("1 x0", "no number of steps"),
            ("1 y", "behind the value"),
            ("1 for 0s", "it lasts no time"),
            ("1 for x", "not a duration"),
            ("4GiB", "not a ratio"),
            ("unknown..1", "between two values"),
            ("nan", "not a finite number"),
            ("1 over 5s 6", "behind the value"),
        ] {
            let error = parse(text, Unit::Ratio).unwrap_err();
            assert!(error.problem.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_refused(text in ".{0,60}") {
            drop(parse(&text, Unit::Bytes));
        }

        #[test]
        fn what_is_shown_is_read_back(
            parts in prop::collection::vec(
                (prop::option::of(-1e9..1e9_f64), -1e9..1e9_f64, any::<bool>(), 1..MOST_STEPS, 1..1_000_000_000_000_u64),
                1..6,
            ),
        ) {
            let parts: Vec<Part> = parts
                .into_iter()
                .map(|(from, to, timed, steps, ns)| {
                    let lasts = if timed { Lasts::Time(Duration::from_micros(ns)) } else { Lasts::Steps(steps) };
                    Part { from, to: from.map(|_| to), lasts }
                })
                .collect();
            let text: Vec<String> = parts.iter().map(ToString::to_string).collect();
            let again = parse(&text.join(", "), Unit::Plain).unwrap();
            prop_assert_eq!(again.len(), parts.len());
            for (one, other) in parts.iter().zip(&again) {
                prop_assert_eq!((one.from, one.to), (other.from, other.to));
            }
        }
    }
}
