//! Rows of an answer, read column by column. Whatever is not of the expected type is unknown.

use plimsoll_store::{Table, Value};
use serde_json::Value as Json;

/// One row; columns are read in order.
pub(crate) struct Row<'a>(std::slice::Iter<'a, Value>);

/// The rows of a table.
pub(crate) fn rows(table: &Table) -> impl Iterator<Item = Row<'_>> {
    table.rows.iter().map(|row| Row(row.iter()))
}

/// A number of bytes in a row of a scan; what is negative is not one.
pub(crate) fn size(row: &plimsoll_store::Row<'_>, column: usize) -> Option<u64> {
    row.int(column).and_then(|bytes| u64::try_from(bytes).ok())
}

impl Row<'_> {
    pub(crate) fn int(&mut self) -> Option<i64> {
        match self.0.next() {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// A count or a size; what is negative is not one.
    pub(crate) fn size(&mut self) -> Option<u64> {
        self.int().and_then(|number| u64::try_from(number).ok())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn real(&mut self) -> Option<f64> {
        match self.0.next() {
            Some(Value::Real(number)) => Some(*number),
            Some(Value::Integer(number)) => Some(*number as f64),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// A text that is always there.
    pub(crate) fn word(&mut self) -> String {
        self.text().unwrap_or_default()
    }

    /// A column of JSON text; null when it is none.
    pub(crate) fn json(&mut self) -> Json {
        self.text()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(Json::Null)
    }
}
