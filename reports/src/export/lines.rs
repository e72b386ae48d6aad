//! One line for each row, or for each value.

use std::fmt::Write as _;

use plimsoll_store::Row;
use serde_json::{Map, Value};

use super::source::{Kind, Source};
use super::{Form, Sink};

/// One JSON object a row, with the view that it is of.
pub(super) struct Ndjson;

impl Form for Ndjson {
    fn row(&mut self, source: &'static Source, row: &Row<'_>, sink: &mut Sink) {
        let mut object = Map::new();
        object.insert("view".to_owned(), source.view.into());
        for (index, column) in source.columns.iter().enumerate() {
            let mut value = any(row, index);
            // A column of JSON is no text.
            if *column == "detail"
                && let Some(detail) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
            {
                value = detail;
            }
            object.insert((*column).to_owned(), value);
        }
        sink.put(&format!("{}\n", Value::Object(object)));
    }

    fn end(&mut self, _: &mut Sink) {}
}

/// One value a line.
pub(super) struct Csv;

/// Columns that say whose a row is, in the order of the CSV.
const DEVICE: &str = "device";
const PID: &str = "pid";

impl Csv {
    pub(super) fn begin(sink: &mut Sink) -> Self {
        sink.put("at_ns,view,device,pid,of,name,value\n");
        Self
    }
}

impl Form for Csv {
    fn row(&mut self, source: &'static Source, row: &Row<'_>, sink: &mut Sink) {
        let text = |column: &str| {
            source
                .column(column)
                .map_or_else(String::new, |index| field(&any(row, index)))
        };
        let (of, names) = match source.kind {
            Kind::Process => (text("process"), None),
            Kind::Allocator => (text("level"), None),
            Kind::Engine => (String::new(), Some(text("signal"))),
            _ => (String::new(), None),
        };
        let head = format!(
            "{},{},{},{},{of}",
            text("at_ns"),
            source.view,
            text(DEVICE),
            text(PID)
        );
        let mut lines = String::new();
        for (index, column) in source.columns.iter().enumerate() {
            if ["at_ns", DEVICE, PID, "process", "level", "source", "signal"].contains(column) {
                continue;
            }
            let (name, value) = (names.as_deref().unwrap_or(column), field(&any(row, index)));
            // A write into a string cannot fail.
            let _infallible = writeln!(lines, "{head},{name},{value}");
        }
        sink.put(&lines);
    }

    fn end(&mut self, _: &mut Sink) {}
}

/// A column of whatever type.
pub(super) fn any(row: &Row<'_>, column: usize) -> Value {
    if let Some(number) = row.int(column) {
        return number.into();
    }
    if let Some(number) = row.real(column) {
        return number.into();
    }
    row.text(column)
        .map_or(Value::Null, |text| text.into_owned().into())
}

/// A value as a field of CSV: quoted where it must be; nothing for what is unknown.
fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains(['"', ',', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
