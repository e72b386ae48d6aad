//! What a former daemon left in the middle: finished or undone at the next start.

use plimsoll_trace::{ChangeOutcome, ConfigChange, DecisionOutcome};
use serde_json::Value;

use super::Journal;
use super::execute::{Action, Base, Ended, Order, Report, chain};
use super::live::Live;
use crate::edit::{self, KeyPath};
use crate::file;

/// Resolves what was left of `order`'s decision, by what the file says now:
/// - as before: nothing was written, or it was taken back already; the engine is only told to read it again if a
///   rollback was under way;
/// - as planned, or edited by a person since: kept if the engine had been seen to serve with it, else undone. What
///   the person wrote stays in either case.
#[must_use]
pub fn recover(order: Order, change: Option<ConfigChange>, live: &Live, journal: &dyn Journal) -> Report {
    let undone = |order, change: Option<ConfigChange>, said: &str| {
        let change = change.map(|change| ConfigChange {
            outcome: ChangeOutcome::RolledBack,
            ..change
        });
        Action::resume(order, change, None).end(Ended::Interrupted, DecisionOutcome::Interrupted, said, None)
    };
    let Some(change) = change else {
        return undone(order, None, "the daemon ended before anything was written");
    };
    let now = match file::read(change.path.as_ref()) {
        Ok(now) => now,
        Err(error) => {
            let said = format!(
                "the daemon ended in the middle, and the file cannot be read now: {}",
                chain(&error)
            );
            return Action::resume(order, Some(change), None).end(
                Ended::Failed,
                DecisionOutcome::Failed,
                &said,
                None,
            );
        }
    };
    let detail = &order.decision.detail;
    let verified = order.decision.outcome == DecisionOutcome::Applied;
    let rolling_back = detail.get("step").and_then(Value::as_str) == Some("rolling_back");
    let former = former_values(&order, &change.before);
    if now.bytes == change.before.as_bytes() {
        if !rolling_back {
            return undone(
                order,
                Some(change),
                "the daemon ended before the file was written; nothing was changed",
            );
        }
        let change = ConfigChange {
            outcome: ChangeOutcome::RolledBack,
            ..change
        };
        let action = Action::resume(order, Some(change), None);
        return action.reload_former("the daemon ended while it took the change back", &former, live);
    }
    let text = detail
        .pointer("/file/base")
        .and_then(Value::as_str)
        .unwrap_or(&change.before)
        .to_owned();
    let base = Base {
        text,
        written_hash: file::hash(change.after.as_bytes()),
    };
    if verified && !rolling_back {
        let effect = detail.pointer("/effect/freed_bytes").and_then(Value::as_f64);
        let said =
            "the daemon ended while it watched the effect; the engine had been seen to serve, so it stays";
        let action = Action::resume(order, Some(change), Some(base));
        return action.end(Ended::Kept, DecisionOutcome::Kept, said, effect);
    }
    let action = Action::resume(order, Some(change), Some(base));
    action.roll_back(
        "the daemon ended before the change was verified",
        &former,
        live,
        journal,
    )
}

/// The values that the engine showed before the change.
fn former_values(order: &Order, before: &str) -> Vec<(KeyPath, Value)> {
    let Some(config) = &order.engine.config else {
        return Vec::new();
    };
    let get = |key: &KeyPath| {
        edit::get(before, config.format, key)
            .ok()?
            .map(|value| (key.clone(), value))
    };
    order.keys.iter().filter_map(get).collect()
}
