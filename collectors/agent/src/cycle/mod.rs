//! The agent's thread: it brings records in, counts them, tells the daemon, and keeps the cost below the budget.

mod finish;
mod steer;
mod tell;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cupti_sys::constant::{FLUSH_FORCED, kind};
use cupti_sys::{Functions, Library};
use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::{Frame, Levels, LossReason, Process, State};

use self::steer::{EARLY_LOOK_NS, Marks};
use crate::clock;
use crate::control::{Control, Desired};
use crate::devices::Devices;
use crate::exit;
use crate::governor::{Governor, Verdict};
use crate::hooks::Hooked;
use crate::options::Options;
use crate::presence::{Flushed, Presence};
use crate::records::Consumer;
use crate::ship::Ship;
use crate::socket::Connection;

/// Above this share of times that cannot be right, and so many of them, kernels are not recorded any more.
const MOST_BAD: (u64, u64) = (100, 1_000);
/// After so many kernels what was seen of them counts half.
const LOOKED_AT: u64 = 1_000_000;
/// CUPTI's clock and ours may differ by so much over a process's life.
const CLOCKS_DIFFER_NS: u64 = 3_600_000_000_000;
/// After so many flushes pages that a burst needed are given back.
const TRIM_EVERY: u32 = 10;

/// CUPTI, in this process.
#[derive(Debug)]
pub(crate) struct Tracing {
    pub(crate) library: Library,
    pub(crate) hooked: &'static Hooked,
    pub(crate) control: Control,
}

/// All that the thread has.
#[derive(Debug)]
pub(crate) struct Cycle {
    options: Options,
    ship: Ship,
    connection: Connection,
    process: (Frame, bool),
    state: (Frame, bool),
    /// What else is to be said: what of the environment has no meaning, and what was left to others.
    notes: Vec<String>,
    tracing: Result<Tracing, String>,
    consumer: Consumer,
    devices: Devices,
    governor: Governor,
    verdict: Verdict,
    presence: Presence,
    desired: Option<Desired>,
    has_yielded: bool,
    began_ns: u64,
    /// Some allocations were not seen: what is live is not known any more.
    has_memory_gap: bool,
    /// A window of single kernels is open until then, CLOCK_MONOTONIC.
    window_until: Option<u64>,
    /// The open window was asked for: kernels are wanted whatever the tier.
    is_asked_window: bool,
    next_window_ns: u64,
    /// CUPTI's clock less CLOCK_MONOTONIC.
    clock_offset: i64,
    /// Telling made no room: that is not tried again with each buffer.
    stays_crowded: bool,
    levels: BTreeMap<u32, Levels>,
    levels_told_ns: u64,
    buffers: u64,
    flushes: u32,
    judged: Marks,
    told: Marks,
}

impl Cycle {
    pub(crate) fn new(
        options: Options,
        ship: Ship,
        connection: Connection,
        process: Process,
        tracing: Result<Tracing, String>,
        notes: Vec<String>,
    ) -> Self {
        let governor = Governor::new(options.budget, options.tier);
        let verdict = Verdict {
            kernels: true,
            tier: options.tier,
        };
        let mut cycle = Self {
            ship,
            connection,
            process: (Frame::Process(process), false),
            state: (tell::state(State::Off, ""), true),
            notes,
            consumer: Consumer::new(),
            devices: Devices::of(tracing.as_ref().ok().map(|tracing| &tracing.library)),
            tracing,
            governor,
            verdict,
            presence: Presence::default(),
            desired: None,
            has_yielded: false,
            began_ns: clock::monotonic(),
            has_memory_gap: false,
            window_until: None,
            is_asked_window: false,
            next_window_ns: 0,
            clock_offset: 0,
            stays_crowded: false,
            levels: BTreeMap::new(),
            levels_told_ns: 0,
            buffers: 0,
            flushes: 0,
            judged: Marks::default(),
            told: Marks::default(),
            options,
        };
        cycle.judged.at_ns = cycle.began_ns;
        cycle.told.at_ns = cycle.began_ns;
        cycle.read_clocks();
        cycle.consumer.kernels.begin(cycle.cupti_now());
        // The program launches before this thread has started.
        if cycle.options.tier == TraceTier::Kernels {
            cycle.open_window(cycle.options.window);
        }
        cycle
    }

    /// The thread's body. A panic is the end of the recording and of nothing else.
    pub(crate) fn run(self) {
        let functions = self
            .tracing
            .as_ref()
            .ok()
            .map(|tracing| *tracing.library.functions());
        if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err()
            && let Some(functions) = functions
        {
            go_quiet(&functions);
        }
        exit::done();
    }

    fn turn(mut self) {
        let began = clock::monotonic();
        self.tend_connection(false);
        self.steer();
        self.ship_out();
        let flush = u64::try_from(self.options.flush.as_nanos()).unwrap_or(u64::MAX);
        let mut next_flush = began.saturating_add(flush);
        loop {
            self.wait(next_flush);
            if exit::is_ending() {
                return self.finish();
            }
            self.drain(next_flush);
            let now = clock::monotonic();
            self.judge(false);
            if now >= next_flush {
                self.tend_connection(false);
                self.flush(false);
                // First the deed, then the word: what is told is so.
                self.judge(true);
                self.steer();
                self.ship_out();
                // Flushes that were missed, because the machine slept or is too busy, are not made up for.
                let now = clock::monotonic();
                let next = next_flush.saturating_add(flush);
                next_flush = if next > now {
                    next
                } else {
                    now.saturating_add(flush)
                };
            }
            self.steer();
        }
    }

