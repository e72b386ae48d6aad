//! What a clause looks at: the newest value, or a figure over a window that ends now.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

/// The newest value, or a figure over a window that ends now. Each value is weighted by how long it stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stat {
    /// The newest value.
    #[default]
    Last,
    /// The mean.
    Mean,
    /// The largest value.
    Max,
    /// The value that was not exceeded for so many hundredths of the window, 1 to 99.
    Percentile(u8),
    /// The mean of the window's second half over that of its first: below 1 while it falls. No rule asks for it by name.
    Change,
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Mean => f.write_str("mean"),
            Self::Max => f.write_str("max"),
            Self::Percentile(hundredths) => write!(f, "p{hundredths:02}"),
            Self::Change => f.write_str("change"),
        }
    }
}

impl FromStr for Stat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hundredths = |digits: &str| {
            let number = digits.parse().ok()?;
            (digits.len() == 2 && (1..=99).contains(&number)).then_some(Self::Percentile(number))
        };
        match text {
            "last" => Ok(Self::Last),
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            _ => text.strip_prefix('p').and_then(hundredths).ok_or_else(|| {
                format!("'{text}' is no stat; it may be last, mean, max or a percentile such as p95")
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Stat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Stat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["last", "mean", "max", "p50", "p95", "p05"] {
            assert_eq!(text.parse::<Stat>().unwrap().to_string(), text);
        }
        for text in [
            "", "change", "p", "p0", "p00", "p5", "p100", "p9x", "median", "P95",
        ] {
            assert!(
                text.parse::<Stat>().unwrap_err().contains("such as p95"),
                "{text}"
            );
        }
    }
}
