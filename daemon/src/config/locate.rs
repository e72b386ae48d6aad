//! Where in the file a key is, so that a mistake found after reading still names its line.

use std::path::Path;

use toml_edit::{Document, Item};

use super::error::{ConfigError, line_of};

pub(super) struct Locator<'a> {
    text: &'a str,
    path: &'a Path,
    document: Option<Document<String>>,
}

impl<'a> Locator<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        Self { text, path, document: Document::parse(text.to_owned()).ok() }
    }

    /// An error at `keys`, or at the nearest parent that is written in the file. A number picks from an array.
    pub(super) fn error(&self, keys: &[&str], message: String, nearest: Option<String>) -> ConfigError {
        ConfigError::Invalid { path: self.path.to_owned(), line: self.line(keys), message, nearest }
    }

    fn line(&self, keys: &[&str]) -> Option<usize> {
        let mut item: &Item = self.document.as_ref()?.as_item();
        let mut found = None;
        for key in keys {
            let next = match key.parse::<usize>() {
                Ok(index) if item.is_array_of_tables() || item.is_array() => item.get(index),
                _ => item.get(key),
            };
            let Some(next) = next else { break };
            let key_span = item.as_table_like().and_then(|table| table.key(key)).and_then(|key| key.span());
            found = key_span.or_else(|| next.span()).or(found);
            item = next;
        }
        found.map(|span| line_of(self.text, span.start))
    }
}
