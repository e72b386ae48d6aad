//! What must be right before a change is begun.

use std::time::{Duration, Instant, SystemTime};

use plimsoll_trace::{Stamp, Verdict, units};
use serde_json::json;

use super::live::{Live, ProcessRef};
use super::order::Order;
use super::plan::Plan;
use super::ready;
use super::undo::{PAUSE, started_after};
use crate::file;
use crate::guard::{Baseline, Finding, Guard, Missing};
use crate::rule::Cost;

/// Beside the new text, its temporary file and the change's rows need some room.
const SPARE_BYTES: u64 = 256 << 10;
/// So many health checks in a row are a failure.
const CHECKS: u32 = 2;

/// What was found before a change.
pub(super) struct Before {
    pub(super) guards: Vec<Guard>,
    /// How the engine served.
    pub(super) baseline: Option<Baseline>,
    /// The engine died and is not back: it is changed while it is down.
    pub(super) down: bool,
}

impl Before {
    /// Why the change must not be begun.
    pub(super) fn refusal(&self) -> Option<&str> {
        let failed = self.guards.iter().find(|guard| guard.finding == Finding::Fail);
        failed.map(|guard| guard.said.as_str())
    }
}

/// Looks at everything, the file and the engine included. Waits as long as somebody else may need to finish what they are
/// doing, and no longer.
pub(super) fn look(order: &Order, plan: &Plan, live: &Live) -> Before {
    let healthy = healthy(order);
    let down = order.answers_death && healthy.finding == Finding::Fail;
    let mut guards = vec![if down {
        Guard::unable("healthy", "the engine is down, and comes back with the change")
    } else {
        healthy
    }];
    if !down && guards.iter().all(|guard| guard.finding != Finding::Fail) {
        guards.push(left_alone(order, plan, live));
    }
    guards.push(budget(order));
    guards.push(room(plan));
    guards.push(fits(order));
    let (guard, baseline) = baseline(order, live, down);
    guards.push(guard);
    Before {
        guards,
        baseline,
        down,
    }
}

fn healthy(order: &Order) -> Guard {
    for _ in 1..CHECKS {
        match ready::is_healthy(&order.engine) {
            None => return Guard::unable("healthy", "no health check is configured"),
            Some(true) => return Guard::new("healthy", Finding::Pass, "the engine answers its health check"),
            Some(false) => std::thread::sleep(PAUSE),
        }
    }
    if ready::is_healthy(&order.engine) == Some(true) {
        return Guard::new("healthy", Finding::Pass, "the engine answers its health check");
    }
    if order.decision.verdict != Verdict::Apply {
        let said = "the engine does not answer its health check; what is taken back may be why";
        return Guard::unable("healthy", said);
    }
    Guard::new(
        "healthy",
        Finding::Fail,
        "the engine does not answer its health check, so nothing could be verified",
    )
}

/// Nobody else is deploying: the file and the process have been as they are for a moment. A file that was changed since it
/// was last looked at has no plan at all.
fn left_alone(order: &Order, plan: &Plan, live: &Live) -> Guard {
    let (name, wait) = ("left_alone", order.engine.guards.waits.settled);
    let began = Instant::now();
    let process = live.latest(&order.engine.name).root;
    // What we wrote ourselves is nobody else's.
    let ours = order
        .base
        .as_ref()
        .is_some_and(|base| base.written.as_bytes() == plan.snapshot.bytes);
    loop {
        if let Err(error) = file::check(&plan.snapshot) {
            return Guard::new(name, Finding::Fail, super::action::chain(&error));
        }
        if live.latest(&order.engine.name).root != process {
            return Guard::new(
                name,
                Finding::Fail,
                "somebody is restarting the engine at this moment",
            );
        }
        let file_is_fresh = !ours && age(plan).is_some_and(|age| age < wait);
        let process_is_fresh = process.is_some_and(|process| is_younger(process, wait));
        let waited = began.elapsed();
        if (!file_is_fresh && !process_is_fresh) || waited >= wait {
            return Guard::new(
                name,
                Finding::Pass,
                "nobody else changes the file or restarts the engine",
            )
            .with(json!({ "waited_secs": waited.as_secs_f64() }));
        }
        std::thread::sleep(PAUSE.min(wait));
    }
}

