//! Edits of JSON, with or without comments and trailing commas. The text is changed by position, so that an object
//! written on one line stays on one line.

mod layout;

use std::collections::BTreeSet;

use jsonc_parser::ast::{Object, Value as Node};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::ParseError;
use jsonc_parser::{
    CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast, parse_to_serde_value,
};
use serde_json::Value;

use super::error::{EditError, Reason};
use super::text::{self, Splice};
use super::value::{put, take};
use super::{Format, Found, KeyPath};

/// Comments and trailing commas, and nothing else beyond JSON.
const DIALECT: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn find(text: &str, path: &KeyPath) -> Result<Option<Found>, EditError> {
    let root = parse(text)?;
    let Some((value, [])) = locate(text, &root, path)?.value_and_rest(path) else {
        return Ok(None);
    };
    let range = value.range();
    let source = text.get(range.start..range.end).unwrap_or_default();
    Ok(Some(Found {
        value: values(source)?,
        certain: true,
        line: Some(text::line_of(text, range.start)),
    }))
}

pub(super) fn set(text: &str, path: &KeyPath, value: &Value) -> Result<String, EditError> {
    let root = parse(text)?;
    let place = locate(text, &root, path)?;
    let splices = match place.value_and_rest(path) {
        Some((node, missing)) if !matches!(node, Node::Object(_)) => {
            let (range, literal) = (node.range(), layout::nested(missing, value));
            vec![Splice::replace(range.start..range.end, literal)]
        }
        Some((Node::Object(section), [key, inner @ ..])) => {
            layout::insertion(text, section, key, inner, value)
        }
        _ => Vec::new(),
    };
    let mut expected = values(text)?;
    put(&mut expected, path.keys(), value);
    checked(text, path, &splices, &expected, 0)
}

pub(super) fn remove(text: &str, path: &KeyPath) -> Result<String, EditError> {
    let root = parse(text)?;
    let place = locate(text, &root, path)?;
    let Some((section, index)) = place.entry else {
        return Ok(text.to_owned());
    };
    let splices = layout::removal(text, section, index);
    let mut expected = values(text)?;
    take(&mut expected, path.keys());
    // The comment on the key's own line goes with it.
    checked(text, path, &splices, &expected, 1)
}

fn parse(text: &str) -> Result<Node<'_>, EditError> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &DIALECT).map_err(unreadable)?;
    parsed
        .value
        .ok_or_else(|| EditError::file(None, Reason::Empty { format: Format::Json }))
}

/// The values of a text, by the reader for serde.
fn values(text: &str) -> Result<Value, EditError> {
    parse_to_serde_value(text, &DIALECT).map_err(unreadable)
}

fn unreadable(error: ParseError) -> EditError {
    let message = error.kind().to_string();
    EditError::file(
        Some(error.line_display()),
        Reason::Invalid {
            format: Format::Json,
            message,
        },
    )
}

/// Where a path leads to.
struct Place<'a, 'text> {
    /// The value at the end of the way, as far as the keys are there.
    value: &'a Node<'text>,
    /// How many keys are there.
    depth: usize,
    /// The object that holds the value, and the position in it, if the whole path is there.
    entry: Option<(&'a Object<'text>, usize)>,
}

impl<'a, 'text> Place<'a, 'text> {
    /// The value, and the keys that are missing below it.
    fn value_and_rest<'k>(&self, path: &'k KeyPath) -> Option<(&'a Node<'text>, &'k [String])> {
        Some((self.value, path.keys().get(self.depth..)?))
    }
}

fn locate<'a, 'text>(
    text: &str,
    root: &'a Node<'text>,
    path: &KeyPath,
) -> Result<Place<'a, 'text>, EditError> {
    let mut place = Place {
        value: root,
        depth: 0,
        entry: None,
    };
    let mut name = "the file";
    for key in path.keys() {
        let line = text::line_of(text, place.value.range().start);
        let refused = |reason| Err(EditError::at(path, line, reason));
        let section = match place.value {
            Node::Object(section) => section,
            Node::NullKeyword(_) if place.depth > 0 => break,
            Node::Array(_) => return refused(Reason::ThroughList { key: name.into() }),
            _ => return refused(Reason::ThroughScalar { key: name.into() }),
        };
        let mut there = section
            .properties
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.name.as_str() == key);
        let Some((index, entry)) = there.next() else { break };
        if let Some((_, second)) = there.next() {
            let first_line = text::line_of(text, entry.range.start);
            let reason = Reason::Duplicate {
                key: key.clone(),
                first_line,
            };
            return Err(EditError::at(
                path,
                text::line_of(text, second.range.start),
                reason,
            ));
        }
        place = Place {
            value: &entry.value,
            depth: place.depth + 1,
            entry: (place.depth + 1 == path.keys().len()).then_some((section, index)),
        };
        name = key;
    }
    Ok(place)
}

/// The edited text, if it reads as expected and has lost no more than these comments.
fn checked(
    text: &str,
    path: &KeyPath,
    splices: &[Splice],
    expected: &Value,
    lost: usize,
) -> Result<String, EditError> {
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let edited = text::apply(text, splices).ok_or_else(|| misread("the place is not in one piece"))?;
    if values(&edited)? != *expected {
        return Err(misread("another value would change"));
    }
    if serde_json::from_str::<Value>(text).is_ok() && serde_json::from_str::<Value>(&edited).is_err() {
        return Err(misread("it would no longer be strict JSON"));
    }
    if comments(text)? > comments(&edited)? + lost {
        return Err(EditError::at(path, None, Reason::Comment));
    }
    Ok(edited)
}

/// How many comments there are.
fn comments(text: &str) -> Result<usize, EditError> {
    let collect = CollectOptions {
        comments: CommentCollectionStrategy::Separate,
        tokens: false,
    };
    let parsed = parse_to_ast(text, &collect, &DIALECT).map_err(unreadable)?;
    // Each is listed at the token before it and at the one behind it.
    let all = parsed
        .comments
        .iter()
        .flat_map(|map| map.values())
        .flat_map(|list| list.iter());
    Ok(all
        .map(|comment| comment.range().start)
        .collect::<BTreeSet<_>>()
        .len())
}
