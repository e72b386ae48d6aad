//! What a former daemon left in the middle: finished or undone at the next start.

use std::time::Instant;

use plimsoll_trace::{ChangeOutcome, ConfigChange, DecisionOutcome};
use serde_json::{Value, json};

use super::action::{Action, chain};
use super::live::Live;
use super::order::{Ended, Order, Report};
use super::panics::caught;
use super::undo::{PAUSE, WRITING};
use super::{Journal, plan, ready};
use crate::file;

/// Resolves what was left of `order`'s decision, by what the file says now:
/// - as before: nothing was written, or it was taken back already; the engine is told to read it again if it may have
///   read the other;
/// - as planned, or edited by a person since: kept if the engine had been seen to serve with it, else undone. What
///   the person wrote stays in either case.
///
/// While the file cannot be read, nothing is known, so nothing is decided: [`Ended::Unresolved`].
#[must_use]
pub fn recover(order: Order, change: Option<ConfigChange>, live: &Live, journal: &dyn Journal) -> Report {
    let action = Action::resume(order, change);
    let spare = action.clone();
    caught(|| resolve(action, live, journal)).unwrap_or_else(|panic| {
        tracing::error!(rule = spare.order.decision.rule, "{panic}");
        spare.give_up(&format!("it could not be resolved: {panic}"))
    })
}

fn resolve(mut action: Action, live: &Live, journal: &dyn Journal) -> Report {
    let Some(change) = &mut action.change else {
        return action.interrupted("the daemon ended before anything was written");
    };
    // An editor may be saving it, a disk may not be mounted yet.
    let deadline = Instant::now() + WRITING;
    let now = loop {
        match file::read(change.path.as_ref()) {
            Ok(now) => break now,
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(error) => {
                let why = chain(&error);
                return action.unresolved(&why);
            }
        }
    };
    let decision = &action.order.decision;
    let noted = |key: &str| decision.detail.get(key).and_then(Value::as_str);
    let verified = decision.outcome == DecisionOutcome::Applied;
    let rolling_back = noted("step") == Some("rolling_back");
    let in_the_middle = match noted("panic") {
        Some(panic) => panic.to_owned(),
        None => "the daemon ended before the change was verified".to_owned(),
    };
    if now.bytes == change.before.as_bytes() {
        change.outcome = ChangeOutcome::RolledBack;
        let config = action.order.engine.config.as_ref();
        let says = config.and_then(|config| plan::values(&now.bytes, config.format, &action.order.keys).ok());
        let differs = says.is_some_and(|says| ready::shows_otherwise(&action.order.engine, &says));
        if rolling_back || verified || differs || noted("panic").is_some() {
            let said = if rolling_back {
                "the daemon ended while it took the change back"
            } else {
                &in_the_middle
            };
            return action.reload_former(said, &now.bytes, live);
        }
        return action.interrupted("the daemon ended before the file was written; nothing was changed");
    }
    if verified && !rolling_back {
        let said =
            "the daemon ended while it watched the effect; the engine had been seen to serve, so it stays";
        return action.end(Ended::Kept, DecisionOutcome::Kept, said, None);
    }
    action.roll_back(&in_the_middle, live, journal)
}

impl Action {
    fn interrupted(self, said: &str) -> Report {
        self.end(Ended::Interrupted, DecisionOutcome::Interrupted, said, None)
    }

    /// The rows stay as they were found, for the next try.
    fn unresolved(mut self, why: &str) -> Report {
        const KEY: &str = "unreadable";
        if self.order.decision.detail.get(KEY).is_none() {
            tracing::error!(
                engine = self.order.engine.name,
                rule = self.order.decision.rule,
                "{why}; what a former daemon began in it is resolved when it can be read, and no rule of this engine acts before"
            );
        }
        self.note(KEY, json!(why));
        Report {
            engine: self.order.engine.name.clone(),
            rule: self.order.decision.rule.clone(),
            ended: Ended::Unresolved,
            effect_bytes: None,
            away: self.away,
            base: None,
            left: None,
            scores: Vec::new(),
            records: self.rows(),
        }
    }

    /// What the file holds is unknown, so what is under ours stays remembered.
    fn give_up(mut self, said: &str) -> Report {
        self.ours_left = true;
        self.end(Ended::Failed, DecisionOutcome::Failed, said, None)
    }
}
