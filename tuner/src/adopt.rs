//! A person's edit of a file that has rungs in it: their text without what is ours.

use crate::desired::{self, Overlay};
use crate::edit::{self, EditError, Format};

/// The person's text as a new base: what they wrote, with every value of ours that they left alone put back to what it
/// was before us. `base` is the former base, `ours` the rungs that the file had when they edited it.
///
/// # Errors
/// When what is theirs cannot be told from what is ours.
pub(crate) fn base(
    base: &[u8],
    edited: &[u8],
    format: Format,
    ours: &[Overlay],
) -> Result<Vec<u8>, EditError> {
    let written = desired::render(base, format, ours)?;
    let (base, written) = (edit::text(base)?, edit::text(&written)?);
    let mut text = lines_back(base, written, edit::text(edited)?);
    for key in ours
        .iter()
        .flat_map(|overlay| &overlay.settings)
        .map(|setting| &setting.path)
    {
        let is = edit::get(&text, format, key)?;
        if is.is_some() && is == edit::get(written, format, key)? {
            text = match edit::get(base, format, key)? {
                Some(value) => edit::set(&text, format, key, &value)?,
                None => edit::remove(&text, format, key)?,
            };
        }
    }
    Ok(text.into_bytes())
}

/// The edited text with each line of ours, where it stands there once and unchanged, as the person first wrote it: byte for
/// byte, with their quoting. What this does not reach, the caller puts back value by value.
fn lines_back(base: &str, written: &str, edited: &str) -> String {
    let (was, ours): (Vec<&str>, Vec<&str>) = (base.lines().collect(), written.lines().collect());
    if was.len() != ours.len() {
        return edited.to_owned();
    }
    let changed: Vec<(&str, &str)> = ours.into_iter().zip(was).filter(|(ours, was)| ours != was).collect();
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
    use crate::setting::{SetValue, Setting};

    fn rung(path: &str, value: serde_json::Value) -> Overlay {
        let setting = Setting {
            path: path.parse().unwrap(),
            value: SetValue::Value(value),
        };
        Overlay {
            rung: path.to_owned(),
            settings: vec![setting],
        }
    }

    #[test]
    fn what_they_wrote_stays_and_what_is_ours_goes() {
        let before = b"# mine\na: 1\nb: 2   # two\nc: 3\n";
        let ours = [rung("b", json!(20)), rung("d.e", json!("x"))];
        let file = desired::render(before, Format::Yaml, &ours).unwrap();
        let edited = String::from_utf8(file)
            .unwrap()
            .replace("c: 3", "c: 30  # theirs");
        let base = base(before, edited.as_bytes(), Format::Yaml, &ours).unwrap();
        let base = String::from_utf8(base).unwrap();
        assert!(
            base.starts_with("# mine\na: 1\nb: 2   # two\nc: 30  # theirs\n"),
            "{base}"
        );
        assert_eq!(
            edit::get(&base, Format::Yaml, &"d.e".parse().unwrap()).unwrap(),
            None
        );
    }

    #[test]
    fn their_quoting_comes_back_too() {
        let ours = [rung("model.q", json!("int8"))];
        let before = b"model:\r\n  q: none   # weights\r\nb: 2\r\n";
        let file = desired::render(before, Format::Yaml, &ours).unwrap();
        let edited = String::from_utf8(file).unwrap() + "c: 3\r\n";
        let text = base(before, edited.as_bytes(), Format::Yaml, &ours).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "model:\r\n  q: none   # weights\r\nb: 2\r\nc: 3\r\n");
    }

    #[test]
    fn a_value_that_they_changed_is_theirs() {
        let ours = [rung("b", json!(20))];
        let text = base(b"b: 2\n", b"b: 7\n", Format::Yaml, &ours).unwrap();
        assert_eq!(text, b"b: 7\n");
    }
}
