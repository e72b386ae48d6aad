//! What the daemon is told, and when.

use std::time::Duration;

use cupti_sys::constant::kind;
use plimsoll_trace::wire::{Clock, Cost, Frame, Levels, LossReason, State, Tell};

use super::{Cycle, Tracing};
use crate::control::Control;
use crate::kernels::Silence;
use crate::presence::Presence;
use crate::ship::Ship;
use crate::{clock, exit};

/// Figures that do not change are told nevertheless after so long.
const REPEAT_NS: u64 = 60_000_000_000;

/// What differs by more between two looks is a clock that was set, and none that runs a little too fast.
const STEP_NS: u64 = 100_000_000;

impl Cycle {
    /// Writes all that there is to say into the ring.
    pub(super) fn ship_out(&mut self) {
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
        let silence = match &self.tracing {
            Ok(tracing) if !tracing.control.is_enabled(kind::CONCURRENT_KERNEL) => Silence::Unrecorded,
            Ok(tracing) if tracing.hooked.buffers.are_out() => Silence::Withheld,
            Ok(_) => Silence::Quiet,
            Err(_) => Silence::Unrecorded,
        };
        let names = &mut consumer.names;
        let mut tell_named = |ship: &mut Ship, frame: &Frame| {
            let is_told = ship.tell(frame);
            if is_told {
                names.mentioned(frame, ship.written());
            }
            is_told
        };
        consumer
            .kernels
            .tell(cupti_now, silence, |frame| tell_named(ship, frame));
        consumer.copies.tell(cupti_now, |frame| ship.tell(frame));
        consumer.memory.tell(|frame| ship.tell(frame));
        // The second half of the ring is for what may not be missed: all else is kept until there is room.
        consumer
            .window
            .tell(|frame| ship.fill_ratio() < 0.5 && tell_named(ship, frame));
        consumer.make_room(|position| ship.is_read(position));
        self.tell_levels(now);
        if let Ok(Tracing { hooked, .. }) = &self.tracing {
            hooked
                .losses
                .add(LossReason::OverBudget, self.consumer.window.take_skipped());
            hooked
                .losses
                .add(LossReason::RingFull, self.consumer.window.take_refused());
            hooked
                .losses
                .add(LossReason::QueueFull, self.consumer.memory.take_lost());
            let ship = &mut self.ship;
            hooked
                .losses
                .tell(|reason, count| ship.tell(&Frame::Loss { reason, count }));
        }
        self.tell_cost();
    }

