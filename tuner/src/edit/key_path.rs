//! Where in a configuration file a value lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A path of keys into a configuration file: `model.quantization` is the key `quantization` in the section `model`.
///
/// Written as text, the keys are joined by dots. A key that itself contains a dot, a quote, a blank or nothing at all
/// is put in double quotes, in which `\"` and `\\` stand for themselves: `limits."model.max"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPath(Vec<String>);

/// A key path that could not be read. The text is a fragment that fits after "failed to read the key path:".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyPathError {
    /// Nothing, or nothing between two dots.
    #[error("'{0}' has an empty key; write for example \"model.quantization\"")]
    Empty(String),
    /// A quote that is not closed, or that has something other than a dot behind it.
    #[error("'{0}' has a misplaced quote; a key that contains a dot is written \"a.b\" in double quotes")]
    Quote(String),
    /// A line break or another control character.
    #[error("{0:?} has a control character, which no key may have")]
    Control(String),
}

impl KeyPath {
    /// A path of these keys, taken as they are.
    ///
    /// # Errors
    /// [`KeyPathError`] when there is no key, or one has a control character.
    pub fn new<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Result<Self, KeyPathError> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        if keys.is_empty() {
            return Err(KeyPathError::Empty(String::new()));
        }
        match keys.iter().find(|key| key.chars().any(char::is_control)) {
            Some(key) => Err(KeyPathError::Control(key.clone())),
            None => Ok(Self(keys)),
        }
    }

    /// The keys from the outermost to the innermost; at least one.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    /// Whether one of the two paths leads through or to the other, so that setting one may change the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, key) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            if key.is_empty() || key.contains(['.', '"', '\\']) || key.contains(char::is_whitespace) {
                write!(f, "\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))?;
            } else {
                f.write_str(key)?;
            }
        }
        Ok(())
    }
}

impl FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, KeyPathError> {
        let mut keys = Vec::new();
        let mut rest = text;
        loop {
            let (key, after) = match rest.strip_prefix('"') {
                Some(quoted) => read_quoted(quoted).ok_or_else(|| KeyPathError::Quote(text.to_owned()))?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    let (key, after) = rest.split_at(end);
                    if key.trim().is_empty() {
                        return Err(KeyPathError::Empty(text.to_owned()));
                    }
                    if key.contains('"') {
                        return Err(KeyPathError::Quote(text.to_owned()));
                    }
                    (key.trim().to_owned(), after)
                }
            };
            keys.push(key);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Self::new(keys),
                None => return Err(KeyPathError::Quote(text.to_owned())),
            }
        }
    }
}

/// The key up to the closing quote, and what follows it.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return text.get(at + 1..).map(|rest| (key, rest)),
            '\\' => key.push(chars.next().map(|(_, escaped)| escaped)?),
            _ => key.push(c),
        }
    }
    None
}

impl TryFrom<String> for KeyPath {
    type Error = KeyPathError;

    fn try_from(text: String) -> Result<Self, KeyPathError> {
        text.parse()
    }
}

impl From<KeyPath> for String {
    fn from(path: KeyPath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> KeyPath {
        text.parse().expect("a path")
    }

    #[test]
    fn dots_separate_and_quotes_protect() {
        assert_eq!(path("model.quantization").keys(), ["model", "quantization"]);
        assert_eq!(path("kv-cache-dtype").keys(), ["kv-cache-dtype"]);
        assert_eq!(
            path(r#"limits."model.max"."""#).keys(),
            ["limits", "model.max", ""]
        );
    }

    #[test]
    fn bad_paths_say_why() {
        for bad in ["", "a..b", ".a", "a.", " "] {
            assert_eq!(
                bad.parse::<KeyPath>(),
                Err(KeyPathError::Empty(bad.into())),
                "{bad:?}"
            );
        }
        for bad in [r#""a"#, r#""a"b"#, r#"a"b"#, r#""a\"#] {
            assert_eq!(
                bad.parse::<KeyPath>(),
                Err(KeyPathError::Quote(bad.into())),
                "{bad:?}"
            );
        }
        assert!(matches!("a\nb".parse::<KeyPath>(), Err(KeyPathError::Control(_))));
    }

    #[test]
    fn a_path_overlaps_what_it_leads_through() {
        assert!(path("model").overlaps(&path("model.quantization")));
        assert!(path("model.quantization").overlaps(&path("model")));
        assert!(!path("model.dtype").overlaps(&path("model.quantization")));
    }

    proptest! {
        #[test]
        fn text_and_back(keys in proptest::collection::vec("[^\\p{Cc}]{0,8}", 1..5)) {
            let written = KeyPath::new(keys).expect("no control characters");
            prop_assert_eq!(written.to_string().parse::<KeyPath>(), Ok(written));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(read) = text.parse::<KeyPath>() {
                prop_assert_eq!(read.to_string().parse::<KeyPath>(), Ok(read));
            }
        }
    }
}
