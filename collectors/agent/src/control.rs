//! What is wanted of CUPTI and what it does: the difference is called, and what it refuses is remembered and said.

use std::collections::BTreeMap;

use cupti_sys::constant::{attribute, domain, kind};
use cupti_sys::{Answer, Functions, Subscriber};
use plimsoll_trace::TraceTier;

use crate::calls::{ALLOCATION_CALLS, LAUNCH_CALLS, VIRTUAL_MEMORY_CALLS};
use crate::hooks;

/// CUPTI keeps at most so many of its buffers on the device, per context, 3.2 MB each: 64 MB in place of 800.
const DEVICE_BUFFERS: usize = 20;

/// Calls that must leave records, watched to see whether these come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Those that give the GPU work.
    Launches,
    /// Those that take memory, while nothing else is recorded.
    Allocations,
}

impl Watched {
    const fn calls(self) -> &'static [u32] {
        match self {
            Self::Launches => &LAUNCH_CALLS,
            Self::Allocations => &ALLOCATION_CALLS,
        }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The tier in force.
    pub(crate) tier: TraceTier,
    /// Kernels now; not between windows, and not while the budget is spent.
    pub(crate) kernels: bool,
    /// The calls of virtual memory.
    pub(crate) virtual_memory: bool,
    /// Whether anything happens that should be seen.
    pub(crate) watched: Option<Watched>,
}

impl Desired {
    /// Nothing: CUPTI is left to others.
    pub(crate) const NOTHING: Self = Self {
        tier: TraceTier::Off,
        kernels: false,
        virtual_memory: false,
        watched: None,
    };

    /// The kinds of records that this takes, in the order in which they are to be enabled.
    fn kinds(&self) -> Vec<u32> {
        let mut kinds = Vec::new();
        if self.tier != TraceTier::Off {
            kinds.extend([kind::MEMORY2, kind::MEMORY_POOL]);
        }
        if self.kernels && matches!(self.tier, TraceTier::Graph | TraceTier::Kernels) {
            if self.tier == TraceTier::Graph {
                kinds.push(kind::GRAPH_TRACE);
            }
            kinds.extend([
                kind::CONCURRENT_KERNEL,
                kind::MEMCPY,
                kind::MEMCPY2,
                kind::MEMSET,
                kind::OVERHEAD,
            ]);
        }
        kinds
    }
}

/// What CUPTI does.
#[derive(Debug)]
pub(crate) struct Control {
    functions: Functions,
    enabled: Vec<u32>,
    refused: BTreeMap<u32, Answer>,
    /// Kinds whose times are wrong too often.
    useless: Vec<u32>,
    is_registered: bool,
    subscriber: Option<Subscriber>,
    not_subscribed: Option<Answer>,
    /// The agent leaves the subscription to others, and nobody had it when the agent began, or took CUPTI back. Then one
    /// who has it now came since.
    was_free: bool,
    is_subscription_left: bool,
    observes_memory: bool,
    watched: Option<Watched>,
    device_bytes: Option<u64>,
}

impl Control {
    pub(crate) const fn new(functions: Functions) -> Self {
        Self {
            functions,
            enabled: Vec::new(),
            refused: BTreeMap::new(),
            useless: Vec::new(),
            is_registered: false,
            subscriber: None,
            not_subscribed: None,
            was_free: false,
            is_subscription_left: false,
            observes_memory: false,
            watched: None,
            device_bytes: None,
        }
    }

    /// Settings that have to be made before there is a context. A version that does not know one goes without.
    pub(crate) fn prepare(&mut self, subscribes: bool) {
        self.is_subscription_left = !subscribes;
        self.was_free = self.is_subscription_left && self.can_subscribe() == Ok(());
        let functions = &self.functions;
        functions
            .set_attribute(attribute::ZEROED_OUT_ACTIVITY_BUFFER, 1_u8)
            .ok();
        let limited = functions.set_attribute(attribute::DEVICE_BUFFER_POOL_LIMIT, DEVICE_BUFFERS);
        let limit = match limited {
            Ok(()) => Some(DEVICE_BUFFERS),
            Err(_) => functions.attribute(attribute::DEVICE_BUFFER_POOL_LIMIT).ok(),
        };
        let size = functions
            .attribute(attribute::DEVICE_BUFFER_SIZE)
            .unwrap_or(3_200_000);
        self.device_bytes = limit.map(|limit| limit as u64 * size as u64);
    }

    /// Makes it so.
    pub(crate) fn make(&mut self, desired: Desired) {
        if desired != Desired::NOTHING && !self.is_registered {
            match self.functions.register_callbacks(hooks::request, hooks::complete) {
                Ok(()) => self.is_registered = true,
                Err(answer) => {
                    // Without buffers every kind would be refused the same way.
                    desired.kinds().into_iter().for_each(|kind| {
                        self.refused.insert(kind, answer);
                    });
                }
            }
        }
        let mut kinds = desired.kinds();
        kinds.retain(|kind| !self.useless.contains(kind));
        for kind in std::mem::take(&mut self.enabled) {
            if kinds.contains(&kind) && !self.refused.contains_key(&kind) {
                self.enabled.push(kind);
            } else {
                self.functions.disable(kind).ok();
            }
        }
        for kind in kinds {
            if self.enabled.contains(&kind) || self.refused.contains_key(&kind) {
                continue;
            }
            match self.functions.enable(kind) {
                Ok(()) => self.enabled.push(kind),
                Err(answer) => {
                    self.refused.insert(kind, answer);
                }
            }
        }
        self.subscribe(desired);
    }

