//! The engine's file as others may change it: a person's text becomes the new base.

use std::collections::BTreeSet;

use plimsoll_trace::{Event, EventKind, Record, Stamp, Verdict};
use serde_json::json;

use super::Engine;
use super::proposals::withdrawn;
use crate::adopt::Base;
use crate::edit::{Format, KeyPath, Reason};
use crate::rule::Rule;
use crate::{desired, diff, edit, file};

const THEIRS: &str = "A person changed its keys in the engine's file.";

impl Engine {
    /// Looks whether a person changed the file. If so, their text is the new base, and the rules on the keys that they
    /// changed are suspended. Answers with rows to store.
    pub fn file_changed(&mut self, now: Stamp) -> Vec<Record> {
        if self.acting || self.held {
            // Looked at when the action ends, which itself never writes over a person's edit. And what a former daemon
            // was writing when it ended is not a person's.
            return Vec::new();
        }
        let mut records = self.look_at_file(now);
        if !records.is_empty() {
            records.push(self.memo());
        }
        records
    }

    pub(super) fn look_at_file(&mut self, now: Stamp) -> Vec<Record> {
        let Some(config) = self.spec.config.clone() else {
            return Vec::new();
        };
        if self
            .memo
            .base
            .as_ref()
            .is_some_and(|base| base.path != config.path)
        {
            return self.leave_file(now);
        }
        // A file that is gone or unreadable is refused with its reason when a rule wants it.
        let Ok(snapshot) = file::read(&config.path) else {
            return Vec::new();
        };
        // At the first look of this daemon, what was there before is what a former one wrote last.
        let before = match (&self.seen, &self.memo.base) {
            (Some(before), _) => before.clone(),
            (None, Some(base)) => base.written.clone().into_bytes(),
            (None, None) => snapshot.bytes.clone(),
        };
        if before != snapshot.bytes && !is_whole(&snapshot.bytes, config.format) {
            tracing::warn!(
                path = %config.path.display(),
                "the file was changed and is empty or not valid now; it is looked at again when it is"
            );
            return Vec::new();
        }
        self.seen = Some(snapshot.bytes.clone());
        let records = if before == snapshot.bytes {
            Vec::new()
        } else {
            self.take_over(&before, &snapshot.bytes, now)
        };
        self.forget_effects();
        records
    }

    /// The configuration names another file now. What the former one holds of ours stays there: whether it is still
    /// used, and by whom, is not known.
    fn leave_file(&mut self, now: Stamp) -> Vec<Record> {
        let Some(base) = self.memo.base.take() else {
            return Vec::new();
        };
        self.memo.ladder.leave_all(now);
        let path = base.path.display();
        let keys: Vec<String> = base.keys.iter().map(ToString::to_string).collect();
        let message = format!(
            "{path} is no longer the engine's file, and still holds what Plimsoll set: {}; the text before is in this event's detail",
            keys.join(", ")
        );
        tracing::warn!(engine = self.name(), "{message}");
        let detail = json!({ "path": base.path, "keys": keys, "before_text": base.text });
        vec![Record::Event(
            Event::new(EventKind::EngineFileLeft, message).with_detail(detail),
        )]
    }

    /// A person's text becomes the new base.
    fn take_over(&mut self, before: &[u8], edited: &[u8], now: Stamp) -> Vec<Record> {
        let Some(config) = self.spec.config.clone() else {
            return Vec::new();
        };
        let rules = self.ladder.rules.iter().flat_map(|rule| &rule.set);
        let all: BTreeSet<KeyPath> = rules.map(|setting| setting.path.clone()).collect();
        let changed = desired::touched_keys(before, edited, config.format, &all);
        // Against a text that cannot be read, they changed them all.
        let changed = changed.unwrap_or_else(|_| all.iter().cloned().collect());
        let heeded = self.heeded(before, edited, &changed, config.format);
        let mut others = self.ladder.clone();
        others.rules.retain(|rule| !heeded.contains(&rule.name));
        let suspended = self.memo.ladder.suspend(&others, &changed, now);
        let mut closed = self.close(&suspended, THEIRS);
        heeded.iter().for_each(|rule| self.memo.ladder.heed(rule));
        closed.extend(self.close(&heeded, "A person wrote what it advised, so that is their own."));
        if let Some(base) = self.memo.base.take() {
            match base.adopt(edited, config.format) {
                // What is ours stays remembered for as long as it is in the file, also when its rule is suspended.
                Ok(text) if text.as_bytes() != edited => {
                    self.memo.base = Some(Base {
                        text,
                        written: String::from_utf8_lossy(edited).into_owned(),
                        ..base
                    });
                }
                Ok(_) => {}
                // What is ours cannot be told from what is theirs: all of it is theirs.
                Err(_) => {
                    let keys: Vec<KeyPath> = all.into_iter().collect();
                    let rules = self.memo.ladder.suspend(&self.ladder, &keys, now);
                    closed.extend(self.close(&rules, THEIRS));
                }
            }
        }
        let path = config.path.to_string_lossy();
        let mut message = format!("somebody changed {path}; that text is the base from now on");
        if !suspended.is_empty() {
            message += &format!("; suspended until `plimsoll resume`: {}", suspended.join(", "));
        }
        tracing::info!("{message}");
        let detail = json!({
            "path": path,
            "diff": diff::unified(&path, before, edited),
            "keys": changed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "suspended": suspended,
        });
        let event = Event::new(EventKind::HumanEdit, message).with_detail(detail);
        std::iter::once(Record::Event(event)).chain(closed).collect()
    }

    /// The rules whose proposal a person follows with an edit: those of their keys that were changed have the advised value.
    /// To follow in part is to follow, because a scale is of the value that was there before.
    fn heeded(&self, before: &[u8], edited: &[u8], changed: &[KeyPath], format: Format) -> Vec<String> {
        let base = self.memo.base.as_ref();
        let base = base.map_or(before, |base| base.text.as_bytes());
        let follows = |rule: &Rule| {
            let proposal = self.proposals.get(&rule.name)?;
            let own = self.overlays(std::slice::from_ref(&rule.name));
            let advised = desired::render(base, format, &own).ok()?;
            let paths = rule.set.iter().map(|setting| &setting.path);
            let theirs: Vec<&KeyPath> = paths
                .filter(|path| changed.iter().any(|key| key.overlaps(path)))
                .collect();
            let is_theirs = !theirs.is_empty();
            let differs = desired::touched_keys(&advised, edited, format, theirs).ok()?;
            Some(proposal.verdict == Verdict::Apply && is_theirs && differs.is_empty())
        };
        let rules = self.ladder.rules.iter();
        rules
            .filter(|rule| follows(rule) == Some(true))
            .map(|rule| rule.name.clone())
            .collect()
    }

    /// Closes what was proposed for these rules.
    fn close(&mut self, rules: &[String], why: &str) -> Vec<Record> {
        let proposals = rules.iter().filter_map(|rule| self.proposals.remove(rule));
        proposals.map(|proposal| withdrawn(proposal, why)).collect()
    }
}

/// Whether a text is one that somebody means: an editor that saves leaves it empty or cut off for a moment, and a person
/// may leave it invalid for longer.
fn is_whole(text: &[u8], format: Format) -> bool {
    let Ok(root) = "plimsoll".parse::<KeyPath>() else {
        return false;
    };
    let valid = |text: &str| !matches!(edit::get(text, format, &root), Err(error) if matches!(error.reason, Reason::Invalid { .. }));
    !text.trim_ascii().is_empty() && edit::text(text).is_ok_and(valid)
}
