//! What a former daemon, or a former configuration, knew of the engines.

use std::collections::{BTreeSet, HashMap};

use plimsoll_trace::{EngineMemo, Record};
use plimsoll_tuner::Engine;

use crate::config::Config;

/// A memo that was moved to another name.
const MOVED: &str = "{}";

/// The configured engines, with what `memos` remembers of them; of those that are `known` already, without. One that was
/// given a new name is found by its file: then the memo moves to it, because two engines that remember the same text
/// would both put it back. Answers with the rows to store, too.
pub(super) fn remembering(
    config: &Config,
    memos: &mut HashMap<String, String>,
    known: impl Fn(&str) -> bool,
) -> (Vec<Engine>, Vec<Record>) {
    let names = config.engines.iter().map(|(engine, _)| engine.spec.name.as_str());
    let configured: BTreeSet<&str> = names.collect();
    let (mut engines, mut moved) = (Vec::new(), Vec::new());
    for (engine, ladder) in &config.engines {
        let name = &engine.spec.name;
        let new = |memo: Option<&str>| Engine::new(engine.spec.clone(), ladder.clone(), memo);
        let own = memos.get(name).filter(|memo| *memo != MOVED);
        if own.is_some() || known(name) {
            engines.push(new(own.filter(|_| !known(name)).map(String::as_str)));
            continue;
        }
        let bare = new(None);
        let former = memos
            .iter()
            .find(|(other, memo)| !configured.contains(other.as_str()) && bare.inherits(memo))
            .map(|(other, _)| other.clone());
        let Some((former, memo)) = former.and_then(|former| memos.remove_entry(&former)) else {
            engines.push(bare);
            continue;
        };
        let heir = new(Some(&memo));
        let row = |engine: &str, state| {
            Record::EngineMemo(EngineMemo {
                engine: engine.to_owned(),
                state,
            })
        };
        moved.push(row(&former, MOVED.to_owned()));
        moved.push(row(name, heir.remembered()));
        engines.push(heir);
    }
    (engines, moved)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What an engine remembers that has taken a rung in this file.
    const MEMO: &str =
        r#"{"base": {"path": "/srv/e.yaml", "text": "a: 1\n", "written": "a: 2\n", "keys": ["a"]}}"#;

    fn config(names: &[&str]) -> Config {
        let section = |name: &&str| {
            format!(
                "[engine.{name}]\nprofile = \"custom\"\nmatch = {{ exe = \"e\" }}\nconfig = \"/srv/e.yaml\"\n"
            )
        };
        let text: String = names.iter().map(section).collect();
        Config::parse(&text, Path::new("plimsoll.toml")).unwrap()
    }

    fn memos(of: &[(&str, &str)]) -> HashMap<String, String> {
        let own = |&(name, memo): &(&str, &str)| (name.to_owned(), memo.to_owned());
        of.iter().map(own).collect()
    }

    fn stored(records: &[Record]) -> HashMap<String, String> {
        let memo = |record: &Record| match record {
            Record::EngineMemo(memo) => Some((memo.engine.clone(), memo.state.clone())),
            _ => None,
        };
        records.iter().filter_map(memo).collect()
    }

    #[test]
    fn what_is_known_moves_to_the_new_name_and_back() {
        let mut known = memos(&[("old", MEMO), ("another", "{}")]);
        let (engines, rows) = remembering(&config(&["new"]), &mut known, |_| false);
        assert_eq!(engines.len(), 1);
        assert!(engines[0].inherits(&engines[0].remembered()), "it knows the file");
        assert!(!known.contains_key("old"));
        // As the next daemon finds it: the former name has nothing that a third engine could inherit.
        let mut after = stored(&rows);
        assert_eq!(after["old"], MOVED);
        assert_eq!(after["new"], engines[0].remembered());
        let mut former = memos(&[("old", after["old"].as_str())]);
        let (engines, _) = remembering(&config(&["third"]), &mut former, |_| false);
        assert!(!engines[0].inherits(&engines[0].remembered()));
        // And back.
        let (engines, rows) = remembering(&config(&["old"]), &mut after, |_| false);
        assert!(engines[0].inherits(&engines[0].remembered()));
        assert_eq!(stored(&rows)["new"], MOVED);
    }

    #[test]
    fn engines_that_are_known_do_not_remember() {
        let mut old = memos(&[("e", MEMO)]);
        let (engines, rows) = remembering(&config(&["e"]), &mut old, |name| name == "e");
        assert!(!engines[0].inherits(&engines[0].remembered()));
        assert!(rows.is_empty() && old.contains_key("e"));
        let (engines, _) = remembering(&config(&["e"]), &mut old, |_| false);
        assert!(engines[0].inherits(&engines[0].remembered()));
    }
}
