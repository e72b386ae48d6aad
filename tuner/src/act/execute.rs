//! One action from its plan to its outcome, step by step. Whatever goes wrong, the file ends as it was or as planned,
//! and the engine is told to read whichever it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_trace::{ChangeOutcome, DecisionOutcome, Record, Stamp, units};
use serde_json::json;

use super::action::{Action, chain};
use super::effect;
use super::live::{Latest, Live};
use super::order::{Ended, Order, Report};
use super::panics::{Panicked, caught};
use super::plan::{self, Plan};
use super::ready::{self, ReadBack, Readiness};
use super::recover::recover;
use super::{Journal, before, reload};
use crate::file::{self, FileError};
use crate::guard::{Baseline, Consequence, Finding, Guard, consequence};
use crate::spec::Reload;

/// So soon another process is seen at the latest, or within three looks.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// Carries `order` out and reports. Blocks for as long as the engine may take to reload, twice in the worst case.
#[must_use]
pub fn carry_out(order: Order, live: &Live, journal: &dyn Journal) -> Report {
    let plan = match caught(|| plan::make(&order)) {
        Ok(Ok(plan)) => plan,
        Ok(Err(error)) => return Action::new(order, None).refuse(&chain(&error)),
        Err(panic) => return Action::new(order, None).refuse(&chain(&panic)),
    };
    let order_restarts = order.restart;
    let action = Action::new(order, Some(&plan));
    if plan.is_empty() && !order_restarts {
        return action.end(
            Ended::Kept,
            DecisionOutcome::Kept,
            "the file already says so, so nothing was written",
            None,
        );
    }
    let spare = action.clone();
    caught(|| action.run(&plan, live, journal))
        .unwrap_or_else(|panic| spare.after_a_panic(&panic, live, journal))
}

impl Action {
    fn run(mut self, plan: &Plan, live: &Live, journal: &dyn Journal) -> Report {
        let engine = Arc::clone(&self.order.engine);
        if let Err(error) = file::check(&plan.snapshot) {
            self.change = None;
            return self.refuse(&chain(&error));
        }
        let found = before::look(&self.order, plan, live);
        self.note_guards("before", &found.guards);
        self.down = found.down;
        let mut before = live.latest(&engine.name);
        before.vram = effect::fresh(&before, Stamp::now(), live.interval());
        let refusal = found.refusal().map(str::to_owned);
        let refusal = refusal.or_else(|| match reload::check(&engine.reload, before.root) {
            Err(error) if !self.down => Some(chain(&error)),
            _ => None,
        });
        if let Some(why) = refusal {
            self.change = None;
            return self.refuse(&why);
        }
        let quality = self.quality_before(plan);
        self.note_guards("before", quality.as_slice());
        let idle = self.wait_until_idle(live);
        self.note_guards("during", idle.as_slice());
        self.order.decision.outcome = DecisionOutcome::Applying;
        if let Err(error) = journal.commit(self.rows()) {
            self.change = None;
            return self.refuse(&chain(&error));
        }
        let started = Instant::now();
        let written = if plan.is_empty() {
            Ok(())
        } else {
            file::replace(&plan.snapshot, &plan.after).map(drop)
        };
        if let Err(error) = written {
            return self.not_written(&error);
        }
        let ready = match self.tell(&before, Stamp::now(), live) {
            Ok(()) if self.down => ready::wait_until_ready(&engine, &plan.wanted, Instant::now()),
            Ok(()) => ready::wait_until_ready(&engine, &plan.wanted, started),
            Err(problem) => Readiness::NotReady(problem),
        };
        self.away = started.elapsed();
        let (guard, ready) = match ready {
            Readiness::Ready { read_back, after } => (
                Guard::new("ready", Finding::Pass, "it serves again")
                    .with(json!({ "after_secs": after.as_secs_f64() })),
                Ok((read_back, after)),
            ),
            Readiness::NotChecked => (
                Guard::unable("ready", "no health check is configured"),
                Ok((ReadBack::Unknown, started.elapsed())),
            ),
            Readiness::NotReady(problem) => {
                (Guard::new("ready", Finding::Fail, problem.as_str()), Err(problem))
            }
        };
        self.note_guards("during", &[guard]);
        if ready.is_ok() && self.order.restart && self.is_same_process(&before, live) {
            let why = "its `reload` left the same process running, so it was no restart";
            self.change = None;
            return self.refuse(why);
        }
        match ready {
            Ok((read_back, after)) => {
                // It is up now, whatever it was.
                self.down = false;
                self.verify(&read_back, after, (before, found.baseline, plan), live, journal)
            }
            Err(problem) => self.roll_back(&problem, live, journal),
        }
    }

