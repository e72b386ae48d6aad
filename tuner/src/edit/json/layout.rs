//! Where a new entry goes in a JSON text, and what goes with an old one.

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp};
use serde_json::Value;

use crate::edit::text::{self, Splice};
use crate::edit::value::{literal, quoted};

/// The value inside objects of these keys, on one line.
pub(super) fn nested(keys: &[String], value: &Value) -> String {
    keys.iter().rev().fold(literal(value), |inner, key| {
        format!("{{{}: {inner}}}", quoted(key))
    })
}

/// A new last entry of an object, laid out as the others are.
pub(super) fn insertion(
    text: &str,
    section: &Object<'_>,
    key: &str,
    inner: &[String],
    value: &Value,
) -> Vec<Splice> {
    let entry = format!("{}: {}", quoted(key), nested(inner, value));
    let inside = section.range.start + 1..section.range.end.saturating_sub(1);
    let Some(last) = section.properties.last() else {
        let content = text.get(inside.clone()).unwrap_or_default();
        let blank = content.trim().is_empty();
        if !content.contains('\n') {
            let at = inside.start + content.trim_end().len();
            return vec![if blank {
                Splice::replace(inside, entry)
            } else {
                Splice::insert(at, format!(" {entry}"))
            }];
        }
        let eol = text::line_ending(text);
        let outer = text::indentation(text, section.range.start);
        let at = inside.start + content.trim_end().len();
        return vec![Splice::insert(at, format!("{eol}{outer}{}{entry}", unit(text)))];
    };
    let Tail { comma, end, own_line } = tail(text, last.range.end);
    let separator = if comma.is_some() { "" } else { "," };
    if !own_line {
        let at = comma.unwrap_or(last.range.end);
        return vec![Splice::insert(at, format!("{separator} {entry}"))];
    }
    let (eol, indent) = (text::line_ending(text), text::indentation(text, last.range.start));
    let trailing = if comma.is_some() { "," } else { "" };
    vec![
        Splice::insert(comma.unwrap_or(last.range.end), separator),
        Splice::insert(end, format!("{eol}{indent}{entry}{trailing}")),
    ]
}

/// What follows an entry on its line.
struct Tail {
    /// Where a comma ends.
    comma: Option<usize>,
    /// Where the line ends: behind comments, before the line ending.
    end: usize,
    /// Whether nothing else follows on that line.
    own_line: bool,
}

fn tail(text: &str, from: usize) -> Tail {
    let mut tail = Tail {
        comma: None,
        end: from,
        own_line: false,
    };
    loop {
        let rest = text::rest(text, tail.end);
        let skip = match rest.chars().next() {
            Some(',') if tail.comma.is_none() => {
                tail.comma = Some(tail.end + 1);
                1
            }
            Some(' ' | '\t') => 1,
            Some('\r' | '\n') => {
                tail.own_line = true;
                return tail;
            }
            Some('/') if rest.starts_with("//") => text::line_end(text, tail.end) - tail.end,
            Some('/') if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ => return tail,
        };
        tail.end += skip;
    }
}

/// One step of indentation: that of the first line that has one.
fn unit(text: &str) -> &str {
    let indented = text
        .lines()
        .find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    indented.map_or("  ", |line| text::indentation(line, 0))
}

pub(super) fn removal(text: &str, section: &Object<'_>, index: usize) -> Vec<Splice> {
    let range_of = |entry: &ObjectProp<'_>| entry.range.start..entry.range.end;
    let Some(own) = section.properties.get(index).map(range_of) else {
        return Vec::new();
    };
    let before = index
        .checked_sub(1)
        .and_then(|before| section.properties.get(before))
        .map(range_of);
    let after = section.properties.get(index + 1).map(range_of);
    let Tail { comma, end, own_line } = tail(text, own.end);
    let starts_line = text::rest(text, text::line_start(text, own.start))
        .trim_start()
        .len()
        == text::rest(text, own.start).len();
    if own_line && starts_line {
        // Without the last entry, the one before must not keep a comma that was not the author's style.
        let dangling = before.filter(|_| after.is_none() && comma.is_none());
        let dangling = dangling.and_then(|before| tail(text, before.end).comma.map(|comma| comma - 1..comma));
        let lines = text::whole_lines(text, own.start..end);
        dangling
            .into_iter()
            .chain([lines])
            .map(|range| Splice::replace(range, ""))
            .collect()
    } else {
        let range: Range<usize> = match (before, after) {
            (_, Some(after)) => own.start..after.start,
            (Some(before), None) => before.end..own.end,
            (None, None) => own.start..comma.unwrap_or(own.end),
        };
        vec![Splice::replace(range, "")]
    }
}
