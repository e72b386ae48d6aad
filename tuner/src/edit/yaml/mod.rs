//! Edits of YAML. The editor is yaml-edit, which keeps comments and layout; [`tree`] checks before and after.
//!
//! What is written means the same to readers of YAML 1.1 and 1.2: text is always in double quotes, floats are plain
//! decimals, and `true`, `false`, `null` and whole numbers need no care.

mod plain;
mod tree;

use std::str::FromStr;

use serde_json::Value;
use yaml_edit::{Document, Mapping, MappingEntry, YamlFile};

use self::tree::{Node, Place, Shape};
use super::error::{EditError, Reason};
use super::text::{self, Splice};
use super::value::{literal, quoted};
use super::{Found, KeyPath};

pub(super) fn find(text: &str, path: &KeyPath) -> Result<Option<Found>, EditError> {
    let root = tree::parse(text)?;
    let place = tree::locate(root.as_ref(), path)?;
    Ok(place.value.map(Node::found))
}

pub(super) fn set(text: &str, path: &KeyPath, value: &Value) -> Result<String, EditError> {
    let root = tree::parse(text)?;
    let place = tree::locate(root.as_ref(), path)?;
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let literal = literal(value);

    let file = YamlFile::from_str(text).map_err(|error| unreadable(&error))?;
    write(&file, path, &place, &literal).ok_or_else(|| misread("the editor could not reach the place"))?;
    let edited = keep_blanks(text, file.to_string(), &place);

    let change = Splice::between(text, &edited).range;
    let own = match place.reached {
        // From behind the key to the end of the line on which the value ends, for what stands in the value's place.
        Some((key, value)) if !matches!(value.shape, Shape::Map(_)) => {
            key.range.end..text::line_end(text, value.range.end.max(key.range.end))
        }
        _ => change.start..change.start,
    };
    if !change.is_empty() && (change.start < own.start || change.end > own.end) {
        return Err(misread("more than the value would change"));
    }
    if comments(text)? != comments(&edited)? {
        return Err(EditError::at(
            path,
            place.value.map(|value| value.line),
            Reason::Comment,
        ));
    }
    let mut expected = root.clone().unwrap_or_else(empty_map);
    put(&mut expected, path.keys(), &our_tree(&literal)?)?;
    if tree::parse(&edited)?.as_ref() != Some(&expected) {
        return Err(misread("another value would change"));
    }
    Ok(edited)
}

/// Puts back blanks that yaml-edit takes away: empty lines behind a block of text, and those in front of the comment of
/// a section that was empty.
fn keep_blanks(text: &str, edited: String, place: &Place<'_>) -> String {
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

/// By position: yaml-edit's own removal moves what follows.
pub(super) fn remove(text: &str, path: &KeyPath) -> Result<String, EditError> {
    let root = tree::parse(text)?;
    let place = tree::locate(root.as_ref(), path)?;
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let Some(splices) = place.section.and_then(|section| removal(text, &place, section)) else {
        return Err(misread("the key does not stand on lines of its own"));
    };
    let edited = text::apply(text, &splices).ok_or_else(|| misread("the key is not in one piece"))?;
    // The comment on the key's own line goes with it.
    if comments(text)?.len() > comments(&edited)?.len() + 1 {
        return Err(EditError::at(
            path,
            place.value.map(|value| value.line),
            Reason::Comment,
        ));
    }
    let mut expected = root.clone().unwrap_or_else(empty_map);
    take(&mut expected, &place.entries);
    let after = tree::parse(&edited)?.unwrap_or_else(empty_map);
    if after != expected {
        return Err(misread("another value would change"));
    }
    Ok(edited)
}

/// What goes when the entry that `place` leads to goes from its section.
fn removal(text: &str, place: &Place<'_>, section: &Node) -> Option<Vec<Splice>> {
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

fn unreadable(error: &yaml_edit::YamlError) -> EditError {
    EditError::file(None, tree::invalid(error.to_string()))
}

fn comments(text: &str) -> Result<Vec<String>, EditError> {
    let file = YamlFile::from_str(text).map_err(|error| unreadable(&error))?;
    Ok(file
        .comments()
        .map(|comment| comment.content().to_owned())
        .collect())
}

fn empty_map() -> Node {
    Node {
        shape: Shape::Map(Vec::new()),
        anchor: 0,
        tag: None,
        line: 1,
        range: 0..0,
    }
}

/// Lets yaml-edit do it.
fn write(file: &YamlFile, path: &KeyPath, place: &Place<'_>, literal: &str) -> Option<()> {
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
fn key_literal(key: &str) -> String {
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

/// The tree of a literal or key of ours.
fn our_tree(literal: &str) -> Result<Node, EditError> {
    Ok(tree::parse(literal)?.unwrap_or_else(empty_map))
}

/// The tree as it should be after the edit.
fn put(node: &mut Node, keys: &[String], value: &Node) -> Result<(), EditError> {
    let Some((key, rest)) = keys.split_first() else {
        *node = value.clone();
        return Ok(());
    };
    if matches!(&node.shape, Shape::Plain(_)) {
        node.shape = Shape::Map(Vec::new());
    }
    if let Shape::Map(entries) = &mut node.shape {
        let known = entries.iter_mut().find(|(k, _)| k.scalar() == Some(key));
        match known {
            Some((_, inner)) => put(inner, rest, value)?,
            None => {
                let mut inner = empty_map();
                put(&mut inner, rest, value)?;
                entries.push((our_tree(&key_literal(key))?, inner));
            }
        }
    }
    Ok(())
}

/// Takes the entry out that these positions lead to.
fn take(node: &mut Node, entries: &[usize]) {
    if let (Shape::Map(here), Some((index, rest))) = (&mut node.shape, entries.split_first()) {
        match here.get_mut(*index) {
            Some(_) if rest.is_empty() => drop(here.remove(*index)),
            Some((_, inner)) => take(inner, rest),
            None => {}
        }
    }
}
