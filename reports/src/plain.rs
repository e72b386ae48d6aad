//! Plain text for terminals, files and tickets: aligned columns without frames or colours, 80 columns wide.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::text::clean;

/// How wide text for people is.
pub(crate) const COLUMNS: u16 = 80;

/// What is printed for a value that is not known.
pub(crate) const UNKNOWN: &str = "unknown";

/// A column of a table.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Text, to the left.
    Text(&'static str),
    /// A quantity, to the right.
    Number(&'static str),
}

/// Aligned rows under a header, indented; long cells are wrapped.
pub(crate) fn table(columns: &[Column], rows: Vec<Vec<String>>, indent: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(COLUMNS.saturating_sub(u16::try_from(indent).unwrap_or(0)));
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(shape) = table.column_mut(index) {
            shape.set_padding((0, 2));
            if matches!(column, Column::Number(_)) {
                shape.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let margin = " ".repeat(indent);
    table
        .lines()
        .map(|line| format!("{margin}{}\n", line.trim_end()))
        .collect()
}

/// Text broken between words, each line behind an indent.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let room = usize::from(COLUMNS).saturating_sub(indent);
    let margin = " ".repeat(indent);
    let (mut out, mut line) = (String::new(), String::new());
    for word in clean(text).split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            out.push_str(&format!("{margin}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&format!("{margin}{line}\n"));
    }
    out
}

/// Lines as they are, each behind an indent.
pub(crate) fn quoted(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    text.lines()
        .map(|line| format!("{margin}{}\n", clean(line).trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_stay_in_their_width() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long\u{1b}[31m ".repeat(20), "1000".to_owned()],
        ];
        let text = table(&[Column::Text("NAME"), Column::Number("PEAK")], rows, 2);
        assert!(text.starts_with("  NAME"));
        assert!(!text.contains('\u{1b}'));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.lines().nth(1).is_some_and(|line| line.ends_with("   1")),
            "{text}"
        );
    }

    #[test]
    fn text_is_broken_between_words() {
        let text = wrapped(&"word ".repeat(40), 4);
        assert!(
            text.lines()
                .all(|line| line.starts_with("    word") && line.len() <= 80)
        );
        assert_eq!(wrapped("  ", 2), "");
    }
}
