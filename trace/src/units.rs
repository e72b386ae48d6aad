//! Quantities as people write and read them: `"250ms"`, `"512MiB"`, `0.8` or `"80%"`.
//!
//! All parsing, rounding and printing of units is here. Printed sizes are binary.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// A quantity that could not be read. The text is a fragment that fits after "failed to read the value:".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("'{0}' is not a duration; write for example \"250ms\", \"30s\", \"10m\" or \"2h\"")]
    Duration(String),
    /// Not a size.
    #[error("'{0}' is not a size; write for example \"512MiB\" or \"4GiB\"")]
    Size(String),
    /// Not a ratio.
    #[error("'{0}' is not a ratio; write for example 0.8 or \"80%\"")]
    Ratio(String),
}

/// Reads a duration: a number and one of ns, us, ms, s, m, h, d; parts may follow each other ("1h30m").
///
/// # Errors
/// [`UnitError::Duration`] for anything else, a negative number or one that does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let fail = || UnitError::Duration(text.to_owned());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, unit, tail) = split_number(rest).ok_or_else(fail)?;
        let secs = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(fail()),
        };
        let part = Duration::try_from_secs_f64(number * secs).map_err(|_| fail())?;
        total = total.checked_add(part).ok_or_else(fail)?;
        rest = tail;
    }
    Ok(total)
}

/// Reads a size in bytes: a number and one of B, KiB, MiB, GiB, TiB (binary) or kB, MB, GB, TB (decimal).
///
/// # Errors
/// [`UnitError::Size`] for anything else, a negative number or one that does not fit.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError::Size(text.to_owned());
    let (number, unit, tail) = split_number(text.trim()).ok_or_else(fail)?;
    let scale = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return Err(fail()),
    };
    let bytes = (number * scale).round();
    if !tail.is_empty() || bytes > 9.0e15 {
        return Err(fail());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be 0..9e15 above"
    )]
    Ok(bytes as u64)
}

/// Reads a ratio: `0.8` or `80%`.
///
/// # Errors
/// [`UnitError::Ratio`] for anything that is not a finite number.
pub fn parse_ratio(text: &str) -> Result<f64, UnitError> {
    let fail = || UnitError::Ratio(text.to_owned());
    let trimmed = text.trim();
    let (number, scale) = match trimmed.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 0.01),
        None => (trimmed, 1.0),
    };
    let value: f64 = number.parse().map_err(|_| fail())?;
    // Percentages are rounded to what was written, so that "92%" is 0.92 and not 0.9200000000000002.
    let value = if scale < 1.0 {
        (value * scale * 1e12).round() / 1e12
    } else {
        value
    };
    value.is_finite().then_some(value).ok_or_else(fail)
}

/// Splits "30s rest" into the number, the unit behind it, and what follows.
fn split_number(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text.get(..digits)?.parse().ok()?;
    let rest = text.get(digits..)?.trim_start();
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(letters);
    number.is_finite().then_some((number, unit, tail.trim_start()))
}

/// Prints a size: "512 B", "1.5 KiB", "44.1 GiB".
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "printed with one decimal")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Prints a duration in at most two units: "250 ms", "1.5 s", "2 min 5 s", "3 h 20 min", "2 d 4 h".
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0 if duration.subsec_nanos() == 0 => "0 s".to_owned(),
        0 if duration.as_millis() == 0 => format!("{} µs", duration.as_micros()),
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3_600 => two(secs / 60, "min", secs % 60, "s"),
        3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// Prints a ratio as a percentage with at most one decimal: "80 %", "92.5 %".
#[must_use]
pub fn show_ratio(ratio: f64) -> String {
    let percent = (ratio * 1000.0).round() / 10.0;
    if percent.fract() == 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

macro_rules! quantity {
    ($(#[$meta:meta])* $name:ident($inner:ty), $parse:expr, $number:expr, $expecting:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $parse(text).map($name).map_err(E::custom)
                    }
                    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$name, E> {
                        $number(number).map($name).map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        #[expect(clippy::cast_precision_loss, reason = "configuration values are small")]
                        self.visit_f64(number as f64)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$name, E> {
                        i64::try_from(number).map_err(E::custom).and_then(|number| self.visit_i64(number))
                    }
                }
                deserializer.deserialize_any(Read)
            }
        }
    };
}

