//! Edits of TOML. toml_edit says where things stand; the text is changed by position, because what toml_edit writes
//! itself loses carriage returns, and the comment behind a replaced value.

mod layout;

use serde_json::Value as Json;
use toml_edit::{Document, Item, TomlError, Value};

use super::error::{EditError, Reason};
use super::text::{self, Splice};
use super::value::{literal, put, take};
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
        None => layout::insertion(text, &document, &place, path.keys(), value).map(|splice| vec![splice]),
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
        .take_while(|section| layout::is_dotted(section))
    {
        keys = keys.split_last().map_or(keys, |(_, outer)| outer);
        if section.as_table_like().is_some_and(|table| table.len() == 1) {
            take(&mut expected, keys);
        } else {
            break;
        }
    }
    checked(text, path, layout::removal(text, &place, path), &expected)
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
