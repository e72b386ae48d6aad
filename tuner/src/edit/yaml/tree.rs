//! A YAML document as a tree with positions, read by a parser of its own (that of serde-saphyr, which engines in Rust
//! use): it finds what must not be edited, and checks what the editor wrote.

use std::ops::Range;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::plain;
use crate::edit::error::{EditError, Reason};
use crate::edit::{Format, Found, KeyPath};

/// A node of the document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) shape: Shape,
    /// The anchor's number in the document, 0 for none.
    pub(super) anchor: usize,
    pub(super) tag: Option<String>,
    pub(super) line: usize,
    /// Where it stands; empty for a value that is left out.
    pub(super) range: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Plain(String),
    /// In quotes or as a block.
    Text(String, ScalarStyle),
    Alias(usize),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Equal but for the position: the same text in the same notation.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        (&self.shape, self.anchor, &self.tag) == (&other.shape, other.anchor, &other.tag)
    }
}

impl Eq for Node {}

/// The document of a file; `None` when it has nothing but comments.
pub(super) fn parse(text: &str) -> Result<Option<Node>, EditError> {
    let mut open: Vec<(Node, Option<Node>)> = Vec::new();
    let mut root = None;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let message = error.info();
            let reason = if message.contains("tab") {
                Reason::Tab
            } else {
                invalid(message)
            };
            EditError::file(Some(error.marker().line()), reason)
        })?;
        let done = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(EditError::file(Some(span.start.line()), Reason::SeveralDocuments));
                }
                continue;
            }
            Event::Alias(anchor) => node(Shape::Alias(anchor), 0, None, span),
            Event::Scalar(value, style, anchor, tag) => {
                let shape = match style {
                    ScalarStyle::Plain => Shape::Plain(value.into_owned()),
                    style => Shape::Text(value.into_owned(), style),
                };
                node(shape, anchor, tag.map(|tag| tag.to_string()), span)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let list = node(
                    Shape::List(Vec::new()),
                    anchor,
                    tag.map(|tag| tag.to_string()),
                    span,
                );
                open.push((list, None));
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                let map = node(
                    Shape::Map(Vec::new()),
                    anchor,
                    tag.map(|tag| tag.to_string()),
                    span,
                );
                open.push((map, None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((mut collection, _)) => {
                    // Only a flow collection has an end of its own; the parser ends others where the next thing begins.
                    let own_end = (!span.is_empty()).then_some(bytes(span).end);
                    collection.range.end = own_end.unwrap_or_else(|| collection.last_end());
                    collection
                }
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(done),
            Some((parent, key)) => match (&mut parent.shape, key.take()) {
                (Shape::Map(entries), Some(key)) => entries.push((key, done)),
                (Shape::List(items), _) => items.push(done),
                (_, _) => *key = Some(done),
            },
        }
    }
    Ok(root)
}

fn node(shape: Shape, anchor: usize, tag: Option<String>, span: Span) -> Node {
    Node {
        shape,
        anchor,
        tag,
        line: span.start.line(),
        range: bytes(span),
    }
}

/// Known for a text that lies in memory as a whole.
fn bytes(span: Span) -> Range<usize> {
    span.byte_range().unwrap_or_default()
}

pub(super) fn invalid(message: String) -> Reason {
    Reason::Invalid {
        format: Format::Yaml,
        message,
    }
}

/// Where a path leads to.
pub(super) struct Place<'a> {
    /// Which entry of each mapping on the way, as far as there is one.
    pub(super) entries: Vec<usize>,
    /// The value, if every key is there.
    pub(super) value: Option<&'a Node>,
    /// The last key on the way that is there, and its value.
    pub(super) reached: Option<(&'a Node, &'a Node)>,
    /// The section that this key is in.
    pub(super) section: Option<&'a Node>,
    /// That section's own key, unless it is the whole file.
    pub(super) holder: Option<&'a Node>,
}

