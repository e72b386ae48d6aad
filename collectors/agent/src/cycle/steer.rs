//! What CUPTI is to do now: by the tier, the budget, open windows and what the daemon asks for.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cupti_sys::constant::kind;
use plimsoll_trace::TraceTier;

use super::{Cycle, Tracing};
use crate::control::{Control, Desired, Watched};
use crate::{clock, exit};

/// Between two flushes the account is looked at when so much processor time was spent.
pub(super) const EARLY_LOOK_NS: u64 = 5_000_000;

/// Where the figures of cost stood at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) at_ns: u64,
    pub(super) thread_ns: u64,
    pub(super) hooks_ns: u64,
    /// Time with kernels recorded, altogether.
    pub(super) traced_ns: u64,
}

impl Cycle {
    /// Whether the budget allows for more. Between flushes only when much was spent.
    pub(super) fn judge(&mut self, always: bool) {
        let now = self.marks();
        let thread_ns = now.thread_ns - self.judged.thread_ns;
        if !always && thread_ns < EARLY_LOOK_NS {
            return;
        }
        let wall_ns = now.at_ns.saturating_sub(self.judged.at_ns);
        let cost_ns = thread_ns + now.hooks_ns.saturating_sub(self.judged.hooks_ns);
        self.verdict = self.governor.judge(wall_ns, cost_ns);
        self.judged = now;
    }

    /// Where the figures stand. Time with kernels recorded is counted here, from look to look.
    pub(super) fn marks(&self) -> Marks {
        let at_ns = clock::monotonic();
        let mut marks = Marks {
            at_ns,
            thread_ns: clock::thread(),
            ..self.judged
        };
        if let Ok(Tracing { hooked, control, .. }) = &self.tracing {
            marks.hooks_ns = hooked.hooks_ns.load(Relaxed) + self.consumer.overhead_ns;
            if control.is_enabled(kind::CONCURRENT_KERNEL) {
                marks.traced_ns += at_ns.saturating_sub(self.judged.at_ns);
            }
        }
        marks
    }

    /// Whether windows open by themselves.
    pub(super) fn may_open_window(&self) -> bool {
        let verdict = self.verdict;
        verdict.tier == TraceTier::Kernels && verdict.kernels && !self.has_yielded && self.tracing.is_ok()
    }

    /// Opens a window of single kernels because the daemon says so. Someone waits for it, so it is opened in any tier, and
    /// also when the budget is spent.
    pub(super) fn open_asked_window(&mut self, length: Duration) {
        self.open_window(length);
        self.is_asked_window = true;
    }

    /// Opens a window of single kernels.
    pub(super) fn open_window(&mut self, length: Duration) {
        let length = u64::try_from(length.as_nanos()).unwrap_or(0);
        let now = clock::monotonic();
        let cupti_now = self.cupti_now();
        self.consumer
            .window
            .open(cupti_now, cupti_now.saturating_add(length));
        self.window_until = Some(now.saturating_add(length));
        let every = u64::try_from(self.options.window_every.as_nanos()).unwrap_or(u64::MAX);
        self.next_window_ns = now.saturating_add(every.max(length));
    }

    /// Has CUPTI do what is wanted of it now.
    pub(super) fn steer(&mut self) {
        let now = clock::monotonic();
        self.window_until = self.window_until.filter(|until| *until > now);
        if self.may_open_window() && now >= self.next_window_ns {
            self.open_window(self.options.window);
        }
        self.is_asked_window &= self.window_until.is_some();
        let Ok(tracing) = &mut self.tracing else { return };
        if exit::is_over() {
            return;
        }
        let tier = if self.is_asked_window {
            self.verdict.tier.max(TraceTier::Graph)
        } else {
            self.verdict.tier
        };
        let is_open = self.window_until.is_some();
        let kernels = is_open || (tier == TraceTier::Graph && self.verdict.kernels);
        let desired = Desired {
            tier,
            kernels,
            virtual_memory: self.options.observes_virtual_memory() && tier != TraceTier::Off,
            watched: watched(kernels, &tracing.control)
                .filter(|_| self.presence.wants_watch() && tracing.control.is_subscribed()),
        };
        self.has_memory_gap |= self.has_yielded || tier == TraceTier::Off;
        let desired = if self.has_yielded {
            Desired::NOTHING
        } else {
            desired
        };
        if self.desired == Some(desired) {
            return;
        }
        // The time up to here was one with kernels recorded, or without.
        self.judge(true);
        if let Ok(tracing) = &mut self.tracing {
            tracing.control.make(desired);
        }
        let before = self.desired.replace(desired).is_some_and(|before| before.kernels);
        if desired.kernels != before {
            self.presence.excuse();
        }
        if desired.kernels && !before {
            self.consumer.kernels.begin(self.cupti_now());
        } else if before && !desired.kernels {
            self.end_period();
        }
    }

    /// Kernels are not recorded from here on: what was counted is told with the time in which it was.
    pub(super) fn end_period(&mut self) {
        if let Ok(tracing) = &self.tracing {
            tracing.hooked.functions.flush_all(0).ok();
        }
        self.drain_waiting();
        self.ship_out();
    }
}

/// The calls whose records come. Where CUPTI refuses these, their absence says nothing.
fn watched(kernels: bool, control: &Control) -> Option<Watched> {
    if kernels && control.is_enabled(kind::CONCURRENT_KERNEL) {
        Some(Watched::Launches)
    } else {
        Some(Watched::Allocations).filter(|_| control.is_enabled(kind::MEMORY2))
    }
}
