//! What can be wrong with somebody's SQL, and where.

use std::{fmt, time::Duration};

use plimsoll_trace::units::{show_bytes, show_duration};
use thiserror::Error;

use crate::StoreError;

/// A query that was not answered. Its text is meant for the one who wrote the query.
#[derive(Clone, Debug, Error)]
pub enum QueryError {
    /// The text is not SQL.
    #[error("{message}{}", Shown(.place))]
    Syntax {
        /// What SQLite said.
        message: String,
        /// Where, if SQLite said so.
        place: Option<Place>,
    },
    /// A table, column or function that does not exist.
    #[error("{message}{}\n(every view and column: SELECT * FROM columns)", Shown(.place))]
    UnknownName {
        /// What SQLite said.
        message: String,
        /// Where, if it could be found.
        place: Option<Place>,
    },
    /// Well-formed, but more than reading this database.
    #[error("{0} is not allowed: queries can only read this database")]
    Forbidden(String),
    /// It takes too long or gives too much.
    #[error("the query ran into {0}; ask for less, or raise the limit")]
    Limit(Limit),
    /// It failed while it ran, for example on malformed JSON.
    #[error("the query failed: {0}")]
    Failed(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a query may run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Time.
    Time(Duration),
    /// Rows of the result.
    Rows(usize),
    /// Bytes of the result.
    Bytes(usize),
    /// Bytes of a single text or blob, here or on the way.
    Length(usize),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(time) => write!(f, "the time limit of {}", show_duration(time)),
            Self::Rows(rows) => write!(f, "the limit of {rows} rows"),
            Self::Bytes(bytes) => write!(f, "the limit of {} for a result", show_bytes(bytes as u64)),
            Self::Length(bytes) => write!(f, "the limit of {} for one value", show_bytes(bytes as u64)),
        }
    }
}

/// A place in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The line's text, cut on both sides if it is long.
    text: String,
    /// Where in `text` the caret belongs, in characters.
    caret: usize,
}

impl Place {
    /// The place of a byte of the query.
    pub(crate) fn find(sql: &str, offset: usize) -> Self {
        /// Characters of a long line that are shown on either side of the place.
        const AROUND: usize = 60;
        let offset = sql.floor_char_boundary(offset.min(sql.len()));
        let (before, after) = sql.split_at(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let head: Vec<char> = before[start..].chars().collect();
        let tail = after
            .split('\n')
            .next()
            .unwrap_or_default()
            .trim_end_matches('\r');
        let skipped = head.len().saturating_sub(AROUND);
        let mut text = String::new();
        if skipped > 0 {
            text.push('…');
        }
        // Tabs and their like would push the caret somewhere else.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        text.extend(head.iter().skip(skipped).copied().map(plain));
        let caret = text.chars().count();
        text.extend(tail.chars().take(AROUND).map(plain));
        if tail.chars().nth(AROUND).is_some() {
            text.push('…');
        }
        Self {
            line: before.matches('\n').count() + 1,
            column: head.len() + 1,
            text,
            caret,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let (margin, indent) = (number.len(), self.caret);
        write!(f, "{number} | {}\n{:margin$} | {:indent$}^", self.text, "", "")
    }
}

/// A place on lines of its own, if there is one.
struct Shown<'a>(&'a Option<Place>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |place| write!(f, "\n{place}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let sql = "SELECT ö,\n\tpid FRM x";
        let offset = sql.find("FRM").expect("it is there");
        insta::assert_snapshot!(Place::find(sql, offset), @r"
        2 |  pid FRM x
          |      ^
        ");
        let long = format!("SELECT {} FROM nowhere, {}", "a, ".repeat(100), "b, ".repeat(100));
        let offset = long.find("nowhere").expect("it is there");
        insta::assert_snapshot!(Place::find(&long, offset), @r"
        1 | …a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a,  FROM nowhere, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, …
          |                                                              ^
        ");
    }

    proptest! {
        #[test]
        fn any_text_and_any_offset_have_a_place(sql in "\\PC{0,40}[\n\r\t]?\\PC{0,200}", offset in 0_usize..300) {
            let place = Place::find(&sql, offset);
            prop_assert!(place.caret <= place.text.chars().count());
            prop_assert!(place.to_string().ends_with('^'));
        }
    }
}
