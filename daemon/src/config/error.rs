//! Mistakes in the configuration: file, line, key, and the nearest valid one.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::locate::{Locator, line_of};

/// Why a configuration is not used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("the configuration {} ({named_by}) does not exist{}", path.display(), advice(path))]
    Missing { path: PathBuf, named_by: &'static str },
    #[error("the configuration {} cannot be read{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { " by this user; name another with --config" } else { "" })]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}{}: {message}{}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default(), hint(nearest.as_deref()))]
    Invalid {
        path: PathBuf,
        line: Option<usize>,
        message: String,
        nearest: Option<String>,
    },
}

/// What to do about a missing file, which is another thing for a link that leads nowhere.
fn advice(path: &Path) -> String {
    std::fs::read_link(path).map_or_else(
        |_| "; create it, or name another".to_owned(),
        |target| format!(": it is a link to {}, which cannot be followed", target.display()),
    )
}

fn hint(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// Turns what the TOML reader says into file, line, key and the nearest known key.
pub(super) fn from_toml(error: &toml_edit::de::Error, text: &str, path: &Path) -> ConfigError {
    let at = Locator::new(text, path);
    let span = error.span();
    let place = span.as_ref().map(|span| at.keys(span.start)).unwrap_or_default();
    let said = error.message().trim();
    let (message, nearest) = if let Some((key, known)) = named(said, "unknown field `") {
        // `[engines.chat]` is one place, and its first key is the unknown one.
        let depth = place.iter().rposition(|part| part == key).unwrap_or(place.len());
        unknown_key(key, place.get(..depth).unwrap_or_default(), &known)
    } else if let Some(misplaced) = at.stranger(&place, said) {
        unknown_key(&misplaced, &place, &alternatives(said))
    } else if let Some((key, _)) = named(said, "missing field `") {
        (format!("{}`{key}` is missing", before(&place)), None)
    } else if let Some((word, known)) = named(said, "unknown variant `") {
        (
            format!("{}'{word}' is none of {}", before(&place), known.join(", ")),
            nearest(word, known.iter().copied()),
        )
    } else if said == "duplicate key" {
        let key = span.and_then(|span| text.get(span)).unwrap_or_default().trim();
        (format!("`{key}` is there twice; write it once"), None)
    } else if let Some(form) = section_form(&place, said) {
        (form.to_owned(), None)
    } else {
        (format!("{}{}", before(&place), plain(said)), None)
    };
    ConfigError::Invalid {
        path: path.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        message,
        nearest,
    }
}

/// What to write instead of the wrong kind of brackets.
fn section_form(place: &[String], said: &str) -> Option<&'static str> {
    match (place.first()?.as_str(), said) {
        ("engine", "invalid type: sequence, expected a map") => {
            Some("write [engine.NAME] with single brackets, such as [engine.chat]")
        }
        ("rule", "invalid type: map, expected a sequence") => {
            Some("write [[rule]] with double brackets: there may be many")
        }
        _ => None,
    }
}

fn unknown_key(key: &str, parent: &[String], known: &[&str]) -> (String, Option<String>) {
    let near = nearest(key, known.iter().copied());
    let place = if parent.is_empty() {
        String::new()
    } else {
        format!(" in {}", join(parent))
    };
    // Without a near one, all that are known help more than nothing.
    let list = if near.is_none() {
        format!("; known here: {}", known.join(", "))
    } else {
        String::new()
    };
    (format!("unknown key `{key}`{place}{list}"), near)
}

/// The word between backquotes behind `prefix`, and the words between backquotes behind it.
fn named<'a>(said: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (word, rest) = said.strip_prefix(prefix)?.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

/// The keys that a message such as `expected "none" or a table with one of signal, http` allows.
pub(super) fn alternatives(said: &str) -> Vec<&str> {
    said.split_once("a table with one of ")
        .map(|(_, list)| list.split(", ").collect())
        .unwrap_or_default()
}

/// The words of serde in those of somebody who writes TOML.
fn plain(said: &str) -> String {
    // A regular expression's error is a picture of several lines; its last one says it.
    if let Some((head, picture)) = said.split_once("regex parse error:") {
        let reason = picture.lines().last().unwrap_or_default().trim();
        return format!("{head}{}", reason.strip_prefix("error: ").unwrap_or(reason));
    }
    if !alternatives(said).is_empty() {
        return "write \"none\", or one of { signal = \"HUP\" }, { http = \"POST http://…\" }, { command = [\"…\"] }, \
                { restart = \"x.service\" }"
            .to_owned();
    }
    if said == "invalid socket address syntax" {
        return "write an address with a port, such as \"127.0.0.1:9690\"".to_owned();
    }
    let typed = said
        .strip_prefix("invalid type: ")
        .or_else(|| said.strip_prefix("invalid value: "));
    let Some((found, expected)) = typed.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return said.replace('\n', "; ");
    };
    let expected = match expected {
        "a string" => "text in quotes",
        "path string" => "a path in quotes",
        "socket address" => "an address with a port, such as \"127.0.0.1:9690\"",
        "a sequence" => "a list",
        "a map" => "a table",
        "u16" => "a number from 0 to 65535",
        "i64" => "a whole number",
        other if other.starts_with("struct ") => "a table, such as { key = value }",
        other => other,
    };
    let found = match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", number)) => format!(
            "the number {}",
            number.trim_start_matches("point ").trim_matches('`')
        ),
        Some(("boolean", word)) => word.trim_matches('`').to_owned(),
        _ => match found {
            "map" => "a table",
            "sequence" => "a list",
            other => other,
        }
        .to_owned(),
    };
    format!("expected {expected}, found {found}")
}

/// "store.keep: ", or nothing at the top of the file.
fn before(keys: &[String]) -> String {
    if keys.is_empty() {
        String::new()
    } else {
        format!("{}: ", join(keys))
    }
}

/// "store.keep", but "rule 'quantize', when" as the rules' own messages have it.
fn join(keys: &[String]) -> String {
    match keys {
        [rule, name] if rule == "rule" => format!("rule {name}"),
        [rule, name, rest @ ..] if rule == "rule" => format!("rule {name}, {}", join(rest)),
        keys => keys.join(".").replace(".[", "["),
    }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).div_ceil(2))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
