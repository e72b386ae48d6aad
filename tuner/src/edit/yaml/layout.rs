//! Writing into a YAML text, and what goes with an old entry.

use std::str::FromStr;

use yaml_edit::{Document, Mapping, MappingEntry, YamlFile};

use super::place::Place;
use super::plain;
use super::tree::{self, Node, Shape, empty_map};
use crate::edit::KeyPath;
use crate::edit::error::EditError;
use crate::edit::text::{self, Splice};
use crate::edit::value::quoted;

/// Lets yaml-edit do it.
pub(super) fn write(file: &YamlFile, path: &KeyPath, place: &Place<'_>, literal: &str) -> Option<()> {
    let value = Document::from_str(literal).ok()?;
    let (last, way) = path.keys().split_last()?;
    let document = file.ensure_document();
    let Some(mut section) = document.as_mapping() else {
        let nested =
            path.keys().iter().enumerate().skip(1).map(|(depth, key)| {
                format!("{:indent$}{}:\n", "", key_literal(key), indent = 2 * (depth - 1))
            });
        let nested = format!("{} {literal}\n", nested.collect::<String>().trim_end());
        return document
            .set(
                key_document(path.keys().first()?)?,
                Document::from_str(nested.trim_start()).ok()?,
            )
            .then_some(());
    };
    for (depth, key) in way.iter().enumerate() {
        let inner = entry(&section, place, depth).and_then(|entry| entry.value_node()?.as_mapping().cloned());
        section = match inner {
            Some(inner) => inner,
            None => section.entry(key_document(key)?).or_insert_mapping(),
        };
    }
    match entry(&section, place, way.len()) {
        Some(entry) => entry.set_value(value, section.is_flow_style()),
        None => section.set(key_document(last)?, value),
    }
    Some(())
}

fn entry(section: &Mapping, place: &Place<'_>, depth: usize) -> Option<MappingEntry> {
    section.entries().nth(*place.entries.get(depth)?)
}

/// A key as people write it, or in quotes where it might be taken for something else.
pub(super) fn key_literal(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && plain::meaning(key)
            == plain::Meaning {
                value: key.into(),
                certain: true,
            };
    if plain { key.to_owned() } else { quoted(key) }
}

fn key_document(key: &str) -> Option<Document> {
    Document::from_str(&key_literal(key)).ok()
}

/// Puts back blanks that yaml-edit takes away: empty lines behind a block of text, and those in front of the comment of
/// a section that was empty.
pub(super) fn keep_blanks(text: &str, edited: String, place: &Place<'_>) -> String {
    if let (None, Some((key, value))) = (place.value, place.reached)
        && value.range.is_empty()
        && edited.lines().count() > text.lines().count()
    {
        let line = |text: &str| text::line_end(text, text::line_start(text, key.range.start));
        let (above, below) = (text.get(..line(text)), edited.get(line(&edited)..));
        return format!("{}{}", above.unwrap_or_default(), below.unwrap_or_default());
    }
    let mut change = Splice::between(text, &edited);
    let removed = text.get(change.range.clone()).unwrap_or_default();
    if removed.ends_with('\n') && !change.text.ends_with('\n') {
        change.range.end = change.range.start + removed.trim_end().len();
        return text::apply(text, &[change]).unwrap_or(edited);
    }
    edited
}

/// What goes when the entry that `place` leads to goes from its section.
pub(super) fn removal(text: &str, place: &Place<'_>, section: &Node) -> Option<Vec<Splice>> {
    let Shape::Map(entries) = &section.shape else {
        return None;
    };
    let (index, (key, value)) = (*place.entries.last()?, place.reached?);
    let end = value.range.end.max(key.range.end);
    if text::rest(text, section.range.start).starts_with('{') {
        let range = match (
            entries.get(index + 1),
            index.checked_sub(1).and_then(|before| entries.get(before)),
        ) {
            (Some((next, _)), _) => key.range.start..next.range.start,
            (None, Some((before, value))) => value.range.end.max(before.range.end)..end,
            (None, None) => key.range.start..end,
        };
        return (!text.get(range.clone())?.contains('#')).then(|| vec![Splice::replace(range, "")]);
    }
    let start = text::line_start(text, key.range.start);
    if entries.len() == 1 && place.holder.is_none() && text.lines().any(|line| line.starts_with("...")) {
        // The end of a document that never began.
        return None;
    }
    if !text.get(start..key.range.start)?.trim_matches(' ').is_empty() {
        return None;
    }
    // A block of text reaches to the next thing; its last line is the last that has something.
    let end = start + text.get(start..end)?.trim_end().len();
    let lines = Splice::replace(text::whole_lines(text, start..end), "");
    Some(match place.holder.filter(|_| entries.len() == 1) {
        // The section must not turn into null.
        Some(holder) => {
            let colon = holder.range.end + text::rest(text, holder.range.end).find(':')? + 1;
            vec![Splice::insert(colon, " {}"), lines]
        }
        None => vec![lines],
    })
}

/// The tree of a literal or key of ours.
pub(super) fn our_tree(literal: &str) -> Result<Node, EditError> {
    Ok(tree::parse(literal)?.unwrap_or_else(empty_map))
}
