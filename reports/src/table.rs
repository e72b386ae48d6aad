//! The answer to somebody's SQL in the form they asked for.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use plimsoll_store::Value;
use plimsoll_trace::units::show_duration;
use serde_json::{Map, Number, Value as Json};

use crate::text::clean;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// Comma-separated values with a header (RFC 4180, but lines end in a line feed); NULL is an empty field.
    Csv,
    /// An array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// A Markdown table.
    Markdown,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "markdown" => Ok(Self::Markdown),
            other => Err(format!("'{other}' is none of table, csv, json, ndjson, markdown")),
        }
    }
}

/// Prints an answer. `width` is how many characters a line of a table may have; cells are wrapped to fit.
#[must_use]
pub fn render(columns: &[String], rows: &[Vec<Value>], format: Format, width: Option<u16>) -> String {
    match format {
        Format::Table => aligned(columns, rows, width),
        Format::Csv => csv(columns, rows),
        Format::Json => json(columns, rows),
        Format::Ndjson => {
            let names = distinct(columns);
            rows.iter()
                .map(|row| format!("{}\n", object(&names, row)))
                .collect()
        }
        Format::Markdown => markdown(columns, rows),
    }
}

/// What stands below an answer, for stderr: "3 rows in 12 ms", and which limit cut it off.
#[must_use]
pub fn footer(rows: usize, elapsed: Duration, truncated: Option<&str>) -> String {
    let plural = if rows == 1 { "" } else { "s" };
    let cut = truncated.map_or_else(String::new, |limit| format!("; truncated: {limit}"));
    format!("{rows} row{plural} in {}{cut}\n", show_duration(elapsed))
}

fn aligned(columns: &[String], rows: &[Vec<Value>], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.set_header(columns.iter().map(|name| clean(name)));
    for row in rows {
        table.add_row(row.iter().map(cell));
    }
    for index in 0..columns.len() {
        let is_number = |row: &Vec<Value>| {
            matches!(
                row.get(index),
                Some(Value::Integer(_) | Value::Real(_) | Value::Null)
            )
        };
        let Some(column) = table.column_mut(index) else {
            continue;
        };
        column.set_padding((0, 2));
        if !rows.is_empty() && rows.iter().all(is_number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// A value for people.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => clean(text).into_owned(),
        Value::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn csv(columns: &[String], rows: &[Vec<Value>]) -> String {
    let quote = |field: &str| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    };
    let mut out = columns
        .iter()
        .map(|name| quote(name))
        .collect::<Vec<_>>()
        .join(",")
        + "\n";
    for row in rows {
        let fields = row.iter().map(|value| match value {
            Value::Null => String::new(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            // An empty text is not NULL.
            Value::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Value::Text(text) => quote(text),
            Value::Blob(bytes) => hex(bytes),
        });
        out += &fields.collect::<Vec<_>>().join(",");
        out.push('\n');
    }
    out
}

fn json(columns: &[String], rows: &[Vec<Value>]) -> String {
    let names = distinct(columns);
    let objects: Vec<String> = rows.iter().map(|row| object(&names, row)).collect();
    if objects.is_empty() {
        return "[]\n".to_owned();
    }
    format!("[\n{}\n]\n", objects.join(",\n"))
}

/// Names of columns, with ":1", ":2" behind repeated ones, because an object has each name once.
fn distinct(columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.clone();
        let mut copies = 0;
        while names.contains(&name) {
            copies += 1;
            name = format!("{column}:{copies}");
        }
        names.push(name);
    }
    names
}

fn object(names: &[String], row: &[Value]) -> String {
    let fields: Map<String, Json> = names
        .iter()
        .zip(row)
        .map(|(name, value)| {
            let value = match value {
                Value::Null => Json::Null,
                Value::Integer(number) => Json::from(*number),
                // JSON has no infinity.
                Value::Real(number) => {
                    Number::from_f64(*number).map_or_else(|| Json::from(number.to_string()), Json::Number)
                }
                Value::Text(text) => Json::from(text.as_str()),
                Value::Blob(bytes) => Json::from(hex(bytes)),
            };
            (name.clone(), value)
        })
        .collect();
    Json::Object(fields).to_string()
}

fn markdown(columns: &[String], rows: &[Vec<Value>]) -> String {
    let escape = |text: &str| {
        clean(text)
            .replace('\\', "\\\\")
            .replace('|', "\\|")
            .replace('<', "&lt;")
    };
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(columns.iter().map(|name| escape(name)).collect());
    out += &format!("|{}\n", " --- |".repeat(columns.len()));
    for row in rows {
        out += &line(row.iter().map(|value| escape(&cell(value))).collect());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> (Vec<String>, Vec<Vec<Value>>) {
        let columns = ["id", "name", "ratio", "name"].map(str::to_owned).to_vec();
        let rows = vec![
            vec![
                Value::Integer(1),
                Value::from("a,\"b\"|<c>\n\u{1b}[31m"),
                Value::Real(0.5),
                Value::Null,
            ],
            vec![
                Value::Integer(-20),
                Value::from(""),
                Value::Real(f64::INFINITY),
                Value::Blob(vec![0, 255]),
            ],
        ];
        (columns, rows)
    }

    #[test]
    fn every_format_keeps_every_value() {
        let (columns, rows) = answer();
        let told = |format| render(&columns, &rows, format, None);
        insta::assert_snapshot!(told(Format::Table));
        insta::assert_snapshot!(told(Format::Csv));
        insta::assert_snapshot!(told(Format::Json));
        insta::assert_snapshot!(told(Format::Ndjson));
        insta::assert_snapshot!(told(Format::Markdown));
    }

    #[test]
    fn an_empty_answer_still_names_its_columns() {
        let columns = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(render(&columns, &[], Format::Table, Some(80)), "a  b\n");
        assert_eq!(render(&columns, &[], Format::Csv, None), "a,b\n");
        assert_eq!(render(&columns, &[], Format::Json, None), "[]\n");
        assert_eq!(render(&columns, &[], Format::Ndjson, None), "");
        assert_eq!(
            render(&columns, &[], Format::Markdown, None),
            "| a | b |\n| --- | --- |\n"
        );
    }

    #[test]
    fn json_reads_back() {
        let (columns, rows) = answer();
        let read: Vec<Map<String, Json>> =
            serde_json::from_str(&render(&columns, &rows, Format::Json, None)).expect("JSON");
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[0].keys().collect::<Vec<_>>(),
            ["id", "name", "ratio", "name:1"]
        );
    }

    #[test]
    fn a_footer_says_what_was_cut() {
        assert_eq!(footer(1, Duration::from_millis(12), None), "1 row in 12 ms\n");
        assert_eq!(
            footer(100_000, Duration::from_secs(2), Some("more than 100,000 rows")),
            "100000 rows in 2.0 s; truncated: more than 100,000 rows\n"
        );
    }
}
