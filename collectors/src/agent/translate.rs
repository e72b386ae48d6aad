//! From an agent's frames to records.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_trace::wire::{
    AllocationEvent, CopyStats, Frame, KernelStats, Levels, LossReason, Process, Span, State,
};
use plimsoll_trace::{
    Allocation, AllocatorSample, CopyWindow, DeviceId, Event, EventKind, KernelSpan, KernelWindow, Level,
    Record, RunId, Stamp, Traced, Work, sketch,
};
use serde_json::json;

use super::accounts::SharedAccount;
use super::dictionary::Dictionary;

/// Beyond anything that can be meant: sums of such numbers still fit into 64 bits.
const MOST_COUNT: u64 = 1 << 40;
const MOST_NS: u64 = 1 << 54;
const MOST_BYTES: u64 = 1 << 54;
/// One session's sentences for people are few; each is made to be read.
const MOST_EVENTS: u32 = 100;
const MOST_TEXT: usize = 400;

/// Why something of an agent's is missing, and how much.
pub(super) type Losses = BTreeMap<&'static str, u64>;

/// Whose frames they are, and what came of them so far.
#[derive(Debug)]
pub(super) struct Translator {
    pid: u32,
    /// Waiting to be delivered.
    pub(super) ready: VecDeque<Record>,
    pub(super) losses: Losses,
    state: Option<State>,
    introduced: bool,
    flush_ms: Option<u32>,
    events: u32,
    /// Of all connections of its process.
    account: SharedAccount,
    /// What was counted as lost so far, by reason.
    lost: Losses,
}

/// When and for which run.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Stamp,
    pub(super) run: RunId,
}

impl Translator {
    pub(super) const fn new(pid: u32, account: SharedAccount) -> Self {
        Self {
            pid,
            ready: VecDeque::new(),
            losses: Losses::new(),
            state: None,
            introduced: false,
            flush_ms: None,
            events: 0,
            account,
            lost: Losses::new(),
        }
    }

    /// Counts a loss; of each reason no more than can be meant, so that sums over many agents fit into 64 bits.
    pub(super) fn lose(&mut self, reason: &'static str, count: u64) {
        let so_far = self.lost.entry(reason).or_default();
        let count = count.min(MOST_COUNT - *so_far);
        *so_far += count;
        if count > 0 {
            *self.losses.entry(reason).or_default() += count;
        }
    }

    /// Makes records of a frame whose words are known, or never will be.
    pub(super) fn translate(&mut self, frame: Frame, words: &Dictionary, now: Now) {
        match frame {
            Frame::Kernels(kernels) => {
                let (start_ns, end_ns) = self.period(kernels.start_ns, kernels.end_ns, words, now);
                for stats in kernels.stats {
                    match window(stats, start_ns, end_ns, words) {
                        Some((device, window))
                            if self
                                .account
                                .borrow_mut()
                                .admit(now.at, window.count, window.total_ns, 0) =>
                        {
                            self.work(now, device, Work::Kernels(window));
                        }
                        _ => self.lose(LossReason::Malformed.as_str(), 1),
                    }
                }
            }
            Frame::Copies(copies) => {
                let (start_ns, end_ns) = self.period(copies.start_ns, copies.end_ns, words, now);
                for stats in copies.stats {
                    match copy_window(stats, start_ns, end_ns) {
                        Some(window)
                            if self.account.borrow_mut().admit(
                                now.at,
                                window.count,
                                window.total_ns,
                                window.bytes,
                            ) =>
                        {
                            self.work(now, words.device(stats.device), Work::Copies(window));
                        }
                        _ => self.lose(LossReason::Malformed.as_str(), 1),
                    }
                }
            }
            Frame::Memory(events) => events.iter().for_each(|event| self.memory(event, words, now)),
            Frame::Levels(levels) => self.levels(&levels, words, now),
            Frame::Spans(spans) => spans.spans.iter().for_each(|span| self.span(span, words, now)),
            Frame::Loss { reason, count } if count <= MOST_COUNT => self.lose(reason.as_str(), count),
            Frame::Loss { .. } => self.lose(LossReason::Malformed.as_str(), 1),
            Frame::State { state, message } => self.state(state, &message, now),
            Frame::Process(process) => self.introduce(&process, now),
            Frame::Name { .. }
            | Frame::Device { .. }
            | Frame::Clock(_)
            | Frame::Cost(_)
            | Frame::Finished => {}
        }
    }

