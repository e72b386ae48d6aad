//! Edits of TOML. toml_edit says where things stand; the text is changed by position, because what toml_edit writes
//! itself loses carriage returns, and the comment behind a replaced value.

use serde_json::Value as Json;
use toml_edit::{Document, Item, TableLike, TomlError, Value};

use super::error::{EditError, Reason};
use super::text::{self, Splice};
use super::value::{literal, put, quoted, take};
use super::{Format, Found, KeyPath};

pub(super) fn find(text: &str, path: &KeyPath) -> Result<Option<Found>, EditError> {
    let document = parse(text)?;
    let place = locate(text, document.as_item(), path)?;
    Ok(place.value.map(|item| Found {
        value: json(item),
        certain: true,
        line: line(text, item),
    }))
}

pub(super) fn set(text: &str, path: &KeyPath, value: &Json) -> Result<String, EditError> {
    let document = parse(text)?;
    let place = locate(text, document.as_item(), path)?;
    let splices = match place.value {
        Some(item) => item
            .span()
            .map(|span| vec![Splice::replace(span, literal(value))]),
        None => insertion(text, &document, &place, path.keys(), value).map(|splice| vec![splice]),
    };
    let mut expected = values(text)?;
    put(&mut expected, path.keys(), value);
    checked(text, path, splices, &expected)
}

pub(super) fn remove(text: &str, path: &KeyPath) -> Result<String, EditError> {
    let document = parse(text)?;
    let place = locate(text, document.as_item(), path)?;
    let mut expected = values(text)?;
    take(&mut expected, path.keys());
    // A section that is written as dotted keys is gone with the last of them.
    let mut keys = path.keys();
    for section in place
        .sections
        .iter()
        .rev()
        .take_while(|section| is_dotted(section))
    {
        keys = keys.split_last().map_or(keys, |(_, outer)| outer);
        if section.as_table_like().is_some_and(|table| table.len() == 1) {
            take(&mut expected, keys);
        } else {
            break;
        }
    }
    checked(text, path, removal(text, &place, path), &expected)
}

fn parse(text: &str) -> Result<Document<&str>, EditError> {
    Document::parse(text).map_err(|error| unreadable(text, &error))
}

/// The values of a text, by the reader for serde.
fn values(text: &str) -> Result<Json, EditError> {
    toml_edit::de::from_str(text).map_err(|error| {
        let message = error.message().to_owned();
        EditError::file(
            None,
            Reason::Invalid {
                format: Format::Toml,
                message,
            },
        )
    })
}

fn unreadable(text: &str, error: &TomlError) -> EditError {
    let line = error.span().map(|span| text::line_of(text, span.start));
    let message = error.message().replace('\n', ", ");
    EditError::file(
        line,
        Reason::Invalid {
            format: Format::Toml,
            message,
        },
    )
}

/// Where a path leads to.
struct Place<'a> {
    /// The sections on the way that are there, from the whole file down.
    sections: Vec<&'a Item>,
    /// The value, if every key is there.
    value: Option<&'a Item>,
}

fn locate<'a>(text: &str, root: &'a Item, path: &KeyPath) -> Result<Place<'a>, EditError> {
    let mut place = Place {
        sections: Vec::new(),
        value: Some(root),
    };
    let mut name = "the file";
    for key in path.keys() {
        let Some(item) = place.value else { break };
        let Some(section) = item.as_table_like() else {
            let name = name.to_owned();
            let list = item.is_array() || item.is_array_of_tables();
            let reason = if list {
                Reason::ThroughList { key: name }
            } else {
                Reason::ThroughScalar { key: name }
            };
            return Err(EditError::at(path, line(text, item), reason));
        };
        place.sections.push(item);
        place.value = section.get(key).filter(|item| !item.is_none());
        name = key;
    }
    match place.value {
        Some(item) if item.is_array_of_tables() => {
            let reason = Reason::Section { key: name.to_owned() };
            Err(EditError::at(path, line(text, item), reason))
        }
        _ => Ok(place),
    }
}

fn line(text: &str, item: &Item) -> Option<usize> {
    item.span().map(|span| text::line_of(text, span.start))
}

fn is_dotted(item: &Item) -> bool {
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
fn insertion(
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

fn removal(text: &str, place: &Place<'_>, path: &KeyPath) -> Option<Vec<Splice>> {
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

/// The edited text, if it reads as expected.
fn checked(
    text: &str,
    path: &KeyPath,
    splices: Option<Vec<Splice>>,
    expected: &Json,
) -> Result<String, EditError> {
    let misread = |detail| EditError::at(path, None, Reason::Misread { detail });
    let splices = splices.ok_or_else(|| misread("the section has no place of its own"))?;
    for splice in &splices {
        // Of a value's lines, only the last may end in a comment.
        let removed = text.get(splice.range.clone()).unwrap_or_default().trim_end();
        let inner = removed.rsplit_once('\n').map_or("", |(inner, _)| inner);
        if inner.lines().any(|line| line.contains('#')) {
            return Err(EditError::at(
                path,
                text::line_of(text, splice.range.start),
                Reason::Comment,
            ));
        }
    }
    let edited = text::apply(text, &splices).ok_or_else(|| misread("the place is not in one piece"))?;
    if values(&edited)? != *expected {
        return Err(misread("another value would change"));
    }
    Ok(edited)
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

/// The value for rules and people. Dates are their text.
fn json(item: &Item) -> Json {
    fn of(value: &Value) -> Json {
        match value {
            Value::String(text) => Json::from(text.value().as_str()),
            Value::Integer(number) => Json::from(*number.value()),
            Value::Float(number) => Json::from(*number.value()),
            Value::Boolean(flag) => Json::from(*flag.value()),
            Value::Datetime(time) => Json::from(time.value().to_string()),
            Value::Array(items) => items.iter().map(of).collect(),
            Value::InlineTable(table) => table.iter().map(|(key, value)| (key, of(value))).collect(),
        }
    }
    match item {
        Item::None => Json::Null,
        Item::Value(value) => of(value),
        Item::Table(table) => table.iter().map(|(key, item)| (key, json(item))).collect(),
        Item::ArrayOfTables(tables) => {
            let table = |table: &toml_edit::Table| {
                table
                    .iter()
                    .map(|(key, item)| (key, json(item)))
                    .collect::<Json>()
            };
            tables.iter().map(table).collect()
        }
    }
}
