//! Prometheus' text format, read line by line. Lines that cannot be read are passed over: one engine's odd line must not
//! hide the others.

use std::borrow::Cow;
use std::str::FromStr;

use thiserror::Error;

/// One line: a series and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) value: f64,
}

impl Series<'_> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| *label == name);
        found.map(|(_, value)| value.as_ref())
    }
}

/// The series of a page, in its order.
pub(super) fn series(page: &str) -> impl Iterator<Item = Series<'_>> {
    page.lines().filter_map(line)
}

fn line(line: &str) -> Option<Series<'_>> {
    let (name, labels, rest) = head(line.trim())?;
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Series { name, labels, value })
}

/// A name, its labels, and what follows.
type Head<'a> = (&'a str, Vec<(&'a str, Cow<'a, str>)>, &'a str);

fn head(text: &str) -> Option<Head<'_>> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    let Some(mut rest) = rest.strip_prefix('{') else {
        return Some((name, Vec::new(), rest));
    };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((name, labels, rest));
        }
        let (label, value) = rest.split_once('=')?;
        let value = value.trim_start().strip_prefix('"')?;
        let (value, behind) = quoted(value)?;
        labels.push((label.trim(), value));
        rest = behind;
    }
}

/// A label's value up to its closing quote, and what is behind that.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, letter)| {
        let closes = *letter == '"' && !escaped;
        escaped = *letter == '\\' && !escaped;
        closes
    });
    let (raw, behind) = (text.get(..end?.0)?, text.get(end?.0 + 1..)?);
    if !raw.contains('\\') {
        return Some((Cow::Borrowed(raw), behind));
    }
    let mut value = String::with_capacity(raw.len());
    let mut letters = raw.chars();
    while let Some(letter) = letters.next() {
        value.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    Some((Cow::Owned(value), behind))
}

/// A series that a rule names: `NAME` or `NAME{label="value", …}`. It stands for all series of the name that have these
/// labels, added up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricName {
    name: String,
    labels: Vec<(String, String)>,
}

/// Text that names no series.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{text}' names no metric; write NAME or NAME{{label=\"value\"}}")]
pub struct MetricNameError {
    text: String,
}

impl FromStr for MetricName {
    type Err = MetricNameError;

    fn from_str(text: &str) -> Result<Self, MetricNameError> {
        let found = head(text.trim()).filter(|(.., rest)| rest.is_empty());
        let (name, labels, _) = found.ok_or_else(|| MetricNameError {
            text: text.to_owned(),
        })?;
        let labels = labels.into_iter();
        Ok(Self {
            name: name.to_owned(),
            labels: labels
                .map(|(label, value)| (label.to_owned(), value.into_owned()))
                .collect(),
        })
    }
}

impl MetricName {
    /// Whether this line belongs to it.
    pub(super) fn matches(&self, series: &Series<'_>) -> bool {
        let has = |(label, value): &(String, String)| series.label(label) == Some(value);
        series.name == self.name && self.labels.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let page = "# HELP a:b text\n# TYPE a:b gauge\na:b 1\n a:b{x=\"1\",y=\"q\\\"\\\\\\n\" , } 2.5e3 1700000000\n\
                    c{le=\"+Inf\"} +Inf\nbad{x=1} 3\nbad{x=\"1\" 3\n9bad 1\nnan NaN\n{} 1\nlonely\n";
        let found: Vec<_> = series(page).collect();
        let names: Vec<_> = found.iter().map(|series| series.name).collect();
        assert_eq!(names, ["a:b", "a:b", "c", "nan"]);
        assert_eq!(found[1].label("y"), Some("q\"\\\n"));
        assert_eq!((found[1].value, found[2].value), (2500.0, f64::INFINITY));
    }

    #[test]
    fn a_name_with_some_of_the_labels() {
        let name: MetricName = "a:b{x=\"1\"}".parse().expect("a name");
        let matches = |page: &str| series(page).filter(|series| name.matches(series)).count();
        assert_eq!(
            matches("a:b 1\na:b{x=\"1\"} 1\na:b{y=\"2\",x=\"1\"} 1\na:b{x=\"2\"} 1\nother{x=\"1\"} 1\n"),
            2
        );
        for text in ["", "a b", "a{", "a{x=1}", "a{x=\"1\"} 5", "7"] {
            assert!(text.parse::<MetricName>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hostile_pages_do_no_harm(page in "([a-z:_]{0,3}[{}=\",\\\\ \n0-9é]{0,4}){0,60}") {
            prop_assert!(series(&page).all(|series| !series.name.is_empty()));
            drop(page.parse::<MetricName>());
        }

        #[test]
        fn what_is_written_by_the_rules_is_read(label in "[a-z]{1,5}", value in "\\PC{0,20}", number in -1e9..1e9_f64) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let page = format!("m{{{label}=\"{escaped}\"}} {number}\n");
            let found: Vec<_> = series(&page).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].label(&label), Some(value.as_str()));
            prop_assert_eq!(found[0].value, number);
        }
    }
}
