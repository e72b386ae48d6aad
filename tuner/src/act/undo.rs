//! Taking a change back: the former bytes, the same reload, the same check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_trace::{ChangeOutcome, DecisionOutcome, Event, EventKind, Stamp};
use serde_json::json;

use super::action::{Action, chain};
use super::live::{Live, ProcessRef};
use super::order::{Ended, Order, Report};
use super::ready::{self, Readiness};
use super::{Journal, plan, reload};
use crate::adopt::Base;
use crate::desired;
use crate::file::{self, FileError};
use crate::rule::Setting;
use crate::spec::Reload;

/// So long a person who is writing the file at this very moment is waited for.
pub(super) const WRITING: Duration = Duration::from_secs(3);
/// Pause between two tries on the file or the engine.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

impl Action {
    /// The former bytes back, unless a person changed the file meanwhile; reload again; the same check.
    pub(super) fn roll_back(mut self, problem: &str, live: &Live, journal: &dyn Journal) -> Report {
        self.note("problem", json!(problem));
        self.note("step", json!("rolling_back"));
        if let Err(error) = journal.commit(self.rows()) {
            // Taking back comes first: an unstored step is no reason to leave the engine on a bad file.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the step 'rolling_back' is not stored"
            );
        }
        match self.restore() {
            Ok(text) => self.reload_former(problem, &text, live),
            Err(error) => {
                self.ours_left = true;
                let said = format!("{problem}; {}", chain(&error));
                self.end(Ended::Failed, DecisionOutcome::Failed, &said, None)
            }
        }
    }

    /// Makes the engine read the file as it is now, and says how that went.
    pub(super) fn reload_former(mut self, problem: &str, text: &[u8], live: &Live) -> Report {
        let engine = Arc::clone(&self.order.engine);
        let format = engine.config.as_ref().map(|config| config.format);
        // Of a text that cannot be read, nothing is expected.
        let wanted = format.and_then(|format| plan::values(text, format, &self.order.keys).ok());
        let wanted = wanted.unwrap_or_default();
        let (restored, began) = (Stamp::now(), Instant::now());
        let deadline = Instant::now() + self.within();
        // A call or a signal that failed may be repeated; a command may have done half of its work.
        let repeatable = matches!(engine.reload, Reload::Signal(_) | Reload::Http(_));
        let mut failed = None;
        let reloaded = loop {
            // A process that started after the file was restored has read it already.
            let process = live.latest(&engine.name).root;
            if process.is_some_and(|process| started_after(process, restored)) {
                break Ok(());
            }
            let error = match failed.take().filter(|_| !repeatable) {
                Some(error) => error,
                None => match reload::carry_out(&engine.reload, process, self.within()) {
                    Ok(()) => break Ok(()),
                    Err(error) => chain(&error),
                },
            };
            // It refuses to reload, and serves what the file says: perhaps it never read the other.
            if ready::serves(&engine, &wanted) {
                break Ok(());
            }
            if Instant::now() >= deadline {
                break Err(error);
            }
            failed = Some(error);
            let next = Instant::now() + RELOAD_PAUSE;
            live.wait_for(&engine.name, next, |now| (now.root != process).then_some(()));
        };
        let ready = reloaded.map_or_else(Readiness::NotReady, |()| {
            ready::wait_until_ready(&engine, &wanted, Instant::now())
        });
        self.away += began.elapsed();
        let run = self.order.decision.run;
        match ready {
            // It was down before: the file is as it was, and so is the engine.
            Readiness::NotReady(again) if self.down => {
                let said =
                    format!("{problem}; the former file is back, and the engine is still down: {again}");
                self.end(Ended::RolledBack, DecisionOutcome::RolledBack, &said, None)
            }
            Readiness::NotReady(again) => {
                let message = format!(
                    "{} does not serve after its former configuration was put back: {again}",
                    engine.name
                );
                self.events
                    .push(Event::new(EventKind::EngineUnhealthy, message).in_run(run));
                let said =
                    format!("{problem}; the former file is back, but the engine does not serve: {again}");
                self.end(Ended::Failed, DecisionOutcome::Failed, &said, None)
            }
            Readiness::Ready { .. } | Readiness::NotChecked => {
                if matches!(ready, Readiness::Ready { .. }) {
                    let message = format!("{} serves again, on its former configuration", engine.name);
                    self.events.push(self.ready(message));
                }
                let said = format!("{problem}; the former file is back and the engine serves it");
                self.end(Ended::RolledBack, DecisionOutcome::RolledBack, &said, None)
            }
        }
    }

    /// Puts the former bytes back. If a person changed the file meanwhile, only what is ours is taken out of their text;
    /// where that cannot be told apart, the text stays as it is. Answers with what the file says now.
    pub(super) fn restore(&mut self) -> Result<Vec<u8>, FileError> {
        let Some(change) = &mut self.change else {
            return Ok(Vec::new());
        };
        let deadline = Instant::now() + WRITING;
        let text = loop {
            let now = file::read(change.path.as_ref());
            let wanted = now.as_ref().ok().and_then(|now| {
                if now.bytes == change.after.as_bytes() {
                    Some(change.before.clone().into_bytes())
                } else {
                    untangled(&self.order, self.base.as_ref(), &now.bytes)
                }
            });
            let done = match (now, wanted) {
                (Ok(now), Some(wanted)) if wanted == now.bytes => Ok(wanted),
                (Ok(now), Some(wanted)) => file::replace(&now, &wanted).map(|_| wanted),
                (Ok(now), None) if Instant::now() >= deadline => {
                    self.ours_left = true;
                    break now.bytes;
                }
                (Ok(now), None) => Err(FileError::ChangedMeanwhile { path: now.path }),
                (Err(error), _) => Err(error),
            };
            match done {
                Ok(text) => break text,
                Err(error @ FileError::Contended { .. }) if Instant::now() < deadline => {
                    let run = self.order.decision.run;
                    let event = Event::new(EventKind::HumanEdit, error.to_string()).in_run(run);
                    self.events.push(event);
                }
                // They are writing at this very moment: look again.
                Err(
                    FileError::ChangedMeanwhile { .. }
                    | FileError::BeingWritten { .. }
                    | FileError::Missing { .. }
                    | FileError::Locked { .. },
                ) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        };
        if !self.ours_left {
            change.outcome = ChangeOutcome::RolledBack;
        }
        Ok(text)
    }
}

