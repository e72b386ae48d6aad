//! The person's text under ours, and a person's edit of a file that has ours in it: their text without what is ours.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::edit::{self, EditError, Format, KeyPath};

/// The person's text, remembered for as long as the file holds anything of ours. What is ours is remembered with it, so
/// that neither an edit of the file nor one of the rules makes ours pass for theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The file, as the engine's configuration names it.
    pub path: PathBuf,
    /// The person's text.
    pub text: String,
    /// The text as Plimsoll wrote it last, or as a person left it since.
    pub written: String,
    /// The keys that Plimsoll set in it.
    pub keys: Vec<KeyPath>,
}

impl Base {
    /// The person's text after their edit: what they wrote, with every value of ours that they left alone put back to
    /// what it was before us.
    ///
    /// # Errors
    /// When what is theirs cannot be told from what is ours.
    pub(crate) fn adopt(&self, edited: &[u8], format: Format) -> Result<String, EditError> {
        let mut text = lines_back(&self.text, &self.written, edit::text(edited)?);
        for key in &self.keys {
            let is = edit::get(&text, format, key)?;
            if is.is_some() && is == edit::get(&self.written, format, key)? {
                text = match edit::get(&self.text, format, key)? {
                    Some(value) => edit::set(&text, format, key, &value)?,
                    None => edit::remove(&text, format, key)?,
                };
            }
        }
        Ok(text)
    }
}

/// The edited text with each line of ours, where it stands there once and unchanged, as the person first wrote it: byte for
/// byte, with their quoting. What this does not reach, the caller puts back value by value.
fn lines_back(base: &str, written: &str, edited: &str) -> String {
    let (was, ours): (Vec<&str>, Vec<&str>) = (base.lines().collect(), written.lines().collect());
    let operations = similar::capture_diff_slices(similar::Algorithm::Myers, &was, &ours);
    let replaced = operations.iter().filter_map(|operation| {
        let (tag, old, new) = operation.as_tag_tuple();
        let in_place = tag == similar::DiffTag::Replace && old.len() == new.len();
        in_place.then(|| ours.get(new).zip(was.get(old)))?
    });
    let changed: Vec<(&str, &str)> = replaced
        .flat_map(|(ours, was)| ours.iter().copied().zip(was.iter().copied()))
        .collect();
    let count = |line: &str| edited.lines().filter(|other| *other == line).count();
    let back = |line: &str| {
        let body = line.trim_end_matches(['\n', '\r']);
        match changed.iter().find(|(ours, _)| *ours == body) {
            Some((_, was)) if count(body) == 1 => format!("{was}{}", &line[body.len()..]),
            _ => line.to_owned(),
        }
    };
    edited.split_inclusive('\n').map(back).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::{self, Overlay};
    use crate::setting::{SetValue, Setting};

    /// A text with these values of ours in it.
    fn written(text: &str, ours: &[(&str, serde_json::Value)]) -> Base {
        let setting = |(key, value): &(&str, serde_json::Value)| Setting {
            path: key.parse().unwrap(),
            value: SetValue::Value(value.clone()),
        };
        let settings: Vec<Setting> = ours.iter().map(setting).collect();
        let keys = settings.iter().map(|setting| setting.path.clone()).collect();
        let overlay = Overlay {
            rung: "ours".to_owned(),
            settings,
        };
        let written = desired::render(text.as_bytes(), Format::Yaml, &[overlay]).unwrap();
        Base {
            path: "/e.yaml".into(),
            text: text.to_owned(),
            written: String::from_utf8(written).unwrap(),
            keys,
        }
    }

    #[test]
    fn what_they_wrote_stays_and_what_is_ours_goes() {
        let before = "# mine\na: 1\nb: 2   # two\nc: 3\n";
        let base = written(before, &[("b", json!(20)), ("d.e", json!("x"))]);
        let edited = base.written.replace("c: 3", "c: 30  # theirs");
        let text = base.adopt(edited.as_bytes(), Format::Yaml).unwrap();
        assert!(
            text.starts_with("# mine\na: 1\nb: 2   # two\nc: 30  # theirs\n"),
            "{text}"
        );
        assert_eq!(
            edit::get(&text, Format::Yaml, &"d.e".parse().unwrap()).unwrap(),
            None
        );
    }

    #[test]
    fn their_quoting_comes_back_too() {
        let base = written(
            "model:\r\n  q: none   # weights\r\nb: 2\r\n",
            &[("model.q", json!("int8")), ("new", json!(true))],
        );
        let edited = base.written.clone() + "c: 3\r\n";
        let text = base.adopt(edited.as_bytes(), Format::Yaml).unwrap();
        assert_eq!(text, "model:\r\n  q: none   # weights\r\nb: 2\r\nc: 3\r\n");
    }

    #[test]
    fn a_value_that_they_changed_is_theirs() {
        let base = written("b: 2\n", &[("b", json!(20))]);
        assert_eq!(base.adopt(b"b: 7\n", Format::Yaml).unwrap(), "b: 7\n");
    }
}