/// How long ago the file was last written; unknown counts as long ago.
fn age(plan: &Plan) -> Option<Duration> {
    let written = std::fs::metadata(&plan.snapshot.path).ok()?.modified().ok()?;
    let written = written.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let now = Duration::from_nanos(u64::try_from(Stamp::now().unix_ns).ok()?);
    now.checked_sub(written)
}

fn is_younger(process: ProcessRef, than: Duration) -> bool {
    let now = Stamp::now();
    let nanos = i64::try_from(than.as_nanos()).unwrap_or(i64::MAX);
    let then = Stamp {
        mono_ns: now.mono_ns.saturating_sub(nanos),
        ..now
    };
    started_after(process, then)
}

/// Rules are held back before they decide anything. What takes back is not: a person's order, or the daemon's end.
fn budget(order: &Order) -> Guard {
    let name = "budget";
    let guard = match &order.budget.exceeded {
        Some(limit) => Guard::unable(name, format!("{limit}, which holds back no way back")),
        None if order.cost == Cost::Hot => Guard::new(name, Finding::Pass, "a hot change costs none"),
        None => Guard::new(
            name,
            Finding::Pass,
            "it is within the limits of the engine and of the host",
        ),
    };
    guard.with(order.budget.numbers.clone())
}

/// A disk that fills up in the middle of a write would cost nothing but the write, and one that is full costs the rows.
fn room(plan: &Plan) -> Guard {
    let name = "disk";
    let folder = plan.snapshot.path.parent();
    let Some(stat) = folder.and_then(|folder| rustix::fs::statvfs(folder).ok()) else {
        return Guard::unable(name, "how much room the disk has is not known");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = u64::try_from(plan.after.len())
        .unwrap_or(u64::MAX)
        .saturating_mul(2)
        .saturating_add(SPARE_BYTES);
    let numbers = json!({ "free_bytes": free, "needed_bytes": needed });
    if free >= needed {
        Guard::new(name, Finding::Pass, "the disk has room for the write").with(numbers)
    } else {
        let said = format!(
            "the disk of the engine's file has {} left, {} are needed",
            units::show_bytes(free),
            units::show_bytes(needed)
        );
        Guard::new(name, Finding::Fail, said).with(numbers)
    }
}

/// What the rules expected. That it would not suffice is no reason against it: they took the highest rung that there is.
fn fits(order: &Order) -> Guard {
    let name = "projection";
    let projection = order
        .decision
        .detail
        .get("projection")
        .and_then(serde_json::Value::as_f64);
    let Some((after, line)) = projection.zip(order.decision.threshold) else {
        return Guard::unable(name, "what it will lead to cannot be projected");
    };
    let numbers = json!({ "signal": order.decision.signal, "after": after, "line": line });
    let was_beyond = order.decision.value.map(|value| value >= line);
    let is_beyond = after >= line;
    if was_beyond == Some(is_beyond) {
        Guard::unable(name, "it is not expected to suffice alone").with(numbers)
    } else {
        Guard::new(name, Finding::Pass, "it is expected to suffice").with(numbers)
    }
}

/// How the engine served of late. A restart waits for a minute of it; where there were few requests, nobody would have been
/// hurt, and there is nothing to compare.
fn baseline(order: &Order, live: &Live, down: bool) -> (Guard, Option<Baseline>) {
    let name = "baseline";
    if order.decision.verdict != Verdict::Apply {
        let said = "it goes back towards the person's own text, which is right by itself";
        return (Guard::unable(name, said), None);
    }
    if !order.engine.guards.metrics {
        let said = "the engine's `metrics` are not configured, so latencies cannot be compared";
        return (Guard::unable(name, said), None);
    }
    let since = order.changed_at.unwrap_or_default();
    match Baseline::of(&live.figures(&order.engine.name, since)) {
        Ok(baseline) => {
            let guard = Guard::new(name, Finding::Pass, "how it served before is known");
            (guard.with(baseline.numbers()), Some(baseline))
        }
        Err(missing) => {
            let waits = order.cost == Cost::Restart
                && !down
                && !order.answers_death
                && matches!(missing, Missing::TooShort { .. });
            let guard = if waits {
                Guard::new(
                    name,
                    Finding::Fail,
                    format!(
                        "a restart waits until it is known how the engine serves: {}",
                        missing.said()
                    ),
                )
            } else {
                Guard::unable(name, missing.said())
            };
            (guard, None)
        }
    }
}