/// A person's text, written over ours while the action was under way, without what this action put into it. `None`
/// when that cannot be told apart: the text is not valid, or empty, as for a moment while an editor saves it.
fn untangled(order: &Order, base: Option<&Base>, edited: &[u8]) -> Option<Vec<u8>> {
    let config = order.engine.config.as_ref()?;
    let base = base?;
    let theirs = base.adopt(edited, config.format).ok()?;
    if theirs.trim().is_empty() {
        return None;
    }
    // A rung whose key they changed is not laid over it again.
    let touched = desired::touched_keys(base.written.as_bytes(), edited, config.format, &order.keys).ok()?;
    let is_theirs = |setting: &Setting| touched.iter().any(|key| key.overlaps(&setting.path));
    let active = order
        .active
        .iter()
        .filter(|rung| !rung.settings.iter().any(is_theirs));
    let active: Vec<_> = active.cloned().collect();
    desired::render(theirs.as_bytes(), config.format, &active).ok()
}

/// Whether a process began its life after `at`. `/proc` counts in clock ticks since boot, as CLOCK_BOOTTIME does.
pub(super) fn started_after(process: ProcessRef, at: Stamp) -> bool {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let started_ns = u128::from(process.started_ticks) * 1_000_000_000 / u128::from(per_second);
    u128::try_from(at.mono_ns).is_ok_and(|at| started_ns > at)
}
