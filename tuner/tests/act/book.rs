//! A journal in a file, as durable as the store, that another process can read after this one was killed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use plimsoll_trace::{ConfigChange, Decision, DecisionId, Event, Record, RunId};
use plimsoll_tuner::act::{Journal, JournalError};
use serde_json::{Value, json};

/// What a test does at a commit, counted from 0: before it is durable, and after. `Err` is a journal that fails.
type Hook = Box<dyn Fn(usize, super::engine::When) -> Result<(), String> + Send + Sync>;

pub(crate) struct Book {
    path: PathBuf,
    commits: Mutex<usize>,
    hook: Option<Hook>,
}

/// What a daemon finds in its store when it starts.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) decisions: BTreeMap<i64, Decision>,
    pub(crate) changes: BTreeMap<i64, ConfigChange>,
    pub(crate) memo: Option<String>,
    pub(crate) events: Vec<String>,
}

impl Book {
    pub(crate) fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            commits: Mutex::new(0),
            hook: None,
        }
    }

    pub(crate) fn with_hook(
        self,
        hook: impl Fn(usize, super::engine::When) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            hook: Some(Box::new(hook)),
            ..self
        }
    }

    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // A line may be under way.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let batch: Vec<Value> = serde_json::from_str(line).unwrap();
            for record in &batch {
                rows.take(record);
            }
        }
        rows
    }

    fn write(&self, records: &[Record]) {
        let line = Value::from(records.iter().filter_map(to_json).collect::<Vec<_>>());
        let mut file: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .unwrap();
        // One write, so that a batch is there as a whole or not at all.
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Journal for Book {
    fn commit(&self, records: Vec<Record>) -> Result<(), JournalError> {
        use super::engine::When;

        let number = {
            let mut commits = self.commits.lock().unwrap();
            *commits += 1;
            *commits - 1
        };
        let at = |when| self.hook.as_ref().map_or(Ok(()), |hook| hook(number, when));
        at(When::Before).map_err(|error| JournalError(error.into()))?;
        self.write(&records);
        at(When::After).map_err(|error| JournalError(error.into()))
    }
}

impl Rows {
    fn take(&mut self, record: &Value) {
        let text = |key: &str| record[key].as_str().unwrap().to_owned();
        let number = |key: &str| record[key].as_i64().unwrap();
        match record["record"].as_str().unwrap() {
            "decision" => {
                let decision = Decision {
                    id: DecisionId(number("id")),
                    run: record["run"].as_i64().map(RunId),
                    engine: text("engine"),
                    rule: text("rule"),
                    at_ns: number("at_ns"),
                    mode: text("mode").parse().unwrap(),
                    verdict: text("verdict").parse().unwrap(),
                    outcome: text("outcome").parse().unwrap(),
                    signal: text("signal"),
                    value: record["value"].as_f64(),
                    threshold: record["threshold"].as_f64(),
                    explanation: text("explanation"),
                    detail: record["detail"].clone(),
                };
                self.decisions.insert(decision.id.0, decision);
            }
            "change" => {
                let change = ConfigChange {
                    id: number("id"),
                    decision: DecisionId(number("decision")),
                    path: text("path"),
                    at_ns: number("at_ns"),
                    before: text("before"),
                    after: text("after"),
                    diff: text("diff"),
                    outcome: text("outcome").parse().unwrap(),
                };
                self.changes.insert(change.id, change);
            }
            "memo" => self.memo = Some(text("state")),
            _ => self.events.push(text("message")),
        }
    }

    /// The newest decision.
    pub(crate) fn last(&self) -> &Decision {
        self.decisions.values().next_back().expect("a decision")
    }
}

fn to_json(record: &Record) -> Option<Value> {
    Some(match record {
        Record::Decision(it) => json!({
            "record": "decision", "id": it.id.0, "run": it.run.map(|run| run.0), "engine": it.engine, "rule": it.rule,
            "at_ns": it.at_ns, "mode": it.mode, "verdict": it.verdict, "outcome": it.outcome, "signal": it.signal,
            "value": it.value, "threshold": it.threshold, "explanation": it.explanation, "detail": it.detail,
        }),
        Record::ConfigChange(it) => json!({
            "record": "change", "id": it.id, "decision": it.decision.0, "path": it.path, "at_ns": it.at_ns,
            "before": it.before, "after": it.after, "diff": it.diff, "outcome": it.outcome,
        }),
        Record::EngineMemo(it) => json!({ "record": "memo", "engine": it.engine, "state": it.state }),
        Record::Event(Event { kind, message, .. }) => {
            json!({ "record": "event", "message": format!("{kind}: {message}") })
        }
        _ => return None,
    })
}