    fn subscribe(&mut self, desired: Desired) {
        let wants = desired.virtual_memory || desired.watched.is_some();
        if !wants {
            if let Some(subscriber) = self.subscriber.take() {
                self.functions.unsubscribe(subscriber).ok();
            }
            (self.observes_memory, self.watched) = (false, None);
            return;
        }
        if self.subscriber.is_none() && self.not_subscribed.is_none() {
            match self.functions.subscribe(hooks::on_call) {
                Ok(subscriber) => self.subscriber = Some(subscriber),
                Err(answer) => self.not_subscribed = Some(answer),
            }
        }
        let Some(subscriber) = self.subscriber else { return };
        let functions = self.functions;
        let observe = |on: bool, calls: &[u32]| {
            let results = calls
                .iter()
                .map(|call| functions.enable_callback(on, subscriber, domain::DRIVER_API, *call));
            results.fold(true, |all, result| all & result.is_ok())
        };
        if desired.virtual_memory != self.observes_memory {
            self.observes_memory =
                observe(desired.virtual_memory, &VIRTUAL_MEMORY_CALLS) && desired.virtual_memory;
        }
        if desired.watched != self.watched {
            // An older version lacks some of them; what there is is watched.
            if let Some(before) = std::mem::replace(&mut self.watched, desired.watched) {
                observe(false, before.calls());
            }
            if let Some(now) = desired.watched {
                observe(true, now.calls());
            }
        }
    }

    /// Whether the subscription could be had now. It is given back at once; who asks in between is refused, so this is not
    /// to be asked often.
    fn can_subscribe(&self) -> Result<(), Answer> {
        let subscriber = self.functions.subscribe(hooks::on_call)?;
        self.functions.unsubscribe(subscriber)
    }

    /// Whether somebody else has subscribed since the agent began or started over. Where the agent has the subscription
    /// itself, nobody can.
    pub(crate) fn has_rival(&mut self) -> bool {
        if !self.is_subscription_left || self.subscriber.is_some() {
            return false;
        }
        let answer = self.can_subscribe();
        let has_come = self.was_free && answer == Err(Answer::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED);
        // Who had it from the beginning is gone: the next one is another.
        self.was_free |= answer.is_ok();
        has_come
    }

    /// Another profiler registered its callbacks, and is done: ours are to be registered again, and what was refused is to
    /// be tried again. Who has the subscription now may keep it: that says nothing any more. Returns whether somebody had
    /// come since.
    pub(crate) fn start_over(&mut self) -> bool {
        let has_come = self.has_rival();
        self.was_free &= !has_come;
        self.is_registered = false;
        self.enabled.clear();
        self.refused.clear();
        self.not_subscribed = None;
        has_come
    }

    /// Kinds are useless here: their times are wrong.
    pub(crate) fn give_up(&mut self, kinds: impl IntoIterator<Item = u32>) {
        self.useless = kinds.into_iter().collect();
    }

    /// Whether records of a kind come.
    pub(crate) fn is_enabled(&self, kind: u32) -> bool {
        self.enabled.contains(&kind)
    }

    /// Whether anything comes at all.
    pub(crate) fn records_anything(&self) -> bool {
        !self.enabled.is_empty()
    }

    /// Whether the calls of virtual memory are observed.
    pub(crate) const fn observes_memory(&self) -> bool {
        self.observes_memory
    }

    /// Whether calls can be watched.
    pub(crate) const fn is_subscribed(&self) -> bool {
        self.subscriber.is_some()
    }

    /// What CUPTI may hold of the device's memory for each context, bytes.
    pub(crate) const fn device_bytes(&self) -> Option<u64> {
        self.device_bytes
    }

    /// What does not come although it was wanted, in words.
    pub(crate) fn shortfalls(&self, explain: impl Fn(Answer) -> String, virtual_memory: bool) -> Vec<String> {
        let mut refused = BTreeMap::<Answer, Vec<&str>>::new();
        for (kind, answer) in &self.refused {
            refused.entry(*answer).or_default().push(kind_name(*kind));
        }
        let mut all: Vec<_> = refused
            .into_iter()
            .map(|(answer, kinds)| format!("no {}: CUPTI answers {}", kinds.join(", "), explain(answer)))
            .collect();
        if !self.useless.is_empty() {
            all.push("no kernels: more than 1 % of the times that CUPTI gives for them are wrong".to_owned());
        }
        if virtual_memory && !self.observes_memory {
            all.push(match self.not_subscribed {
                Some(answer) => format!(
                    "virtual memory is not observed: CUPTI answers {}",
                    explain(answer)
                ),
                None => "virtual memory is not observed: CUPTI has no callbacks for it".to_owned(),
            });
        }
        all
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        kind::MEMORY2 => "allocations",
        kind::MEMORY_POOL => "memory pools",
        kind::GRAPH_TRACE => "CUDA graphs",
        kind::CONCURRENT_KERNEL => "kernels",
        kind::MEMCPY => "copies",
        kind::MEMCPY2 => "copies between devices",
        kind::MEMSET => "memsets",
        kind::OVERHEAD => "profiling overhead",
        _ => "records",
    }
}
