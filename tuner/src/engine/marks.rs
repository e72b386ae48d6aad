//! Marks for replays: where the ladder stood whenever something besides its evaluation changed that.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_trace::{LadderMark, MarkKind, Record, Stamp};
use serde::Serialize;

use super::Engine;
use crate::budget::Host;
use crate::rule::Source;
use crate::signals::{EngineView, Readings};
use crate::state::LadderState;

/// How the last look at the rules left things.
#[derive(Debug, Default)]
pub(super) enum Left {
    /// There was none by this daemon.
    #[default]
    Nothing,
    /// They were passed over.
    Held,
    /// They were evaluated.
    Evaluated(Box<Evaluated>),
}

/// What an evaluation left, and what it was of.
#[derive(Debug, PartialEq)]
pub(super) struct Evaluated {
    ladder: LadderState,
    source: Source,
    view: EngineView,
    max_age: Duration,
    host: Host,
}

/// What a mark holds besides what its row has columns for.
#[derive(Serialize)]
struct Noted<'a> {
    #[serde(flatten)]
    ladder: &'a LadderState,
    /// What the other engines had cost: a limit of the host holds a rule back without any trace in its own state.
    host: &'a Host,
}

impl Engine {
    /// The mark that has to come before an evaluation, if anything is not as the last one left it.
    pub(super) fn mark_before(&self, readings: &Readings, now: Stamp) -> Option<Record> {
        let kind = match &self.left {
            Left::Nothing => MarkKind::Start,
            Left::Held => MarkKind::Change,
            Left::Evaluated(left)
                if left.ladder == self.memo.ladder
                    && left.source == self.ladder.source
                    && left.view == *readings.view()
                    && left.max_age == readings.max_age()
                    && left.host == *readings.host() =>
            {
                return None;
            }
            Left::Evaluated(_) => MarkKind::Change,
        };
        Some(self.mark(kind, readings, now))
    }

    /// The mark of an evaluation that was given up.
    pub(super) fn mark_instead(&mut self, readings: &Readings, now: Stamp) -> Record {
        self.evaluated(readings);
        self.mark(MarkKind::Instead, readings, now)
    }

    /// Takes note of what an evaluation left.
    pub(super) fn evaluated(&mut self, readings: &Readings) {
        self.left = Left::Evaluated(Box::new(Evaluated {
            ladder: self.memo.ladder.clone(),
            source: self.ladder.source.clone(),
            view: readings.view().clone(),
            max_age: readings.max_age(),
            host: readings.host().clone(),
        }));
    }

    /// The rules are not looked at now, though there is something to see. Answers with rows to store the first time.
    pub fn passed_over(&mut self, now: Stamp) -> Vec<Record> {
        let kinds: &[MarkKind] = match self.left {
            Left::Nothing => &[MarkKind::Start, MarkKind::Held],
            Left::Evaluated(_) => &[MarkKind::Held],
            Left::Held => return Vec::new(),
        };
        self.left = Left::Held;
        let nothing = Readings::unknown(Duration::ZERO);
        kinds.iter().map(|kind| self.mark(*kind, &nothing, now)).collect()
    }

    fn mark(&self, kind: MarkKind, readings: &Readings, now: Stamp) -> Record {
        let view = readings.view();
        Record::LadderMark(LadderMark {
            engine: self.spec.name.clone(),
            at_ns: now.unix_ns,
            kind,
            rules_hash: self.ladder.source.hash().to_string(),
            rules: Arc::clone(self.ladder.source.text()),
            max_age_ns: i64::try_from(readings.max_age().as_nanos()).unwrap_or(i64::MAX),
            run: view.run,
            devices: view.devices.clone(),
            state: serde_json::to_string(&Noted {
                ladder: &self.memo.ladder,
                host: readings.host(),
            })
            .unwrap_or_default(),
        })
    }
}