    fn work(&mut self, now: Now, device: Option<DeviceId>, work: Work) {
        self.ready.push_back(Record::Traced(Traced {
            pid: self.pid,
            run: Some(now.run),
            device,
            work,
        }));
    }

    /// A period in Unix time. The counts in it are exact whatever a clock says, so one without a valid time is taken to
    /// have ended now, and counted.
    fn period(&mut self, start: u64, end: u64, words: &Dictionary, now: Now) -> (i64, i64) {
        let unix = |ns| words.clocks.unix_ns(ns, now.at);
        match (unix(start), unix(end)) {
            (Some(start), Some(end)) if start <= end => (start, end),
            _ => {
                self.lose("invalid_time", 1);
                let length = i64::try_from(end.saturating_sub(start).min(MOST_NS)).unwrap_or(0);
                (now.at.unix_ns.saturating_sub(length), now.at.unix_ns)
            }
        }
    }

    fn memory(&mut self, event: &AllocationEvent, words: &Dictionary, now: Now) {
        let at_ns = words.clocks.unix_ns(event.at_ns, now.at).unwrap_or_else(|| {
            self.lose("invalid_time", 1);
            now.at.unix_ns
        });
        let allocation = Allocation {
            at_ns,
            operation: event.operation,
            kind: event.kind,
            address: event.address,
            bytes: event
                .bytes
                .filter(|bytes| *bytes <= MOST_BYTES && self.account.borrow_mut().admit_memory(*bytes)),
        };
        self.work(now, words.device(event.device), Work::Allocation(allocation));
    }

    /// A span is nothing but its times: without valid ones it is a loss.
    fn span(&mut self, span: &Span, words: &Dictionary, now: Now) {
        let unix = |ns| words.clocks.unix_ns(ns, now.at);
        let (Some(start_ns), Some(end_ns)) = (unix(span.start_ns), unix(span.end_ns)) else {
            return self.lose("invalid_time", 1);
        };
        let kernel = KernelSpan {
            name: words.name(span.name),
            stream: span.stream,
            start_ns,
            end_ns,
        };
        self.work(now, words.device(span.device), Work::Span(kernel));
    }

    fn levels(&mut self, levels: &Levels, words: &Dictionary, now: Now) {
        let device = words.device(levels.device);
        let at_ns = levels.at_ns.and_then(|at| words.clocks.unix_ns(at, now.at));
        let unknown = |level| AllocatorSample {
            at_ns,
            ..AllocatorSample::unknown(level, "cupti")
        };
        let known = |bytes: u64| (bytes <= MOST_BYTES).then_some(bytes);
        let driver = AllocatorSample {
            allocated_bytes: known(levels.live_bytes),
            segments: known(levels.segments),
            rounding_bytes: known(levels.rounding_bytes),
            ..unknown(Level::Driver)
        };
        self.work(now, device.clone(), Work::Allocator(driver));
        for (level, reserved, allocated) in [
            (Level::Pools, levels.pool_bytes, levels.pool_used_bytes),
            (Level::VirtualMemory, levels.reserved_bytes, levels.mapped_bytes),
        ] {
            if reserved.is_some() || allocated.is_some() {
                let sample = AllocatorSample {
                    allocated_bytes: allocated.and_then(known),
                    reserved_bytes: reserved.and_then(known),
                    ..unknown(level)
                };
                self.work(now, device.clone(), Work::Allocator(sample));
            }
        }
    }

