//! A folder in `tests/edits` is a test: `before.*` is a file that a person wrote; `set.toml` (key path = value) or
//! `remove.txt` (a key path per line) says what to change, in order; `after.*` is the file afterwards, byte for byte, or
//! `refused.txt` is the reason why it is not changed. `RECORD_EDITS=1` writes the last two, to be read before they are kept.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_tuner::KeyPath;
use plimsoll_tuner::edit::{self, EditError, Format};
use serde_json::{Map, Value};

enum Change {
    Set(KeyPath, Value),
    Remove(KeyPath),
}

fn changes(folder: &Path) -> Vec<Change> {
    let path = |text: &str| text.parse::<KeyPath>().expect("a key path");
    if let Ok(text) = fs::read_to_string(folder.join("remove.txt")) {
        return text.lines().map(|line| Change::Remove(path(line))).collect();
    }
    let text = fs::read_to_string(folder.join("set.toml")).expect("set.toml or remove.txt");
    let values: Map<String, Value> = toml_edit::de::from_str(&text).expect("a TOML table");
    values
        .into_iter()
        .map(|(key, value)| Change::Set(path(&key), value))
        .collect()
}

fn perform(before: &[u8], format: Format, changes: &[Change]) -> Result<String, EditError> {
    let mut text = edit::text(before)?.to_owned();
    for change in changes {
        text = match change {
            Change::Set(path, value) => {
                let edited = edit::set(&text, format, path, value)?;
                assert_eq!(
                    edit::get(&edited, format, path)?.as_ref(),
                    Some(value),
                    "reads back"
                );
                assert_eq!(
                    edit::set(&edited, format, path, value)?,
                    edited,
                    "a second time changes nothing"
                );
                edited
            }
            Change::Remove(path) => {
                let edited = edit::remove(&text, format, path)?;
                assert_eq!(edit::get(&edited, format, path)?, None, "is gone");
                edited
            }
        };
    }
    Ok(text)
}

fn file(folder: &Path, stem: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(|path| path.file_stem().is_some_and(|name| name == stem))
}

#[test]
fn every_folder_is_edited_or_refused_as_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edits");
    let entries = fs::read_dir(root).expect("the cases");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() >= 80, "only {} cases", folders.len());
    for folder in folders {
        let before = file(&folder, "before").expect("before.*");
        let format = Format::from_path(&before).expect("a known extension");
        let outcome = perform(&fs::read(&before).expect("before"), format, &changes(&folder));
        if std::env::var_os("RECORD_EDITS").is_some() {
            match &outcome {
                Ok(text) => fs::write(
                    folder.join("after").with_extension(before.extension().unwrap()),
                    text,
                ),
                Err(error) => fs::write(folder.join("refused.txt"), format!("{error}\n")),
            }
            .expect("recorded");
        }
        let name = folder.display();
        match (file(&folder, "after"), file(&folder, "refused"), outcome) {
            (Some(after), None, Ok(text)) => {
                let after = String::from_utf8(fs::read(after).expect("after")).expect("text");
                assert_eq!(text, after, "{name}");
            }
            (None, Some(refused), Err(error)) => {
                assert_eq!(
                    format!("{error}\n"),
                    fs::read_to_string(refused).expect("reason"),
                    "{name}"
                );
            }
            (after, refused, outcome) => {
                panic!("{name}: after {after:?}, refused {refused:?}, but the outcome is {outcome:?}")
            }
        }
    }
}
