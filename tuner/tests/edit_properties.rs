//! What holds for every file: written documents in all formats, and foreign bytes.

use plimsoll_tuner::KeyPath;
use plimsoll_tuner::edit::{self, Format};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A document that a person may have written.
#[derive(Clone, Debug)]
enum Doc {
    /// Text in the notation of all three formats.
    Scalar(&'static str),
    List(Vec<&'static str>),
    Section(Vec<(String, Doc)>),
}

/// How it is laid out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    indent: usize,
    comments: bool,
    crlf: bool,
    final_newline: bool,
}

const SCALARS: &[&str] = &[
    "1",
    "0.90",
    "true",
    "-17",
    "\"x\"",
    "\"# no: comment\"",
    "\"a\\tb\"",
    "\"\"",
    "\"on\"",
    "1000000",
];
const NAMES: &[&str] = &["alpha", "beta-1", "gamma_2", "delta", "eps"];

fn doc() -> impl Strategy<Value = Vec<(String, Doc)>> {
    let scalar = prop::sample::select(SCALARS);
    let leaf = prop_oneof![
        4 => scalar.clone().prop_map(Doc::Scalar),
        1 => prop::collection::vec(scalar, 1..4).prop_map(Doc::List),
    ];
    let section = |inner: BoxedStrategy<Doc>| {
        prop::sample::subsequence(NAMES, 1..NAMES.len()).prop_flat_map(move |names| {
            let values = prop::collection::vec(inner.clone(), names.len());
            values.prop_map(move |values| {
                names
                    .iter()
                    .map(ToString::to_string)
                    .zip(values)
                    .collect::<Vec<_>>()
            })
        })
    };
    let value = leaf.prop_recursive(3, 12, 4, move |inner| {
        section(inner.boxed()).prop_map(Doc::Section)
    });
    section(value.boxed())
}

fn layout() -> impl Strategy<Value = Layout> {
    (
        prop::sample::select(&[2_usize, 4][..]),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(indent, comments, crlf, final_newline)| Layout {
            indent,
            comments,
            crlf,
            final_newline,
        })
}

fn written(entries: &[(String, Doc)], format: Format, layout: Layout) -> String {
    let mut lines = Vec::new();
    match format {
        Format::Yaml => yaml(entries, 0, layout, &mut lines),
        Format::Json => {
            lines.push("{".to_owned());
            json_lines(entries, 1, layout, &mut lines);
            lines.push("}".to_owned());
        }
        Format::Toml => toml(entries, "", layout, &mut lines),
    }
    let eol = if layout.crlf { "\r\n" } else { "\n" };
    lines.join(eol) + if layout.final_newline { eol } else { "" }
}

fn note(layout: Layout, mark: &str) -> String {
    if layout.comments {
        format!("  {mark} why: \"x\"")
    } else {
        String::new()
    }
}

fn yaml(entries: &[(String, Doc)], depth: usize, layout: Layout, lines: &mut Vec<String>) {
    let blanks = " ".repeat(depth * layout.indent);
    for (key, doc) in entries {
        if layout.comments {
            lines.push(format!("{blanks}# about {key}: it"));
        }
        match doc {
            Doc::Scalar(text) => lines.push(format!("{blanks}{key}: {text}{}", note(layout, "#"))),
            Doc::List(items) if depth.is_multiple_of(2) => {
                lines.push(format!("{blanks}{key}:"));
                lines.extend(items.iter().map(|item| format!("{blanks}- {item}")));
            }
            Doc::List(items) => lines.push(format!("{blanks}{key}: [{}]", items.join(", "))),
            Doc::Section(inner) => {
                lines.push(format!("{blanks}{key}:{}", note(layout, "#")));
                yaml(inner, depth + 1, layout, lines);
                if layout.comments {
                    lines.push(String::new());
                }
            }
        }
    }
}

fn json_lines(entries: &[(String, Doc)], depth: usize, layout: Layout, lines: &mut Vec<String>) {
    let blanks = " ".repeat(depth * layout.indent);
    for (position, (key, doc)) in entries.iter().enumerate() {
        let comma = if position + 1 < entries.len() || layout.comments {
            ","
        } else {
            ""
        };
        match doc {
            Doc::Scalar(text) => {
                lines.push(format!("{blanks}\"{key}\": {text}{comma}{}", note(layout, "//")))
            }
            Doc::List(items) => lines.push(format!("{blanks}\"{key}\": [{}]{comma}", items.join(", "))),
            Doc::Section(inner) => {
                lines.push(format!("{blanks}\"{key}\": {{"));
                json_lines(inner, depth + 1, layout, lines);
                lines.push(format!("{blanks}}}{comma}"));
            }
        }
    }
}

fn toml(entries: &[(String, Doc)], section: &str, layout: Layout, lines: &mut Vec<String>) {
    for (key, doc) in entries {
        match doc {
            Doc::Scalar(text) => lines.push(format!("{key} = {text}{}", note(layout, "#"))),
            Doc::List(items) => lines.push(format!("{key} = [{}]", items.join(", "))),
            Doc::Section(_) => {}
        }
    }
    for (key, doc) in entries {
        if let Doc::Section(inner) = doc {
            let section = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            lines.push(if layout.comments {
                format!("\n# about {key}").replace('\n', "")
            } else {
                String::new()
            });
            lines.push(format!("[{section}]{}", note(layout, "#")));
            toml(inner, &section, layout, lines);
        }
    }
}

/// The paths of all single values.
fn scalars(entries: &[(String, Doc)], above: &str, found: &mut Vec<String>) {
    for (key, doc) in entries {
        match doc {
            Doc::Scalar(_) => found.push(format!("{above}{key}")),
            Doc::List(_) => {}
            Doc::Section(inner) => scalars(inner, &format!("{above}{key}."), found),
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(
            &[
                "no",
                "~",
                "1:30",
                "2026-11-22",
                "=",
                "\t",
                "0o7",
                "a: b",
                "# x",
                "- x",
                "{",
                "'"
            ][..]
        )
        .prop_map(Value::from),
        prop::collection::vec("[a-z]{0,3}", 0..3).prop_map(Value::from),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    prop::sample::select(&[Format::Yaml, Format::Json, Format::Toml][..])
}

fn path(text: &str) -> KeyPath {
    text.parse().expect("a key path")
}

proptest! {
    #[test]
    fn a_value_that_is_there_changes_on_its_own_line(
        doc in doc(), layout in layout(), format in format(), value in value(), pick in any::<prop::sample::Index>(),
    ) {
        let text = written(&doc, format, layout);
        let mut paths = Vec::new();
        scalars(&doc, "", &mut paths);
        prop_assume!(!paths.is_empty());
        let path = path(pick.get::<String>(&paths));
        let edited = edit::set(&text, format, &path, &value).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(edit::get(&edited, format, &path), Ok(Some(value.clone())));
        prop_assert_eq!(edit::set(&edited, format, &path, &value), Ok(edited.clone()));
        let (before, after): (Vec<_>, Vec<_>) = (text.split('\n').collect(), edited.split('\n').collect());
        prop_assert_eq!(before.len(), after.len());
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        prop_assert!(changed <= 1, "{}\n---\n{}", text, edited);
        // And back again.
        let former = edit::get(&text, format, &path).expect("readable").expect("there");
        let back = edit::set(&edited, format, &path, &former).expect("settable");
        prop_assert_eq!(edit::get(&back, format, &path), Ok(Some(former)));
    }

    #[test]
    fn a_new_key_comes_and_goes_without_a_trace(
        doc in doc(), layout in layout(), format in format(), value in value(), deep in any::<bool>(),
        pick in any::<prop::sample::Index>(),
    ) {
        let text = written(&doc, format, layout);
        let mut paths = Vec::new();
        scalars(&doc, "", &mut paths);
        prop_assume!(!paths.is_empty());
        let beside: &String = pick.get(&paths);
        let section = beside.rsplit_once('.').map_or(String::new(), |(section, _)| format!("{section}."));
        let path = path(&if deep { format!("{section}new.key") } else { format!("{section}new") });
        let edited = edit::set(&text, format, &path, &value).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(edit::get(&edited, format, &path), Ok(Some(value)));
        // All lines are still there, but for the comma behind the last one of JSON.
        let mut lines = edited.lines();
        for line in text.lines() {
            let bare = |line: &str| line.replace(',', "");
            prop_assert!(lines.any(|kept| bare(kept) == bare(line)), "lost {:?}\n{}", line, edited);
        }
        let removed = edit::remove(&edited, format, &path).map_err(|error| TestCaseError::fail(format!("{error}\n{edited}")))?;
        if !deep {
            prop_assert_eq!(removed, text);
        } else {
            prop_assert_eq!(edit::get(&removed, format, &path), Ok(None));
        }
    }

    #[test]
    fn foreign_text_is_edited_right_or_refused(
        text in prop_oneof![
            "[ab:#\\-\\[\\]{},&*!|>'\"%@`?~<=. \\t\\n\\r0-1/\\\\\u{feff}é]{0,40}",
            "([ab0]: ?[ab1&*!|>'\"\\[{~#]{0,3} ?(#a)?\\r?\\n( |  |\\t)?){0,8}",
            "(\\[?\\[?[ab](\\.[ab])?\\]?\\]? ?=? ?[1a\"'\\[{]?[1\"'\\]}]? ?(#a)?\\r?\\n){0,8}",
            "[\\{\\[](\"[ab]\": ?[1\\[\\{\"]?[1\\]\\}\"]?,? ?(//a\\n|/\\*a\\*/)?\\r?\\n?){0,8}[\\}\\]]",
            any::<String>(),
        ],
        format in format(),
        key in prop::sample::select(&["a", "b", "a.b", "a.a.b", "\"\"", "0", "é"][..]),
        value in prop::sample::select(vec![json!("x"), json!(1), json!(null), json!([1]), json!({"a": 1})]),
    ) {
        let path = path(key);
        if let Ok(edited) = edit::set(&text, format, &path, &value) {
            prop_assert_eq!(edit::get(&edited, format, &path), Ok(Some(value.clone())));
            prop_assert_eq!(edit::set(&edited, format, &path, &value), Ok(edited));
        }
        if let Ok(removed) = edit::remove(&text, format, &path) {
            prop_assert_eq!(edit::get(&removed, format, &path), Ok(None));
        }
    }

    #[test]
    fn foreign_bytes_are_text_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(edit::text(&bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
    }
}

#[test]
fn a_huge_or_deep_file_is_refused_and_not_suffered() {
    let huge = "a: 1\n".repeat(edit::MAX_BYTES / 5 + 1);
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let error = edit::set(&huge, format, &path("a"), &json!(2)).expect_err("refused");
        assert!(error.to_string().contains("bytes"), "{error}");
        for open in ["[", "{\"a\":", "{a: ", "a = [", "a = {a=", "- ", "a:\n ", "? "] {
            let deep = open.repeat(50_000);
            assert!(
                edit::set(&deep, format, &path("a"), &json!(2)).is_err(),
                "{open:?} as {format}"
            );
        }
    }
}
