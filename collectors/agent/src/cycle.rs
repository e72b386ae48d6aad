//! The agent's thread: it brings records in, counts them, tells the daemon, and keeps the cost below the budget.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cupti_sys::constant::{FLUSH_FORCED, kind};
use cupti_sys::{Functions, Library};
use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::{Clock, Cost, Frame, Levels, LossReason, Process, State, Tell};

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
/// Figures that do not change are told nevertheless after so long.
const REPEAT_NS: u64 = 60_000_000_000;
/// Between two flushes the account is looked at when so much processor time was spent.
const EARLY_LOOK_NS: u64 = 5_000_000;
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
    /// What of the environment has no meaning.
    ignored: Vec<String>,
    tracing: Result<Tracing, String>,
    consumer: Consumer,
    devices: Devices,
    governor: Governor,
    verdict: Verdict,
    presence: Presence,
    desired: Option<Desired>,
    has_yielded: bool,
    /// A window of single kernels is open until then, CLOCK_MONOTONIC.
    window_until: Option<u64>,
    next_window_ns: u64,
    /// CUPTI's clock less CLOCK_MONOTONIC.
    clock_offset: i64,
    levels: BTreeMap<u32, Levels>,
    levels_told_ns: u64,
    buffers: u64,
    flushes: u32,
    judged: Marks,
    told: Marks,
}

/// Where the figures of cost stood at an instant.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    at_ns: u64,
    thread_ns: u64,
    hooks_ns: u64,
    /// Time with kernels recorded, altogether.
    traced_ns: u64,
}

impl Cycle {
    pub(crate) fn new(
        options: Options,
        ship: Ship,
        connection: Connection,
        process: Process,
        tracing: Result<Tracing, String>,
        ignored: Vec<String>,
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
            state: (state(State::Off, ""), true),
            ignored,
            consumer: Consumer::new(),
            devices: Devices::of(tracing.as_ref().ok().map(|tracing| &tracing.library)),
            tracing,
            governor,
            verdict,
            presence: Presence::default(),
            desired: None,
            has_yielded: false,
            window_until: None,
            next_window_ns: 0,
            clock_offset: 0,
            levels: BTreeMap::new(),
            levels_told_ns: 0,
            buffers: 0,
            flushes: 0,
            judged: Marks::default(),
            told: Marks::default(),
            options,
        };
        let began = clock::monotonic();
        cycle.judged.at_ns = began;
        cycle.told.at_ns = began;
        cycle.read_clocks();
        cycle.consumer.kernels.begin(cycle.cupti_now());
        // The program launches before this thread has started.
        if cycle.options.tier == TraceTier::Kernels {
            cycle.open_window();
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
        self.steer();
        self.ship_out(false);
        let flush = u64::try_from(self.options.flush.as_nanos()).unwrap_or(u64::MAX);
        let mut next_flush = began.saturating_add(flush);
        loop {
            self.wait(next_flush);
            let ends = exit::is_ending();
            self.drain(next_flush);
            let now = clock::monotonic();
            if ends || now >= next_flush {
                if ends {
                    // First what needs nobody's help.
                    self.ship_out(true);
                }
                self.flush(ends);
                self.ship_out(ends);
                if ends {
                    return self.finish();
                }
                // Flushes that were missed, because the machine slept or is too busy, are not made up for.
                next_flush = next_flush.saturating_add(flush).max(clock::monotonic());
            }
            self.judge(false);
            self.steer();
        }
    }

    /// Sleeps until something is due, or until full buffers pile up, or the process ends.
    fn wait(&self, next_flush: u64) {
        let wants_windows = self.options.tier == TraceTier::Kernels && self.tracing.is_ok();
        let next_window = Some(self.next_window_ns).filter(|_| wants_windows && self.verdict.kernels);
        let due = [Some(next_flush), self.window_until, next_window];
        let due = due.into_iter().flatten().min().unwrap_or(next_flush);
        let now = clock::monotonic();
        if due > now && !exit::is_ending() {
            std::thread::park_timeout(Duration::from_nanos(due - now));
        }
    }

