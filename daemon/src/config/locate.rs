//! Where in the file a key is, and which key is at a place, so that each mistake names both.

use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item};

use super::error::{ConfigError, alternatives};

pub(super) struct Locator<'a> {
    text: &'a str,
    path: &'a Path,
    document: Option<Document<String>>,
}

impl<'a> Locator<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        Self {
            text,
            path,
            document: Document::parse(text.to_owned()).ok(),
        }
    }

    /// An error at `keys`, or at the nearest parent that is written in the file. A number picks from a list.
    pub(super) fn error(&self, keys: &[&str], message: String, nearest: Option<String>) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.to_owned(),
            line: self.line(keys),
            message,
            nearest,
        }
    }

    pub(super) fn line(&self, keys: &[&str]) -> Option<usize> {
        let mut item: &Item = self.document.as_ref()?.as_item();
        let mut found = None;
        let mut rest = keys;
        // A key of the file may be several of ours: "model.quantization" is one key there.
        while let Some((next, span, taken)) = (1..=rest.len()).rev().find_map(|count| {
            let (next, span) = child(item, &rest[..count].join("."))?;
            Some((next, span, count))
        }) {
            found = span.or(found);
            item = next;
            rest = &rest[taken..];
        }
        found.map(|span| line_of(self.text, span.start))
    }

    /// The keys that lead to a place in the text, for people: `store`, `keep`, `raw`; a rule is told by its name.
    pub(super) fn keys(&self, offset: usize) -> Vec<String> {
        let document = self.document.as_ref().map(Document::as_item);
        document
            .and_then(|item| descend(item, offset))
            .unwrap_or_default()
    }

    /// For a table that none of several forms fits: the key in it that belongs to none of them.
    pub(super) fn stranger(&self, place: &[String], said: &str) -> Option<String> {
        let known = alternatives(said);
        let keys: Vec<&str> = place.iter().map(String::as_str).collect();
        let mut item: &Item = self.document.as_ref()?.as_item();
        for key in keys {
            item = child(item, key)?.0;
        }
        let strange = item
            .as_table_like()?
            .iter()
            .map(|(key, _)| key)
            .find(|key| !known.contains(key));
        strange.filter(|_| !known.is_empty()).map(str::to_owned)
    }
}

/// What is below `item` under this key or number, and where the key, or else the value, is written.
fn child<'i>(item: &'i Item, key: &str) -> Option<(&'i Item, Option<Range<usize>>)> {
    let next = match key.parse::<usize>() {
        Ok(index) if is_list(item) => item.get(index),
        _ => item.get(key),
    }?;
    let key_span = item
        .as_table_like()
        .and_then(|table| table.key(key))
        .and_then(toml_edit::Key::span);
    Some((next, key_span.or_else(|| next.span())))
}

fn is_list(item: &Item) -> bool {
    item.is_array_of_tables() || item.is_array()
}

/// The keys from `item` down to the deepest key or value that covers `offset`.
fn descend(item: &Item, offset: usize) -> Option<Vec<String>> {
    let covers = |span: Option<Range<usize>>| span.is_some_and(|span| span.contains(&offset));
    if is_list(item) {
        return (0..)
            .map_while(|index| item.get(index).map(|next| (index, next)))
            .find_map(|(index, next)| {
                let below = descend(next, offset).or_else(|| covers(next.span()).then(Vec::new))?;
                let name = match next.get("name").and_then(Item::as_str) {
                    Some(name) => format!("'{name}'"),
                    None if item.is_array() => format!("[{index}]"),
                    None => (index + 1).to_string(),
                };
                Some([vec![name], below].concat())
            });
    }
    let table = item.as_table_like()?;
    table.iter().find_map(|(key, next)| {
        let here = || covers(table.key(key).and_then(toml_edit::Key::span)) || covers(next.span());
        let below = descend(next, offset).or_else(|| here().then(Vec::new))?;
        Some([vec![key.to_owned()], below].concat())
    })
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1
}
