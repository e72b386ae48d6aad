//! A YAML document as a tree with positions, read by a parser of its own (that of serde-saphyr, which engines in Rust
//! use): it finds what must not be edited, and checks what the editor wrote.

use std::ops::Range;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::{layout, plain};
use crate::edit::error::{EditError, Reason};
use crate::edit::{Format, Found};

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
                    collection.range.end = own_end.unwrap_or_else(|| collection.last().range.end);
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

impl Node {
    /// The last thing in a collection, and in that; itself otherwise.
    pub(super) fn last(&self) -> &Self {
        let last = match &self.shape {
            Shape::List(items) => items.last(),
            Shape::Map(entries) => entries
                .last()
                .map(|(key, value)| if value.range.is_empty() { key } else { value }),
            _ => None,
        };
        last.map_or(self, Self::last)
    }

    /// Whether it is text in a block, behind `|` or `>`.
    pub(super) fn is_block(&self) -> bool {
        matches!(
            self.shape,
            Shape::Text(_, ScalarStyle::Literal | ScalarStyle::Folded)
        )
    }

    /// Where text stands, and other single values.
    pub(super) fn texts(&self, into: &mut Vec<Range<usize>>) {
        match &self.shape {
            Shape::List(items) => items.iter().for_each(|item| item.texts(into)),
            Shape::Map(entries) => entries.iter().for_each(|(key, value)| {
                key.texts(into);
                value.texts(into);
            }),
            _ => into.push(self.range.clone()),
        }
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

pub(super) fn empty_map() -> Node {
    Node {
        shape: Shape::Map(Vec::new()),
        anchor: 0,
        tag: None,
        line: 1,
        range: 0..0,
    }
}

/// The tree as it should be after the edit.
pub(super) fn put(node: &mut Node, keys: &[String], value: &Node) -> Result<(), EditError> {
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
                entries.push((layout::our_tree(&layout::key_literal(key))?, inner));
            }
        }
    }
    Ok(())
}

/// Takes the entry out that these positions lead to.
pub(super) fn take(node: &mut Node, entries: &[usize]) {
    if let (Shape::Map(here), Some((index, rest))) = (&mut node.shape, entries.split_first()) {
        match here.get_mut(*index) {
            Some(_) if rest.is_empty() => drop(here.remove(*index)),
            Some((_, inner)) => take(inner, rest),
            None => {}
        }
    }
}