/// Follows a path, and refuses what makes it uncertain which value counts.
pub(super) fn locate<'a>(root: Option<&'a Node>, path: &KeyPath) -> Result<Place<'a>, EditError> {
    let mut place = Place {
        entries: Vec::new(),
        value: root,
        reached: None,
        section: None,
        holder: None,
    };
    let mut name = "the file";
    for key in path.keys() {
        let Some(section) = place.value else {
            return Ok(place);
        };
        refuse_references(section, name, path)?;
        let refused = |reason| Err(EditError::at(path, section.line, reason));
        let entries = match &section.shape {
            Shape::Map(entries) => entries,
            Shape::Plain(text)
                if plain::is_null(text) && (place.reached.is_some() || section.range.is_empty()) =>
            {
                place.value = None;
                return Ok(place);
            }
            Shape::List(_) => return refused(Reason::ThroughList { key: name.into() }),
            _ => return refused(Reason::ThroughScalar { key: name.into() }),
        };
        if entries
            .iter()
            .any(|(key, _)| key.shape == Shape::Plain("<<".into()))
        {
            return refused(Reason::Merge { key: name.into() });
        }
        let mut there = entries
            .iter()
            .enumerate()
            .filter(|(_, (k, _))| k.scalar() == Some(key));
        let Some((index, (key_node, value))) = there.next() else {
            place.value = None;
            return Ok(place);
        };
        if let Some((_, (second, _))) = there.next() {
            let (key, first_line) = (key.clone(), key_node.line);
            return Err(EditError::at(
                path,
                second.line,
                Reason::Duplicate { key, first_line },
            ));
        }
        refuse_references(key_node, key, path)?;
        place.entries.push(index);
        place.holder = place.reached.map(|(key, _)| key);
        place.section = Some(section);
        place.reached = Some((key_node, value));
        place.value = Some(value);
        name = key;
    }
    if let Some(value) = place.value {
        refuse_references_inside(value, name, path)?;
    }
    Ok(place)
}

fn refuse_references_inside(node: &Node, key: &str, path: &KeyPath) -> Result<(), EditError> {
    refuse_references(node, key, path)?;
    match &node.shape {
        Shape::List(items) => items
            .iter()
            .try_for_each(|item| refuse_references_inside(item, key, path)),
        Shape::Map(entries) => entries.iter().try_for_each(|(inner, value)| {
            refuse_references_inside(inner, key, path)?;
            refuse_references_inside(value, key, path)
        }),
        _ => Ok(()),
    }
}

fn refuse_references(node: &Node, key: &str, path: &KeyPath) -> Result<(), EditError> {
    let key = key.to_owned();
    let reason = match node {
        Node {
            shape: Shape::Alias(_),
            ..
        } => Reason::Alias { key },
        Node { anchor: 1.., .. } => Reason::Anchor { key },
        Node { tag: Some(_), .. } => Reason::Tag { key },
        _ => return Ok(()),
    };
    Err(EditError::at(path, node.line, reason))
}

impl Node {
    /// Where the last thing in a collection ends.
    fn last_end(&self) -> usize {
        let last = match &self.shape {
            Shape::List(items) => items.last(),
            Shape::Map(entries) => entries
                .last()
                .map(|(key, value)| if value.range.is_empty() { key } else { value }),
            _ => None,
        };
        last.map_or(self.range.end, |node| node.range.end)
    }

    /// A single value's text.
    pub(super) fn scalar(&self) -> Option<&String> {
        match &self.shape {
            Shape::Plain(text) | Shape::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// The node's value as readers of YAML 1.1 take it.
    pub(super) fn found(&self) -> Found {
        let mut certain = true;
        let value = self.value(&mut certain);
        Found {
            value,
            certain,
            line: Some(self.line),
        }
    }

    fn value(&self, certain: &mut bool) -> Value {
        match &self.shape {
            Shape::Plain(text) => {
                let meaning = plain::meaning(text);
                *certain &= meaning.certain;
                meaning.value
            }
            Shape::Text(text, _) => Value::String(text.clone()),
            // Not reached: `locate` refuses aliases.
            Shape::Alias(_) => Value::Null,
            Shape::List(items) => items.iter().map(|item| item.value(certain)).collect(),
            Shape::Map(entries) => {
                let entry = |(key, value): &(Node, Node)| {
                    (key.scalar().cloned().unwrap_or_default(), value.value(certain))
                };
                Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
            }
        }
    }
}