    /// Sleeps until something is due, or until full buffers pile up, or the process ends.
    fn wait(&self, next_flush: u64) {
        if self
            .tracing
            .as_ref()
            .is_ok_and(|tracing| tracing.hooked.is_piled_up())
        {
            return;
        }
        let next_window = Some(self.next_window_ns).filter(|_| self.may_open_window());
        let due = [Some(next_flush), self.window_until, next_window];
        let due = due.into_iter().flatten().min().unwrap_or(next_flush);
        let now = clock::monotonic();
        if due > now && !exit::is_ending() {
            std::thread::park_timeout(Duration::from_nanos(due - now));
        }
    }

    /// How many full buffers wait to be counted.
    fn waiting(&self) -> usize {
        let tracing = self.tracing.as_ref();
        tracing.map_or(0, |tracing| tracing.hooked.buffers.waiting())
    }

    /// Counts what full buffers hold, but does not put off what is due: the ring is filled while there is time for it. Nor
    /// the look at the budget: a program that fills buffers as fast as they are counted would never be left alone.
    fn drain(&mut self, due_ns: u64) {
        let Ok(Tracing { hooked, .. }) = &self.tracing else {
            return;
        };
        let hooked = *hooked;
        let was_ending = exit::is_ending();
        let began = clock::thread();
        let lived_ns = clock::monotonic().saturating_sub(self.began_ns);
        self.consumer.longest_ns = lived_ns.saturating_add(CLOCKS_DIFFER_NS);
        self.take_calls();
        while let Some(completed) = hooked.buffers.next_completed() {
            self.buffers += 1;
            self.consumer.read(&hooked.functions, &hooked.losses, &completed);
            hooked.buffers.give_back(completed);
            self.take_calls();
            if self.consumer.is_crowded() && !self.stays_crowded {
                self.ship_out();
                self.stays_crowded = self.consumer.is_crowded();
            }
            let is_looked_at = clock::thread() - began >= EARLY_LOOK_NS;
            if is_looked_at || clock::monotonic() >= due_ns || exit::is_ending() != was_ending {
                return;
            }
        }
    }

    /// Counts what is there now; what comes meanwhile is for the next time.
    fn drain_waiting(&mut self) {
        for _ in 0..self.waiting() {
            self.drain(0);
        }
    }

    /// Has CUPTI bring its records in.
    fn flush(&mut self, forced: bool) {
        let Ok(Tracing { hooked, control, .. }) = &mut self.tracing else {
            return;
        };
        let hooked = *hooked;
        let has_rival = self.presence.wants_look() && control.has_rival();
        let records_anything = control.records_anything();
        if records_anything || forced {
            // What it answers changes nothing: without records there is nothing to count.
            hooked
                .functions
                .flush_all(if forced { FLUSH_FORCED } else { 0 })
                .ok();
        }
        if !forced {
            // At the end it is counted part by part.
            self.drain_waiting();
        }
        if exit::is_over() {
            return;
        }
        // SAFETY: no context is named.
        if let Ok(dropped) = unsafe { hooked.functions.dropped_records(std::ptr::null_mut(), 0) } {
            hooked.losses.add(LossReason::DroppedByCupti, dropped);
        }
        let flushed = Flushed {
            buffers: std::mem::take(&mut self.buffers),
            foreign: hooked.foreign.swap(0, Relaxed),
            has_rival,
            calls: hooked.watched.swap(0, Relaxed),
        };
        // What another profiler got is not counted in, whether or not that was noticed before.
        self.has_memory_gap |= flushed.foreign > 0;
        if records_anything {
            hooked
                .losses
                .add(LossReason::Displaced, self.presence.flushed(flushed));
        } else {
            self.presence.excuse();
        }
        if !forced {
            self.check_times();
        }
        self.stays_crowded = false;
        self.flushes = self.flushes.wrapping_add(1);
        if self.flushes.is_multiple_of(TRIM_EVERY)
            && hooked.buffers.take_requests() < 10 * TRIM_EVERY as usize
        {
            hooked.buffers.trim();
        }
    }

    /// CUPTI has modes in which the times of kernels are wrong from some record on.
    fn check_times(&mut self) {
        let (good, bad) = (self.consumer.good, self.consumer.bad);
        let (share, least) = MOST_BAD;
        if good + bad >= LOOKED_AT {
            (self.consumer.good, self.consumer.bad) = (good / 2, bad / 2);
        }
        if bad >= least
            && bad * share > good + bad
            && let Ok(tracing) = &mut self.tracing
        {
            tracing
                .control
                .give_up([kind::GRAPH_TRACE, kind::CONCURRENT_KERNEL]);
            self.desired = None;
            (self.consumer.good, self.consumer.bad) = (0, 0);
        }
    }
}

/// Leaves CUPTI alone for good.
pub(crate) fn go_quiet(functions: &Functions) {
    for kind in [
        kind::GRAPH_TRACE,
        kind::CONCURRENT_KERNEL,
        kind::MEMCPY,
        kind::MEMCPY2,
        kind::MEMSET,
        kind::OVERHEAD,
        kind::MEMORY2,
        kind::MEMORY_POOL,
    ] {
        functions.disable(kind).ok();
    }
}
