//! Edits of configuration files that people wrote: one value changes, every other byte stays.
//!
//! Each format has one file here with the same three functions. They look the place up, refuse what cannot be edited
//! safely, and change the text only there. The result is then read again and must differ from the original in
//! exactly the intended place, or it is refused too.

mod error;
mod format;
mod json;
mod key_path;
mod text;
mod toml;
mod value;
mod yaml;

pub use error::{EditError, Reason};
pub use format::Format;
pub use key_path::{KeyPath, KeyPathError};

use serde_json::Value;

/// The largest file that is edited, bytes. Engines' configurations have a few kilobytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The value at `path`, or `None` when it is not there.
///
/// Where YAML 1.1 and 1.2 read a plain value differently (`on`, `1:30`, `017`), this is the reading of YAML 1.1, which
/// Python's loaders use.
///
/// # Errors
/// [`EditError`] when the file cannot be read, or the path does not lead to one certain place.
pub fn get(text: &str, format: Format, path: &KeyPath) -> Result<Option<Value>, EditError> {
    Ok(find(text, format, path)?.map(|found| found.value))
}

/// The text with `value` at `path`; missing sections are created. Every byte outside the value stays, and the text
/// stays as it is altogether when the value is there already.
///
/// # Errors
/// [`EditError`] when this cannot be done safely.
pub fn set(text: &str, format: Format, path: &KeyPath, value: &Value) -> Result<String, EditError> {
    if let Some(what) = unwritable(value, format) {
        return Err(EditError::at(path, None, Reason::Unwritable { format, what }));
    }
    match find(text, format, path)? {
        Some(found) if found.certain && found.value == *value => Ok(text.to_owned()),
        Some(found) if found.value.is_object() => {
            let key = path.keys().last().cloned().unwrap_or_default();
            Err(EditError::at(path, found.line, Reason::Section { key }))
        }
        _ => on_body(text, |body| match format {
            Format::Yaml => yaml::set(body, path, value),
            Format::Json => json::set(body, path, value),
            Format::Toml => toml::set(body, path, value),
        }),
    }
}

/// The text without the key at `path`: its line goes, and the comment on that line. Sections stay, even if empty; the
/// text stays as it is when the key is not there.
///
/// # Errors
/// [`EditError`] when this cannot be done safely, or the path leads to a section.
pub fn remove(text: &str, format: Format, path: &KeyPath) -> Result<String, EditError> {
    let Some(found) = find(text, format, path)? else {
        return Ok(text.to_owned());
    };
    if found.value.is_object() {
        let key = path.keys().last().cloned().unwrap_or_default();
        return Err(EditError::at(path, found.line, Reason::Section { key }));
    }
    on_body(text, |body| match format {
        Format::Yaml => yaml::remove(body, path),
        Format::Json => json::remove(body, path),
        Format::Toml => toml::remove(body, path),
    })
}

/// The bytes as text that can be edited.
///
/// # Errors
/// [`EditError`] when they are too many, or no UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, EditError> {
    if bytes.len() > MAX_BYTES {
        return Err(EditError::file(None, Reason::TooLarge { bytes: bytes.len() }));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        EditError::file(Some(line), Reason::NotUtf8)
    })
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The value.
    pub(crate) value: Value,
    /// Whether every reader of the format takes it for this value.
    pub(crate) certain: bool,
    /// The line it starts in, from 1.
    pub(crate) line: Option<usize>,
}

pub(crate) fn find(text: &str, format: Format, path: &KeyPath) -> Result<Option<Found>, EditError> {
    if text.len() > MAX_BYTES {
        return Err(EditError::file(None, Reason::TooLarge { bytes: text.len() }));
    }
    let body = text.strip_prefix(text::BOM).unwrap_or(text);
    match format {
        Format::Yaml => yaml::find(body, path),
        Format::Json => json::find(body, path),
        Format::Toml => toml::find(body, path),
    }
}

/// Keeps a byte order mark out of the parsers' sight.
fn on_body(text: &str, edit: impl FnOnce(&str) -> Result<String, EditError>) -> Result<String, EditError> {
    match text.strip_prefix(text::BOM) {
        Some(body) => edit(body).map(|edited| format!("{}{edited}", text::BOM)),
        None => edit(text),
    }
}

/// What about this value cannot be written: sections are set key by key, lists hold single values, TOML has no null.
fn unwritable(value: &Value, format: Format) -> Option<&'static str> {
    match value {
        Value::Null if format == Format::Toml => Some("null"),
        Value::Object(_) => Some("a section"),
        Value::Array(items) => items.iter().find_map(|item| match item {
            Value::Array(_) => Some("a list in a list"),
            item => unwritable(item, format),
        }),
        Value::Number(number) if format == Format::Toml && !number.is_f64() && number.as_i64().is_none() => {
            Some("a whole number above 2^63")
        }
        _ => None,
    }
}
