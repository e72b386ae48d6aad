//! Changes of a text by position, so that what is not named is not touched.

use std::ops::Range;

/// The mark that some editors put in front of UTF-8 text.
pub(super) const BOM: char = '\u{feff}';

/// One piece of a text and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    /// What goes, in bytes; empty for an insertion.
    pub(super) range: Range<usize>,
    /// What comes.
    pub(super) text: String,
}

impl Splice {
    pub(super) fn insert(at: usize, text: impl Into<String>) -> Self {
        Self {
            range: at..at,
            text: text.into(),
        }
    }

    pub(super) fn replace(range: Range<usize>, text: impl Into<String>) -> Self {
        Self {
            range,
            text: text.into(),
        }
    }

    /// The one change that leads from `before` to `after`.
    pub(super) fn between(before: &str, after: &str) -> Self {
        let start = before
            .char_indices()
            .zip(after.chars())
            .find_map(|((at, a), b)| (a != b).then_some(at))
            .unwrap_or(before.len().min(after.len()));
        let (before_rest, after_rest) = (rest(before, start), rest(after, start));
        let same: usize = before_rest
            .chars()
            .rev()
            .zip(after_rest.chars().rev())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        Self {
            range: start..before.len() - same,
            text: after_rest
                .get(..after_rest.len() - same)
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// The text with these changes, which are in order and do not overlap; `None` if they are not.
pub(super) fn apply(text: &str, splices: &[Splice]) -> Option<String> {
    let mut edited = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for splice in splices {
        edited.push_str(text.get(at..splice.range.start)?);
        edited.push_str(&splice.text);
        at = splice.range.end;
    }
    edited.push_str(text.get(at..)?);
    Some(edited)
}

/// The line ending that the text uses: that of its first line.
pub(super) fn line_ending(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text.get(..at).is_some_and(|line| line.ends_with('\r')) => "\r\n",
        _ => "\n",
    }
}

/// The line, from 1, that a byte lies in.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Where the line that a byte lies in begins.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text.get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline + 1)
}

/// Where the line that a byte lies in ends, without its line ending.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let line = rest(text, at).lines().next().unwrap_or_default();
    at + line.len()
}

/// The lines that a range lies in, with their line endings. Without the last line of a text that has no final line
/// ending, the line before is to have none either.
pub(super) fn whole_lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = line_start(text, range.start);
    match rest(text, range.end).find('\n') {
        Some(newline) => start..range.end + newline + 1,
        None => {
            let before = text.get(..start).unwrap_or_default();
            let before = before.strip_suffix('\n').unwrap_or(before);
            before.strip_suffix('\r').unwrap_or(before).len()..text.len()
        }
    }
}

/// The blanks that the line which a byte lies in begins with.
pub(super) fn indentation(text: &str, at: usize) -> &str {
    let line = rest(text, line_start(text, at));
    let end = line.find(|c| c != ' ' && c != '\t').unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// The text from a byte on; empty past its end.
pub(super) fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_change_between_two_texts() {
        let of = |before, after| Splice::between(before, after);
        assert_eq!(of("a: 1\n", "a: 1\n"), Splice::insert(5, ""));
        assert_eq!(of("a: 1\n", "a: 2\n"), Splice::replace(3..4, "2"));
        assert_eq!(of("a\nb\n", "a\nx\nb\n"), Splice::insert(2, "x\n"));
        assert_eq!(of("aa", "aaa"), Splice::insert(2, "a"));
        assert_eq!(of("é", "è"), Splice::replace(0..2, "è"));
    }

    proptest! {
        #[test]
        fn the_change_leads_there(before in "[ab\\n\\réè]{0,12}", after in "[ab\\n\\réè]{0,12}") {
            prop_assert_eq!(apply(&before, &[Splice::between(&before, &after)]), Some(after));
        }
    }
}
