//! Mistakes in the configuration: file, line, key, and the nearest valid one.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a configuration is not used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("the configuration {} does not exist; name another with --config, or make one", path.display())]
    Missing { path: PathBuf },
    #[error("the configuration {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}{}: {message}{}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default(), hint(nearest.as_deref()))]
    Invalid { path: PathBuf, line: Option<usize>, message: String, nearest: Option<String> },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Turns what the TOML reader says into file, line and the nearest known key.
pub(super) fn from_toml(error: &toml_edit::de::Error, text: &str, path: &Path) -> ConfigError {
    let line = error.span().map(|span| line_of(text, span.start));
    let message = error.message().trim().replace('\n', "; ");
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    let (message, nearest) = match unknown {
        Some((key, rest)) => (format!("unknown key `{key}`"), nearest(key, rest.split('`').skip(1).step_by(2))),
        None => (message, None),
    };
    ConfigError::Invalid { path: path.to_owned(), line, message, nearest }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).div_ceil(2))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}
