//! Making an engine read its file: one that runs is told, one that is down is waited for.

use std::time::{Duration, Instant};

use plimsoll_trace::Stamp;

use super::action::{Action, chain};
use super::live::{Latest, Live, ProcessRef};
use super::reload;
use super::undo::started_after;
use crate::guard::{Finding, Guard};
use crate::rule::Cost;
use crate::spec::Reload;

/// How often it is looked whether the engine is idle, or back.
const LOOK: Duration = Duration::from_millis(250);
/// An engine that serves for so long without a process that anybody knows has none that could be known.
const UNSEEN: Duration = Duration::from_secs(3);

impl Action {
    /// Before a restart: gives the engine a moment to finish what it serves, where its metrics show that.
    pub(super) fn wait_until_idle(&self, live: &Live) -> Option<Guard> {
        let engine = &self.order.engine;
        if self.order.cost != Cost::Restart || !engine.guards.metrics {
            return None;
        }
        let deadline = Instant::now() + engine.guards.waits.idle;
        let busy = || {
            let figures = live.figures(&engine.name, Stamp::default());
            let newest = figures.last()?;
            Some(newest.running? + newest.waiting.unwrap_or(0.0))
        };
        loop {
            match busy() {
                Some(requests) if requests > 0.0 && Instant::now() < deadline => std::thread::sleep(LOOK),
                Some(requests) if requests > 0.0 => {
                    let said = format!("{requests:.0} requests were under way when it was restarted");
                    return Some(Guard::unable("idle", said));
                }
                Some(_) => {
                    return Some(Guard::new(
                        "idle",
                        Finding::Pass,
                        "it was idle when it was restarted",
                    ));
                }
                None => return Some(Guard::unable("idle", "whether it was idle is not known")),
            }
        }
    }

    /// Makes the engine read the file that was written at `written`.
    ///
    /// # Errors
    /// Why it did not, for people.
    pub(super) fn tell(&mut self, before: &Latest, written: Stamp, live: &Live) -> Result<(), String> {
        let within = self.within();
        let reload = &self.order.engine.reload;
        if !self.down || matches!(reload, Reload::Restart(_)) {
            return reload::carry_out(reload, before.root, within).map_err(|error| chain(&error));
        }
        match self.started_again(before.root, written, live, Instant::now() + within) {
            Started::Knowing => Ok(()),
            Started::Unknowing(process) => {
                reload::carry_out(reload, process, within).map_err(|error| chain(&error))
            }
            Started::No => Err(format!(
                "the engine was down and nobody started it again within {} s",
                within.as_secs()
            )),
        }
    }

    /// Waits until the engine's own supervisor has started it again.
    fn started_again(
        &self,
        before: Option<ProcessRef>,
        written: Stamp,
        live: &Live,
        deadline: Instant,
    ) -> Started {
        let engine = &self.order.engine;
        let mut serves: Option<Instant> = None;
        loop {
            if super::ready::is_healthy(engine) == Some(true) {
                serves.get_or_insert_with(Instant::now);
            } else {
                serves = None;
            }
            let process = live.latest(&engine.name).root;
            match process.filter(|process| Some(*process) != before) {
                Some(process) if started_after(process, written) => return Started::Knowing,
                // It read the former file; it can be told now that it serves.
                Some(process) if serves.is_some() => return Started::Unknowing(Some(process)),
                // Perhaps nobody knows its processes. Or it was started between its death and the look before the write.
                None if serves.is_some_and(|since| since.elapsed() >= UNSEEN) => {
                    return Started::Unknowing(process);
                }
                _ if Instant::now() >= deadline => return Started::No,
                _ => {
                    let next = (Instant::now() + LOOK).min(deadline);
                    live.wait_for(&engine.name, next, |now| (now.root != process).then_some(()));
                }
            }
        }
    }
}

enum Started {
    /// After the file was written.
    Knowing,
    /// Before that, or nobody knows when.
    Unknowing(Option<ProcessRef>),
    No,
}