quantity!(
    /// A duration in a configuration file: `"30s"`. A bare number is refused, because its unit is a guess; 0 is 0.
    Period(Duration),
    parse_duration,
    |number: f64| if number == 0.0 { Ok(Duration::ZERO) } else { Err(UnitError::Duration(number.to_string())) },
    "a duration such as \"30s\""
);
quantity!(
    /// A size in a configuration file: `"512MiB"`, or a number of bytes.
    Size(u64),
    parse_size,
    |number: f64| parse_size(&number.to_string()),
    "a size such as \"512MiB\""
);
quantity!(
    /// A ratio in a configuration file: `0.8` or `"80%"`.
    Ratio(f64),
    parse_ratio,
    |number: f64| parse_ratio(&number.to_string()),
    "a ratio such as 0.8 or \"80%\""
);

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ns", self.0.as_nanos()))
    }
}

/// A quantity whose unit is known only later, from the signal it is compared with: a number, or text with a unit.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    /// A bare number, in the base unit of the signal.
    Number(f64),
    /// Text with a unit, such as `"92%"`, `"800MiB"` or `"10m"`.
    Text(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(f64),
            Text(String),
        }
        match Raw::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a number or text with a unit"))?
        {
            Raw::Number(number) => Ok(Self::Number(number)),
            Raw::Text(text) => Ok(Self::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("0", 0),
            (" 1.5 s ", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1x",
            "1s2",
            "99999999999999999999d",
            "1e3s",
            ".",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("4GiB", 4 << 30),
            ("1.5 KiB", 1536),
            ("10MB", 10_000_000),
            ("7", 7),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "4Gib", "4 GiB x", "1e30", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_ratios_as_written() {
        for (text, ratio) in [
            ("0.8", 0.8),
            ("80%", 0.8),
            ("92 %", 0.92),
            ("-5%", -0.05),
            ("3", 3.0),
        ] {
            assert_eq!(parse_ratio(text), Ok(ratio), "{text}");
        }
        for text in ["", "%", "NaN", "inf", "80%%", "high"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1_048_550, "1.0 MiB"),
            (44 << 30, "44.0 GiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
        for (millis, text) in [
            (0, "0 s"),
            (250, "250 ms"),
            (1500, "1.5 s"),
            (42_000, "42 s"),
            (125_000, "2 min 5 s"),
            (7_200_000, "2 h"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(show_ratio(0.8), "80 %");
        assert_eq!(show_ratio(0.9254), "92.5 %");
    }

    #[test]
    fn quantities_come_from_numbers_and_text() {
        assert_eq!(serde_json::from_str::<Ratio>("\"92%\"").ok(), Some(Ratio(0.92)));
        assert_eq!(serde_json::from_str::<Size>("512").ok(), Some(Size(512)));
        assert_eq!(
            serde_json::from_str::<Period>("0").ok(),
            Some(Period(Duration::ZERO))
        );
        assert!(serde_json::from_str::<Period>("30").is_err());
        assert_eq!(
            serde_json::from_str::<Quantity>("4").ok(),
            Some(Quantity::Number(4.0))
        );
        assert_eq!(
            serde_json::from_str::<Quantity>("\"4GiB\"").ok(),
            Some(Quantity::Text("4GiB".into()))
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,24}") {
            let _ = (parse_duration(&text).is_ok(), parse_size(&text).is_ok(), parse_ratio(&text).is_ok());
        }

        #[test]
        fn printed_sizes_read_back_within_rounding(bytes in 0_u64..1 << 50) {
            let back = parse_size(&show_bytes(bytes)).expect("own text");
            prop_assert!(back.abs_diff(bytes) <= bytes / 19 + 1);
        }
    }
}