    /// Counts what full buffers hold, but does not put off what is due: the ring is filled while there is time for it.
    fn drain(&mut self, due_ns: u64) {
        let Ok(Tracing { hooked, .. }) = &self.tracing else {
            return;
        };
        while let Some(completed) = hooked.buffers.next_completed() {
            self.buffers += 1;
            self.consumer.read(&hooked.functions, &hooked.losses, &completed);
            hooked.buffers.give_back(completed);
            if clock::monotonic() >= due_ns || exit::is_ending() {
                return;
            }
        }
    }

    /// Counts what is there now; what comes meanwhile is for the next time.
    fn drain_waiting(&mut self) {
        let waiting = self
            .tracing
            .as_ref()
            .map_or(0, |tracing| tracing.hooked.buffers.waiting());
        for _ in 0..waiting {
            self.drain(0);
        }
    }

    /// Counts what is left when the process ends, and tells each part at once: nobody knows how long it will wait.
    fn finish(mut self) {
        while let Ok(tracing) = &self.tracing
            && tracing.hooked.buffers.waiting() > 0
        {
            self.drain(0);
            self.ship_out(true);
        }
    }

    /// Has CUPTI bring its records in.
    fn flush(&mut self, forced: bool) {
        let Ok(Tracing { hooked, control, .. }) = &self.tracing else {
            return;
        };
        let (hooked, records_kernels) = (*hooked, control.is_enabled(kind::CONCURRENT_KERNEL));
        if control.records_anything() || forced {
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
        // SAFETY: no context is named.
        if let Ok(dropped) = unsafe { hooked.functions.dropped_records(std::ptr::null_mut(), 0) } {
            hooked.losses.add(LossReason::DroppedByCupti, dropped);
        }
        let flushed = Flushed {
            buffers: std::mem::take(&mut self.buffers),
            foreign: hooked.foreign.swap(0, Relaxed),
            launches: hooked.launches.swap(0, Relaxed),
        };
        if records_kernels {
            hooked
                .losses
                .add(LossReason::Displaced, self.presence.flushed(flushed));
        } else {
            self.presence.excuse();
        }
        if !forced {
            self.check_times();
        }
        self.flushes = self.flushes.wrapping_add(1);
        if self.flushes.is_multiple_of(TRIM_EVERY)
            && hooked.buffers.take_requests() < 10 * TRIM_EVERY as usize
        {
            hooked.buffers.trim();
        }
    }

    /// CUPTI has modes in which the times of kernels are wrong from some record on.
    fn check_times(&mut self) {
        let (good, bad) = (
            std::mem::take(&mut self.consumer.good),
            std::mem::take(&mut self.consumer.bad),
        );
        let (share, least) = MOST_BAD;
        if bad >= least
            && bad * share > good + bad
            && let Ok(tracing) = &mut self.tracing
        {
            tracing
                .control
                .give_up([kind::GRAPH_TRACE, kind::CONCURRENT_KERNEL]);
            self.desired = None;
        }
    }

    /// Writes all that there is to say into the ring.
    fn ship_out(&mut self, ends: bool) {
        self.tend_connection(ends);
        self.read_clocks();
        let now = clock::monotonic();
        let cupti_now = self.cupti_now();
        self.count_memory();
        self.update_state();

        let ship = &mut self.ship;
        for (frame, is_told) in [&mut self.process, &mut self.state] {
            *is_told = *is_told || ship.tell(frame);
        }
        let consumer = &mut self.consumer;
        consumer.names.tell(|frame| ship.tell(frame));
        self.devices.see(consumer.devices);
        self.devices.tell(|frame| ship.tell(frame));
        ship.tell(&Frame::Clock(Clock {
            cupti_ns: cupti_now,
            monotonic_ns: now,
            realtime_ns: clock::realtime(),
        }));
        let is_recording = match &self.tracing {
            Ok(tracing) => tracing.control.is_enabled(kind::CONCURRENT_KERNEL),
            Err(_) => false,
        };
        consumer
            .kernels
            .tell(cupti_now, is_recording, |frame| ship.tell(frame));
        consumer.copies.tell(cupti_now, |frame| ship.tell(frame));
        consumer.memory.tell(|frame| ship.tell(frame));
        // The second half of the ring is for what may not be missed.
        consumer
            .window
            .tell(|frame| ship.fill_ratio() < 0.5 && ship.tell(frame));
        self.tell_levels(now);
        if let Ok(Tracing { hooked, .. }) = &self.tracing {
            hooked
                .losses
                .add(LossReason::OverBudget, self.consumer.window.take_skipped());
            hooked
                .losses
                .add(LossReason::QueueFull, self.consumer.memory.take_lost());
            let ship = &mut self.ship;
            hooked
                .losses
                .tell(|reason, count| ship.tell(&Frame::Loss { reason, count }));
        }
        self.judge(true);
        self.tell_cost();
    }

    fn tend_connection(&mut self, ends: bool) {
        let news = self
            .connection
            .tend(if ends { u64::MAX } else { clock::monotonic() }, &self.ship);
        if news.is_new {
            (self.process.1, self.state.1) = (false, false);
            self.consumer.names.tell_again();
            self.devices.tell_again();
            self.levels.clear();
        }
        for told in news.told {
            match told {
                Tell::Yield => self.has_yielded = true,
                Tell::Resume => {
                    self.has_yielded = false;
                    if let Ok(tracing) = &mut self.tracing {
                        tracing.control.start_over();
                    }
                    self.presence = Presence::default();
                    self.desired = None;
                }
                Tell::Window => self.open_window(),
            }
        }
    }

    fn count_memory(&mut self) {
        let Ok(Tracing { hooked, control, .. }) = &self.tracing else {
            return;
        };
        let memory = &mut self.consumer.memory;
        memory.observe(control.is_enabled(kind::MEMORY_POOL), control.observes_memory());
        let mut events = Vec::new();
        while let Some((at_ns, call)) = hooked.next_call() {
            let at_ns = at_ns.saturating_add_signed(self.clock_offset);
            memory
                .virtual_memory
                .call(at_ns, call, |event| events.push(event));
        }
        for event in events {
            self.consumer.devices |= 1_u64.checked_shl(event.device).unwrap_or(0);
            memory.event(event);
        }
        memory.settle();
    }

    fn tell_levels(&mut self, now: u64) {
        let is_due = now.saturating_sub(self.levels_told_ns) >= REPEAT_NS;
        if is_due {
            self.levels_told_ns = now;
        }
        for levels in self.consumer.memory.levels() {
            if (is_due || self.levels.get(&levels.device) != Some(&levels))
                && self.ship.tell(&Frame::Levels(levels))
            {
                self.levels.insert(levels.device, levels);
            }
        }
    }

    /// Whether the budget allows for more. Between flushes only when much was spent.
    fn judge(&mut self, always: bool) {
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

    fn tell_cost(&mut self) {
        let now = self.marks();
        let control = self.tracing.as_ref().ok().map(|tracing| &tracing.control);
        let cost = Cost {
            wall_ns: now.at_ns.saturating_sub(self.told.at_ns),
            thread_ns: now.thread_ns - self.told.thread_ns,
            hooks_ns: now.hooks_ns.saturating_sub(self.told.hooks_ns),
            traced_ns: now.traced_ns - self.told.traced_ns,
            device_bytes: control.and_then(Control::device_bytes),
            tier: self.verdict.tier,
        };
        if self.ship.tell(&Frame::Cost(cost)) {
            self.told = now;
        }
    }

    /// Where the figures stand. Time with kernels recorded is counted here, from look to look.
    fn marks(&mut self) -> Marks {
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

    /// Opens a window of single kernels.
    fn open_window(&mut self) {
        let length = u64::try_from(self.options.window.as_nanos()).unwrap_or(0);
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
    fn steer(&mut self) {
        let now = clock::monotonic();
        self.window_until = self.window_until.filter(|until| *until > now);
        let opens_windows =
            self.verdict.tier == TraceTier::Kernels && self.verdict.kernels && !self.has_yielded;
        if opens_windows && now >= self.next_window_ns {
            self.open_window();
        }
        let Ok(tracing) = &mut self.tracing else { return };
        let tier = self.verdict.tier;
        let is_open = self.window_until.is_some();
        let desired = Desired {
            tier,
            kernels: is_open || (tier == TraceTier::Graph && self.verdict.kernels),
            virtual_memory: self.options.virtual_memory && tier != TraceTier::Off,
            launches: self.presence.wants_watch() && tracing.control.is_subscribed(),
        };
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
        if desired.kernels && !before {
            self.consumer.kernels.begin(self.cupti_now());
        } else if before && !desired.kernels {
            self.end_period();
        }
    }

    /// Kernels are not recorded from here on: what was counted is told with the time in which it was.
    fn end_period(&mut self) {
        if let Ok(tracing) = &self.tracing {
            tracing.hooked.functions.flush_all(0).ok();
        }
        self.drain_waiting();
        self.ship_out(false);
    }

    fn read_clocks(&mut self) {
        let monotonic = clock::monotonic();
        let cupti = match &self.tracing {
            Ok(tracing) => tracing.library.functions().timestamp().ok(),
            Err(_) => None,
        };
        // Where CUPTI does not say, it is the clock that it takes on Linux.
        let cupti = cupti.unwrap_or_else(clock::realtime);
        self.clock_offset = cupti.wrapping_sub(monotonic).cast_signed();
    }

    fn cupti_now(&self) -> u64 {
        clock::monotonic().saturating_add_signed(self.clock_offset)
    }

    /// What the agent is doing, in words.
    fn update_state(&mut self) {
        let frame = self.describe();
        if frame != self.state.0 {
            self.state = (frame, false);
        }
    }

    fn describe(&self) -> Frame {
        let tracing = match &self.tracing {
            Ok(tracing) => tracing,
            Err(why) => return state(State::Off, why),
        };
        if self.has_yielded {
            return state(State::Yielded, "CUPTI is left to another profiler, as asked");
        }
        if self.presence.is_displaced() {
            return state(
                State::Displaced,
                "another profiler registered its own buffers with CUPTI; kernels and allocations are not seen until it ends",
            );
        }
        let explain = |answer| tracing.library.explain(answer);
        let mut says = tracing.control.shortfalls(explain, self.options.virtual_memory);
        if self.verdict.tier != self.options.tier {
            let (now, asked) = (self.verdict.tier, self.options.tier);
            says.push(format!(
                "tier {now} in place of {asked}, to stay within the budget"
            ));
        }
        let is_degraded = !says.is_empty();
        says.extend(self.ignored.iter().cloned());
        let kind = match (tracing.control.records_anything(), is_degraded) {
            (false, _) => State::Off,
            (_, true) => State::Degraded,
            _ => State::Tracing,
        };
        state(kind, &says.join("; "))
    }
}

fn state(state: State, message: &str) -> Frame {
    Frame::State {
        state,
        message: message.to_owned(),
    }
}

/// Leaves CUPTI alone for good.
fn go_quiet(functions: &Functions) {
    for kind in [
        kind::GRAPH_TRACE,
        kind::CONCURRENT_KERNEL,
        kind::MEMCPY,
        kind::MEMCPY2,
        kind::OVERHEAD,
        kind::MEMORY2,
        kind::MEMORY_POOL,
    ] {
        functions.disable(kind).ok();
    }
}
