//! Watching an engine after a change, until the guards have spoken or their time is up.

use std::time::{Duration, Instant};

use plimsoll_trace::Stamp;

use super::action::Action;
use super::effect;
use super::live::{Latest, Live};
use super::ready;
use super::undo::started_after;
use crate::guard::{Baseline, Finding, Guard, LatencyJudge, MIN_REQUESTS, MemoryJudge, Streak};
use crate::rule::Cost;

/// How often it is looked whether something new was read.
const LOOK: Duration = Duration::from_millis(250);
/// How often the health check is asked meanwhile.
const ASK: Duration = Duration::from_secs(1);
/// A quiet engine that is restarted is watched for no longer.
const LONGEST: Duration = Duration::from_secs(300);
/// Windows of requests that a verdict on latency needs, and one to spare.
const WINDOWS: f64 = 4.0;

/// What the watch came to.
pub(super) struct Watched {
    pub(super) guards: Vec<Guard>,
    pub(super) effect_bytes: Option<f64>,
    pub(super) after_bytes: Option<f64>,
}

impl Action {
    /// Watches the engine from `applied` on, when it was seen to serve.
    pub(super) fn watch(
        &self,
        before: &Latest,
        baseline: Option<Baseline>,
        applied: Stamp,
        live: &Live,
    ) -> Watched {
        let engine = &self.order.engine;
        let waits = engine.guards.waits;
        let began = Instant::now();
        let mut memory = MemoryJudge::new(
            before.vram.map(|(_, bytes)| bytes),
            self.order.promised_bytes.map(|bytes| bytes as f64),
        );
        let promises = self.order.promised_bytes.is_some_and(|bytes| bytes > 0);
        let memory_until = began + effect::within(live.interval(), waits.memory, promises);
        let latency_until = began
            + latency_time(
                waits.latency_of(self.order.cost),
                self.order.cost,
                baseline.as_ref(),
            );
        let mut latency = baseline.map(|baseline| {
            LatencyJudge::new(baseline, engine.guards.latency_max, applied.plus(waits.warm_up))
        });
        let mut alive = Alive::new(applied);
        let (mut seen, mut read) = (applied, applied);
        loop {
            let new = |latest: &Latest| latest.vram.filter(|(at, _)| at.mono_ns > seen.mono_ns);
            // Not beyond the moment at which nothing is waited for any more.
            let (now, end) = (Instant::now(), memory_until.max(latency_until));
            let next = match end.checked_duration_since(now) {
                Some(left) => now + LOOK.min(left),
                None => now + if alive.is_sure() { Duration::ZERO } else { LOOK },
            };
            if let Some((at, bytes)) = live.wait_for(&engine.name, next, new) {
                seen = at;
                memory.add(bytes);
            }
            if let Some(judge) = &mut latency {
                for figures in live.figures(&engine.name, read) {
                    read = figures.at;
                    judge.add(&figures);
                }
            }
            let now = Instant::now();
            let dead = alive.look(&self.order.engine, live, now);
            let remembered = memory.is_done() || now >= memory_until;
            let compared = latency.as_ref().is_none_or(LatencyJudge::is_done) || now >= latency_until;
            let failed = latency
                .as_ref()
                .is_some_and(|judge| judge.guards().iter().any(|guard| guard.finding == Finding::Fail));
            if dead || failed || (remembered && compared && alive.is_sure()) {
                break;
            }
        }
        let mut guards = vec![alive.guard(), memory.guard()];
        match latency {
            Some(judge) => guards.extend(judge.guards()),
            None => guards.push(Guard::unable("latency", "how it served before is not known")),
        }
        Watched {
            guards,
            effect_bytes: memory.effect_bytes(),
            after_bytes: memory.after_bytes(),
        }
    }
}

/// How long latencies are watched: not at all without a baseline. A restart is worth waiting for as many requests as a
/// verdict takes.
fn latency_time(most: Duration, cost: Cost, baseline: Option<&Baseline>) -> Duration {
    let Some(baseline) = baseline else {
        return Duration::ZERO;
    };
    if cost != Cost::Restart {
        return most;
    }
    let secs = WINDOWS * MIN_REQUESTS / baseline.arrivals_per_sec().max(f64::MIN_POSITIVE);
    let needed = Duration::try_from_secs_f64(secs).unwrap_or(LONGEST);
    most.max(needed.min(LONGEST))
}

/// Whether the engine stays up.
struct Alive {
    since: Stamp,
    next: Instant,
    streak: Streak,
    /// The last answer, where it was not well.
    doubt: bool,
    failed: Option<&'static str>,
}

impl Alive {
    fn new(since: Stamp) -> Self {
        Self {
            since,
            next: Instant::now() + ASK,
            streak: Streak::default(),
            doubt: false,
            failed: None,
        }
    }

    /// Whether it is known to be dead.
    fn look(&mut self, engine: &crate::spec::EngineSpec, live: &Live, now: Instant) -> bool {
        let process = live.latest(&engine.name).root;
        if process.is_some_and(|process| started_after(process, self.since)) {
            self.failed = Some("its process ended while it was watched, and was started again");
        } else if now >= self.next {
            self.next = now + ASK;
            let well = ready::is_healthy(engine) != Some(false);
            self.doubt = !well;
            let finding = if well { Finding::Pass } else { Finding::Fail };
            if self.streak.add(finding) == Some(Finding::Fail) {
                self.failed = Some("it stopped answering its health check");
            }
        }
        self.failed.is_some()
    }

    /// Whether the last answer leaves no doubt.
    const fn is_sure(&self) -> bool {
        !self.doubt
    }

    fn guard(&self) -> Guard {
        match self.failed {
            Some(said) => Guard::new("alive", Finding::Fail, said),
            None => Guard::new("alive", Finding::Pass, "it kept serving while it was watched"),
        }
    }
}
