//! Where a new entry goes in a TOML text, and what goes with an old one.

use serde_json::Value as Json;
use toml_edit::{Document, Item, TableLike};

use super::Place;
use crate::edit::KeyPath;
use crate::edit::text::{self, Splice};
use crate::edit::value::{literal, quoted};

pub(super) fn is_dotted(item: &Item) -> bool {
    item.as_table_like().is_some_and(TableLike::is_dotted)
}

/// Where the last value in a section ends, those behind dotted keys included, but not those of sections below it.
fn last_value_end(section: &dyn TableLike) -> Option<usize> {
    section
        .get_values()
        .last()
        .and_then(|(_, value)| value.span())
        .map(|span| span.end)
}

/// A new entry behind the others of its section, or a new section at the end of the file.
pub(super) fn insertion(
    text: &str,
    document: &Document<&str>,
    place: &Place<'_>,
    keys: &[String],
    value: &Json,
) -> Option<Splice> {
    let eol = text::line_ending(text);
    let item = place.sections.last()?;
    let section = item.as_table_like()?;
    let (known, missing) = keys.split_at_checked(place.sections.len() - 1)?;
    if item.is_inline_table() && !is_dotted(item) {
        return inline_insertion(text, item, missing, value);
    }
    // Dotted keys are written from the nearest section with a header, or from the braces around them.
    let dotted = place
        .sections
        .iter()
        .rev()
        .take_while(|section| is_dotted(section))
        .count();
    let from = known.len() - dotted;
    let entry = |keys: &[String]| format!("{} = {}", dotted_key(keys), literal(value));
    if dotted > 0 {
        let end = last_value_end(section)?;
        let entry = entry(keys.get(from..)?);
        let holder = place.sections.get(from)?;
        return Some(if holder.is_inline_table() {
            Splice::insert(end, format!(", {entry}"))
        } else {
            Splice::insert(
                text::line_end(text, end),
                format!("{eol}{}{entry}", text::indentation(text, end)),
            )
        });
    }
    let header = item
        .as_table()
        .filter(|table| !table.is_implicit())
        .and_then(|table| table.span());
    let is_root = known.is_empty();
    if missing.len() > 1 || (header.is_none() && !is_root) {
        let (key, section) = keys.split_last()?;
        let header = format!(
            "[{}]{eol}{}",
            dotted_key(section),
            entry(std::slice::from_ref(key))
        );
        return Some(appended(text, &header));
    }
    let entry = entry(missing);
    match (last_value_end(section), header) {
        (Some(end), _) => {
            let indent = text::indentation(text, end);
            Some(Splice::insert(
                text::line_end(text, end),
                format!("{eol}{indent}{entry}"),
            ))
        }
        (None, Some(header)) if !is_root => Some(Splice::insert(
            text::line_end(text, header.end),
            format!("{eol}{entry}"),
        )),
        (None, _) => Some(match first_header(document) {
            Some(header) => {
                // Below what the file says of itself, above what it says of its first section.
                let above = text.get(..header).unwrap_or_default();
                let blank = above
                    .rfind("\n\n")
                    .map(|at| at + 2)
                    .or_else(|| above.rfind("\n\r\n").map(|at| at + 3));
                Splice::insert(blank.unwrap_or(0), format!("{entry}{eol}{eol}"))
            }
            None => appended(text, &entry),
        }),
    }
}

/// Where the first `[` of a header stands.
fn first_header(document: &Document<&str>) -> Option<usize> {
    fn first(item: &Item) -> Option<usize> {
        let below = match item {
            Item::Table(table) => table.iter().filter_map(|(_, item)| first(item)).min(),
            Item::ArrayOfTables(tables) => tables.span().map(|span| span.start),
            _ => None,
        };
        let own = item
            .as_table()
            .filter(|table| !table.is_dotted())
            .and_then(|table| table.span());
        own.map(|span| span.start).into_iter().chain(below).min()
    }
    document
        .as_table()
        .iter()
        .filter_map(|(_, item)| first(item))
        .min()
}

/// At the end of the text, which keeps its final line ending or the lack of it.
fn appended(text: &str, addition: &str) -> Splice {
    let eol = text::line_ending(text);
    let gap = match text {
        "" => "",
        _ if !addition.starts_with('[') => "",
        _ => eol,
    };
    if text.is_empty() || text.ends_with('\n') {
        Splice::insert(text.len(), format!("{gap}{addition}{eol}"))
    } else {
        Splice::insert(text.len(), format!("{eol}{gap}{addition}"))
    }
}

fn inline_insertion(text: &str, item: &Item, missing: &[String], value: &Json) -> Option<Splice> {
    let (key, below) = missing.split_first()?;
    let nested = below.iter().rev().fold(literal(value), |inner, key| {
        format!("{{ {} = {inner} }}", bare(key))
    });
    let entry = format!("{} = {nested}", bare(key));
    match last_value_end(item.as_table_like()?) {
        Some(end) => Some(Splice::insert(end, format!(", {entry}"))),
        None => {
            let span = item.span()?;
            let empty = text
                .get(span.clone())?
                .strip_prefix('{')?
                .strip_suffix('}')?
                .trim()
                .is_empty();
            empty.then(|| Splice::replace(span, format!("{{ {entry} }}")))
        }
    }
}

pub(super) fn removal(text: &str, place: &Place<'_>, path: &KeyPath) -> Option<Vec<Splice>> {
    let section = place.sections.last()?.as_table_like()?;
    let (key, item) = section.get_key_value(path.keys().last()?)?;
    let (key, value) = (key.span()?, item.span()?);
    if place.sections.iter().any(|section| section.is_inline_table()) {
        let values: Vec<_> = section.get_values();
        let index = values
            .iter()
            .position(|(_, other)| other.span().as_ref() == Some(&value))?;
        let key_start = |at: usize| Some(values.get(at)?.0.first()?.span()?.start);
        let range = match (values.len(), index.checked_sub(1)) {
            (count, _) if index + 1 < count => key.start..key_start(index + 1)?,
            (_, Some(before)) => values.get(before)?.1.span()?.end..value.end,
            _ => key.start..value.end,
        };
        return Some(vec![Splice::replace(range, "")]);
    }
    // One key per line is TOML's rule, so its lines are its own.
    Some(vec![Splice::replace(
        text::whole_lines(text, key.start..value.end),
        "",
    )])
}

fn dotted_key(keys: &[String]) -> String {
    keys.iter().map(|key| bare(key)).collect::<Vec<_>>().join(".")
}

/// A key as people write it, or in quotes where it must be.
fn bare(key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if plain { key.to_owned() } else { quoted(key) }
}