    /// Connects if there is no connection, and hears what the daemon says.
    pub(super) fn tend_connection(&mut self, ends: bool) {
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
                    // Time with kernels recorded counts up to here: from here on it looks as if none were.
                    self.judge(true);
                    self.has_yielded = false;
                    // It comes back by this alone where another had taken CUPTI over, noticed or not yet.
                    self.has_memory_gap |= self.presence.is_displaced();
                    if let Ok(tracing) = &mut self.tracing {
                        self.has_memory_gap |= tracing.control.start_over();
                    }
                    self.presence = Presence::resumed();
                    self.desired = None;
                }
                Tell::Window => self.open_asked_window(self.options.window),
                Tell::WindowOf(quarters) => {
                    self.open_asked_window(Duration::from_millis(250 * u64::from(quarters)));
                }
            }
        }
    }

    pub(super) fn count_memory(&mut self) {
        self.take_calls();
        let Ok(Tracing { hooked, control, .. }) = &self.tracing else {
            return;
        };
        let memory = &mut self.consumer.memory;
        memory.observe(control.is_enabled(kind::MEMORY_POOL), control.observes_memory());
        memory.settle();
        self.has_memory_gap |= memory.is_incomplete() || hooked.losses.may_be_memory();
    }

    /// Counts the calls of virtual memory that wait now.
    pub(super) fn take_calls(&mut self) {
        let Ok(Tracing { hooked, .. }) = &self.tracing else {
            return;
        };
        let memory = &mut self.consumer.memory;
        let mut events = Vec::new();
        for _ in 0..hooked.calls.waiting() {
            let Some((at_ns, call)) = hooked.next_call() else {
                break;
            };
            let at_ns = at_ns.saturating_add_signed(self.clock_offset);
            memory
                .virtual_memory
                .call(at_ns, call, |event| events.push(event));
        }
        for event in events {
            self.consumer.devices |= 1_u64.checked_shl(event.device).unwrap_or(0);
            memory.event(event);
        }
    }

    pub(super) fn tell_levels(&mut self, now: u64) {
        if self.has_memory_gap || self.presence.is_displaced() {
            return;
        }
        if now.saturating_sub(self.levels_told_ns) >= REPEAT_NS {
            // Forgotten, not only told: one that the ring refuses is told as soon as there is room.
            self.levels.clear();
            self.levels_told_ns = now;
        }
        let at_ns = Some(self.cupti_now());
        for levels in self.consumer.memory.levels() {
            if self.levels.get(&levels.device) != Some(&levels)
                && self.ship.tell(&Frame::Levels(Levels { at_ns, ..levels }))
            {
                self.levels.insert(levels.device, levels);
            }
        }
    }

    pub(super) fn tell_cost(&mut self) {
        let now = self.marks();
        let control = self.tracing.as_ref().ok().map(|tracing| &tracing.control);
        let cost = Cost {
            wall_ns: now.at_ns.saturating_sub(self.told.at_ns),
            thread_ns: now.thread_ns.saturating_sub(self.told.thread_ns),
            hooks_ns: now.hooks_ns.saturating_sub(self.told.hooks_ns),
            traced_ns: now.traced_ns.saturating_sub(self.told.traced_ns),
            device_bytes: control.and_then(Control::device_bytes),
            tier: self.verdict.tier,
        };
        if self.ship.tell(&Frame::Cost(cost)) {
            self.told = now;
        }
    }

    pub(super) fn read_clocks(&mut self) {
        let monotonic = clock::monotonic();
        let cupti = match &self.tracing {
            Ok(tracing) if !exit::is_over() => tracing.library.functions().timestamp().ok(),
            _ => None,
        };
        if cupti.is_none() && exit::is_over() {
            return;
        }
        // Where CUPTI does not say, it is the clock that it takes on Linux.
        let cupti = cupti.unwrap_or_else(clock::realtime);
        let offset = cupti.wrapping_sub(monotonic).cast_signed();
        let step = offset.wrapping_sub(self.clock_offset);
        if self.clock_offset != 0 && step.unsigned_abs() > STEP_NS {
            // Or the period under way would have the length of the step.
            self.consumer.kernels.shift(step);
            self.consumer.copies.shift(step);
        }
        self.clock_offset = offset;
    }

    pub(super) fn cupti_now(&self) -> u64 {
        clock::monotonic().saturating_add_signed(self.clock_offset)
    }

    /// What the agent is doing, in words.
    pub(super) fn update_state(&mut self) {
        let frame = self.describe();
        if frame != self.state.0 {
            self.state = (frame, false);
        }
    }

    pub(super) fn describe(&self) -> Frame {
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
                "another profiler registered its own buffers with CUPTI; kernels and allocations are not seen until the engine \
                 is restarted, or `plimsoll trace RUN --resume` takes CUPTI back",
            );
        }
        let explain = |answer| tracing.library.explain(answer);
        let mut says = tracing
            .control
            .shortfalls(explain, self.options.observes_virtual_memory());
        if self.verdict.tier != self.options.tier {
            let (now, asked) = (self.verdict.tier, self.options.tier);
            says.push(format!(
                "tier {now} in place of {asked}, to stay within the budget"
            ));
        }
        if self.has_memory_gap {
            says.push("some allocations were not seen, so what is live is unknown".to_owned());
        }
        let is_degraded = !says.is_empty();
        says.extend(self.notes.iter().cloned());
        let kind = match (tracing.control.records_anything(), is_degraded) {
            (false, _) => State::Off,
            (_, true) => State::Degraded,
            _ => State::Tracing,
        };
        state(kind, &says.join("; "))
    }
}

pub(super) fn state(state: State, message: &str) -> Frame {
    Frame::State {
        state,
        message: message.to_owned(),
    }
}
