//! Edits of YAML. The editor is yaml-edit, which keeps comments and layout; [`tree`] checks before and after.
//!
//! What is written means the same to readers of YAML 1.1 and 1.2: text is always in double quotes, floats are plain
//! decimals, and `true`, `false`, `null` and whole numbers need no care.

mod layout;
mod place;
mod plain;
mod tree;

use std::str::FromStr;

use serde_json::Value;
use yaml_edit::YamlFile;

use self::place::locate;
use self::tree::{Node, Shape, empty_map, put, take};
use super::error::{EditError, Reason};
use super::text::{self, Splice};
use super::value::literal;
use super::{Found, KeyPath};

pub(super) fn find(text: &str, path: &KeyPath) -> Result<Option<Found>, EditError> {
    let root = tree::parse(text)?;
    if let Some(root) = &root {
        place::refuse_tabs(text, root)?;
    }
    let place = locate(root.as_ref(), path)?;
    Ok(place.value.map(Node::found))
}

pub(super) fn set(text: &str, path: &KeyPath, value: &Value) -> Result<String, EditError> {
    let root = tree::parse(text)?;
    let place = locate(root.as_ref(), path)?;
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let literal = literal(value);

    let file = open(text)?;
    let comments_before = comments(&file);
    layout::write(&file, path, &place, &literal)
        .ok_or_else(|| misread("the editor could not reach the place"))?;
    let edited = layout::keep_blanks(text, file.to_string(), &place);

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
    if change.start >= text.trim_end().len()
        && !text.ends_with('\n')
        && root.as_ref().is_some_and(|root| root.last().is_block())
    {
        return Err(EditError::at(
            path,
            text::line_of(text, text.len()),
            Reason::OpenBlock,
        ));
    }
    if comments_before != comments(&open(&edited)?) {
        return Err(EditError::at(
            path,
            place.value.map(|value| value.line),
            Reason::Comment,
        ));
    }
    let mut expected = root.clone().unwrap_or_else(empty_map);
    put(&mut expected, path.keys(), &layout::our_tree(&literal)?)?;
    if tree::parse(&edited)?.as_ref() != Some(&expected) {
        return Err(misread("another value would change"));
    }
    Ok(edited)
}

/// By position: yaml-edit's own removal moves what follows.
pub(super) fn remove(text: &str, path: &KeyPath) -> Result<String, EditError> {
    let root = tree::parse(text)?;
    let place = locate(root.as_ref(), path)?;
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let Some(splices) = place
        .section
        .and_then(|section| layout::removal(text, &place, section))
    else {
        return Err(misread("the key cannot be taken out on its own"));
    };
    let edited = text::apply(text, &splices).ok_or_else(|| misread("the key is not in one piece"))?;
    // The comment on the key's own line goes with it.
    if comments(&open(text)?).len() > comments(&open(&edited)?).len() + 1 {
        return Err(EditError::at(
            path,
            place.value.map(|value| value.line),
            Reason::Comment,
        ));
    }
    let mut expected = root.clone().unwrap_or_else(empty_map);
    take(&mut expected, &place.entries);
    let after = tree::parse(&edited)?.unwrap_or_else(empty_map);
    if !edited.ends_with('\n') && after.last().is_block() {
        return Err(EditError::at(
            path,
            text::line_of(&edited, edited.len()),
            Reason::OpenBlock,
        ));
    }
    if after != expected {
        return Err(misread("another value would change"));
    }
    Ok(edited)
}

fn open(text: &str) -> Result<YamlFile, EditError> {
    YamlFile::from_str(text).map_err(|error| EditError::file(None, tree::invalid(error.to_string())))
}

fn comments(file: &YamlFile) -> Vec<String> {
    file.comments()
        .map(|comment| comment.content().to_owned())
        .collect()
}
