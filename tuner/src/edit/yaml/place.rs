//! Where a key path leads to in a YAML document, if that is certain.

use super::plain;
use super::tree::{Node, Shape};
use crate::edit::KeyPath;
use crate::edit::error::{EditError, Reason};
use crate::edit::text;

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

/// Tabs may stand in text and in comments. Elsewhere PyYAML stops at them, and others do not.
pub(super) fn refuse_tabs(text: &str, root: &Node) -> Result<(), EditError> {
    if !text.contains('\t') {
        return Ok(());
    }
    let mut texts = Vec::new();
    root.texts(&mut texts);
    let outside = |at: usize| {
        let before = texts.partition_point(|range| range.start <= at);
        before
            .checked_sub(1)
            .and_then(|last| texts.get(last))
            .is_none_or(|range| range.end <= at)
    };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let comment = line.match_indices('#').map(|(at, _)| at).find(|at| {
            outside(start + at)
                && line
                    .get(..*at)
                    .is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t']))
        });
        let code = line.get(..comment.unwrap_or(line.len())).unwrap_or_default();
        if code.match_indices('\t').any(|(at, _)| outside(start + at)) {
            return Err(EditError::file(Some(text::line_of(text, start)), Reason::Tab));
        }
        start += line.len();
    }
    Ok(())
}