    fn introduce(&mut self, process: &Process, now: Now) {
        if std::mem::replace(&mut self.introduced, true) {
            return;
        }
        self.flush_ms = Some(process.flush_ms);
        let without = if process.cupti.is_none() {
            ", without CUPTI"
        } else {
            ""
        };
        let rank = process
            .rank
            .map_or_else(String::new, |rank| format!(", rank {rank}"));
        let message = format!(
            "an agent reports from process {}{rank}: tier {}{without}",
            self.pid, process.tier
        );
        let detail = json!({
            "pid": self.pid,
            "inner_pid": process.pid,
            "tier": process.tier,
            "cupti": process.cupti.filter(|version| *version > 0),
            "flush_ms": process.flush_ms,
            "rank": process.rank,
            "local_rank": process.local_rank,
            "visible_devices": cut(&process.visible_devices),
            "exe": cut(&process.exe),
        });
        self.event(
            now,
            Event::new(EventKind::AgentAttached, message).with_detail(detail),
        );
    }

    /// The ring ends without the agent's last word.
    pub(super) fn cut_off(&mut self, now: Now) {
        self.lose(LossReason::Unfinished.as_str(), 1);
        let due = self
            .flush_ms
            .map_or_else(String::new, |ms| format!(" (one was due every {ms} ms)"));
        let text = format!(
            "the agent in process {} ended without a last word, as after a kill: what ran since its last flush{due} is missing",
            self.pid
        );
        let detail = json!({ "pid": self.pid, "state": "unfinished", "flush_ms": self.flush_ms });
        self.event(
            now,
            Event::new(EventKind::AgentDegraded, text).with_detail(detail),
        );
    }

    fn state(&mut self, state: State, message: &str, now: Now) {
        let before = self.state.replace(state);
        if before == Some(state) {
            return;
        }
        let (kind, does) = match state {
            // That it records is told by its introduction; again is news.
            State::Tracing if before.is_none() => return,
            State::Tracing => (EventKind::AgentAttached, "records again"),
            State::Yielded => (
                EventKind::AgentDisplaced,
                "left CUPTI to another, as it was asked to",
            ),
            State::Displaced => (EventKind::AgentDisplaced, "was displaced by another profiler"),
            State::Degraded => (EventKind::AgentDegraded, "records less than it was asked to"),
            State::Off => (EventKind::AgentDegraded, "records nothing"),
        };
        let why = if message.is_empty() {
            String::new()
        } else {
            format!(": {}", cut(message))
        };
        let text = format!("the agent in process {} {does}{why}", self.pid);
        let detail = json!({ "pid": self.pid, "state": state, "message": cut(message) });
        self.event(now, Event::new(kind, text).with_detail(detail));
    }

    fn event(&mut self, now: Now, event: Event) {
        self.events += 1;
        if self.events > MOST_EVENTS {
            return self.lose("too_many_events", 1);
        }
        self.ready.push_back(Record::Event(event.in_run(Some(now.run))));
    }
}

fn window(
    stats: KernelStats,
    start_ns: i64,
    end_ns: i64,
    words: &Dictionary,
) -> Option<(Option<DeviceId>, KernelWindow)> {
    // Together the buckets hold each launch at most once; an agent's own may be full and hold fewer.
    let in_buckets = stats
        .buckets
        .iter()
        .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let is_sane = (1..=MOST_COUNT).contains(&stats.count)
        && stats.max_ns <= MOST_NS
        && stats.total_ns <= MOST_NS.min(stats.count.saturating_mul(stats.max_ns))
        && in_buckets <= stats.count
        && stats
            .buckets
            .iter()
            .all(|(bucket, _)| usize::from(*bucket) < sketch::BUCKETS);
    is_sane.then(|| {
        let window = KernelWindow {
            name: words.name(stats.name),
            start_ns,
            end_ns,
            count: stats.count,
            total_ns: stats.total_ns,
            min_ns: stats.min_ns,
            max_ns: stats.max_ns,
            buckets: stats.buckets,
        };
        (words.device(stats.device), window)
    })
}

fn copy_window(stats: CopyStats, start_ns: i64, end_ns: i64) -> Option<CopyWindow> {
    let is_sane =
        (1..=MOST_COUNT).contains(&stats.count) && stats.bytes <= MOST_BYTES && stats.total_ns <= MOST_NS;
    is_sane.then_some(CopyWindow {
        direction: stats.direction,
        start_ns,
        end_ns,
        count: stats.count,
        bytes: stats.bytes,
        total_ns: stats.total_ns,
    })
}

/// What is made to be read is short.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}