    /// Whether the process that was to be replaced still runs; unknown is no.
    fn is_same_process(&self, before: &Latest, live: &Live) -> bool {
        let engine = &self.order.engine.name;
        let deadline = Instant::now() + SEEN_WITHIN.max(live.interval() * 3);
        let is_another = |now: &Latest| (now.root != before.root).then_some(());
        before.root.is_some() && live.wait_for(engine, deadline, is_another).is_none()
    }

    /// The engine serves with the new values. What did it do to memory, to requests, to the answers?
    fn verify(
        mut self,
        read_back: &ReadBack,
        took: Duration,
        (before, baseline, plan): (Latest, Option<Baseline>, &Plan),
        live: &Live,
        journal: &dyn Journal,
    ) -> Report {
        let equal = *read_back == ReadBack::Equal;
        let (shown, values) = if equal {
            ("equal", " and shows the new values")
        } else {
            ("unknown", "")
        };
        self.order.decision.outcome = DecisionOutcome::Applied;
        self.note(
            "ready",
            json!({ "after_secs": took.as_secs_f64(), "read_back": shown }),
        );
        let applied = Stamp::now();
        let mut rows = self.rows();
        if self.order.engine.health.is_some() {
            let engine = &self.order.engine.name;
            let message = format!(
                "{engine} serves again after {}{values}",
                units::show_duration(took)
            );
            rows.push(Record::Event(self.ready(message)));
        }
        if let Err(error) = journal.commit(rows) {
            // The engine serves; the row will follow with the outcome.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the step 'applied' is not stored"
            );
        }
        let watched = self.watch(&before, baseline, applied, live);
        let mut guards = vec![if equal {
            Guard::new("read_back", Finding::Pass, "it shows the new values")
        } else {
            Guard::unable("read_back", "it does not show the values in force")
        }];
        guards.extend(watched.guards);
        if !matches!(consequence(&guards, self.order.cost), Consequence::TakeBack(_)) {
            guards.extend(self.quality_after(plan));
        }
        self.note_guards("after", &guards);
        let effect = watched.effect_bytes;
        let held = before.vram.map(|(_, bytes)| bytes);
        self.note(
            "effect",
            json!({ "before_bytes": held, "after_bytes": watched.after_bytes, "freed_bytes": effect }),
        );
        let unsure = match consequence(&guards, self.order.cost) {
            // A restart changed nothing that could be taken back, and a second one would cost as much again.
            Consequence::TakeBack(problem) if self.change.is_none() => {
                format!("; there is nothing to take back, though {problem}")
            }
            Consequence::TakeBack(problem) => return self.roll_back(&problem, live, journal),
            Consequence::KeepAndSay(unsure) => format!("; it stays, though {unsure}"),
            Consequence::Keep => String::new(),
        };
        let restarted = !matches!(self.order.engine.reload, Reload::Restart(_));
        let replaced = match (before.root, live.latest(&self.order.engine.name).root) {
            (Some(before), Some(now)) if before != now && restarted => {
                "; its process ended meanwhile and was started again"
            }
            _ => "",
        };
        let said = format!(
            "the engine serves again after {}{values}{replaced}; {}{unsure}",
            units::show_duration(took),
            effect.map_or_else(|| "what it did to memory is unknown".to_owned(), effect::show)
        );
        self.end(Ended::Kept, DecisionOutcome::Kept, &said, effect)
    }

    /// Resolves what a defect left in the middle as if the daemon had been killed there.
    fn after_a_panic(mut self, panic: &Panicked, live: &Live, journal: &dyn Journal) -> Report {
        tracing::error!(rule = self.order.decision.rule, "{panic}; the action is undone");
        self.note("panic", json!(panic.to_string()));
        self.order.decision.outcome = DecisionOutcome::Applying;
        recover(self.order, self.change, live, journal)
    }

    /// The engine was told nothing. What a person saved over ours in the moment that it was in place may hold ours.
    fn not_written(mut self, error: &FileError) -> Report {
        let why = chain(error);
        if matches!(error, FileError::Contended { .. })
            && let Err(error) = self.restore()
        {
            self.ours_left = true;
            let said = format!("{why}; {}", chain(&error));
            return self.end(Ended::Failed, DecisionOutcome::Failed, &said, None);
        }
        if let Some(change) = &mut self.change {
            change.outcome = ChangeOutcome::RolledBack;
        }
        self.refuse(&why)
    }

    fn refuse(self, why: &str) -> Report {
        let said = format!("refused, nothing was changed: {why}");
        self.end(Ended::Refused, DecisionOutcome::Refused, &said, None)
    }
}
