//! Decisions as they were stored, for `show` and `why`.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use plimsoll_store::{Reader, Value};
use plimsoll_trace::signal;
use serde::Serialize;
use serde_json::Value as Json;

use crate::change;
use crate::error::ReportError;
use crate::grounds;
use crate::instant::full;
use crate::plain::{UNKNOWN, quoted, wrapped};
use crate::row::rows;

/// One row of the view `decisions` with what it changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Its number.
    pub id: i64,
    /// The run it acted on.
    pub run_id: Option<i64>,
    /// The engine.
    pub engine: String,
    /// The rule.
    pub rule: String,
    /// When it was made, ns since the Unix epoch.
    pub at_ns: i64,
    /// observe, advise, act.
    pub mode: String,
    /// apply, release, revert.
    pub verdict: String,
    /// How far it came.
    pub outcome: String,
    /// The signal that decided.
    pub signal: String,
    /// Its value then, in the signal's unit.
    pub value: Option<f64>,
    /// The line it was held against.
    pub threshold: Option<f64>,
    /// Why, and what came of it.
    pub explanation: String,
    /// Clauses, expectation, steps and figures.
    pub detail: Json,
    /// What was written.
    pub changes: Vec<Change>,
}

/// One row of the view `config_changes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its number.
    pub id: i64,
    /// The file.
    pub path: String,
    /// When it was about to be written, ns since the Unix epoch.
    pub at_ns: i64,
    /// The difference as a unified diff.
    pub diff: String,
    /// written, kept, rolled_back.
    pub outcome: String,
}

/// Reads decisions. `condition` is what follows WHERE in a query of `decisions`.
pub(crate) async fn read(
    reader: &Reader,
    condition: &str,
    values: &[Value],
) -> Result<Vec<Decision>, ReportError> {
    let sql = format!(
        "SELECT decision_id, id, path, at_ns, diff, outcome FROM config_changes \
         WHERE decision_id IN (SELECT id FROM decisions WHERE {condition}) ORDER BY id"
    );
    let table = reader.query(&sql, values).await?;
    let mut changes: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    for mut row in rows(&table) {
        let Some(decision) = row.int() else { continue };
        changes.entry(decision).or_default().push(Change {
            id: row.int().unwrap_or(0),
            path: row.word(),
            at_ns: row.int().unwrap_or(0),
            diff: row.word(),
            outcome: row.word(),
        });
    }
    let sql = format!(
        "SELECT id, run_id, engine, rule, at_ns, mode, verdict, outcome, signal, value, threshold, explanation, detail \
         FROM decisions WHERE {condition}"
    );
    let table = reader.query(&sql, values).await?;
    let decisions = rows(&table).filter_map(|mut row| {
        let id = row.int()?;
        Some(Decision {
            id,
            run_id: row.int(),
            engine: row.word(),
            rule: row.word(),
            at_ns: row.int()?,
            mode: row.word(),
            verdict: row.word(),
            outcome: row.word(),
            signal: row.word(),
            value: row.real(),
            threshold: row.real(),
            explanation: row.word(),
            detail: row.json(),
            changes: changes.remove(&id).unwrap_or_default(),
        })
    });
    Ok(decisions.collect())
}

impl Decision {
    /// Everything about it that people ask for, indented under a line that names it.
    pub(crate) fn text(&self, zone: &TimeZone) -> String {
        let mut out = wrapped(
            &format!(
                "decision {}: {} {} on {}, {} ({})",
                self.id,
                self.verdict,
                self.rule,
                self.engine,
                self.outcome.replace('_', " "),
                self.mode
            ),
            0,
        );
        let when = match self.run_id {
            Some(run) => format!("{}, run {run}", full(self.at_ns, zone)),
            None => full(self.at_ns, zone),
        };
        out += &wrapped(&format!("{when}{}", self.by_whom()), 2);
        out += &wrapped(&self.explanation, 2);
        let clauses = self.detail.get("clauses").and_then(Json::as_array);
        if let Some(clauses) = clauses.filter(|clauses| !clauses.is_empty()) {
            out += "  seen:\n";
            for text in clauses.iter().filter_map(|clause| clause.get("text")?.as_str()) {
                out += &wrapped(&format!("- {text}"), 2);
            }
        } else if !self.signal.is_empty() {
            let show =
                |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), |value| self.shown(value));
            let (value, line) = (show(self.value), show(self.threshold));
            out += &wrapped(&format!("{} was {value}, the line is {line}", self.signal), 2);
        }
        for line in grounds::lines(&self.detail) {
            out += &wrapped(&line, 2);
        }
        let expected = self.detail.get("expected_effect_bytes").and_then(Json::as_f64);
        let freed = self.detail.pointer("/effect/freed_bytes").and_then(Json::as_f64);
        match (expected, freed) {
            (Some(expected), Some(freed)) => {
                let (expected, freed) = (change::freed(expected), change::freed(freed));
                out += &wrapped(&format!("observed effect: {freed}; expected: {expected}"), 2);
            }
            (None, Some(freed)) => {
                out += &wrapped(&format!("observed effect: {}", change::freed(freed)), 2);
            }
            (_, None) => {}
        }
        for change in &self.changes {
            out += &wrapped(
                &format!("{} ({})", change.path, change.outcome.replace('_', " ")),
                2,
            );
            out += &quoted(&change.diff, 4);
        }
        out
    }

    /// Who decided, and who else had a part.
    fn by_whom(&self) -> String {
        let text = |key: &str| {
            let actor = self.detail.get(key)?;
            let uid = actor.get("uid").and_then(Json::as_u64);
            Some(match (actor.get("kind")?.as_str()?, uid) {
                ("person", Some(uid)) => format!("the user with number {uid}"),
                ("person", None) => "a person".to_owned(),
                ("recovery", _) => "the next daemon, after the one before ended in the middle".to_owned(),
                (other, _) => format!("the {other}"),
            })
        };
        let told = [
            ("actor", "decided by"),
            ("applied_by", "applied by"),
            ("resolved_by", "resolved by"),
        ];
        let parts = told
            .iter()
            .filter_map(|(key, how)| Some(format!("; {how} {}", text(key)?)));
        parts.collect()
    }

    fn shown(&self, value: f64) -> String {
        signal::find(&self.signal).map_or_else(|| value.to_string(), |signal| signal.unit.show(value))
    }
}
