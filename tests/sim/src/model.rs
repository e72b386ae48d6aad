//! The engine as a pure state machine: continuous batching in small steps of simulated time. No clock, no files and
//! no processes in here, so that the process and the accelerated simulation are the same engine.
//!
//! In each step the card's time is divided: up to [`PREFILL_SHARE`] of it reads prompts (first come first served), the
//! rest writes answers, one token for every running request in each iteration. An iteration reads all weights and the
//! whole KV cache once, a prompt token costs two operations for each parameter. `gradient_checkpointing` makes both
//! slower by 5 %.
//!
//! There are two kinds of engine. Without `gpu_memory_utilization` KV is taken when tokens come. If the card has no more,
//! the engine is out of memory: the process that runs it dies and everything it was serving is lost. With it, the engine
//! takes a pool of KV when it loads its model, and when the pool is full it puts the newest request off, which reads all
//! its tokens again later.

use std::collections::VecDeque;

use crate::config::Config;
use crate::memory::{self, Allocator, Memory, OutOfMemory};
use crate::workload::Arrival;

/// Length of a step in seconds of the simulated world.
pub const STEP_SECS: f64 = 0.05;
/// The most requests that wait; one more is turned away, which counts as lost.
pub const QUEUE_LIMIT: usize = 512;
/// The most of the time that goes to reading prompts while answers are being written.
pub const PREFILL_SHARE: f64 = 0.7;
/// Operations a second that reading prompts reaches.
const PREFILL_FLOPS: f64 = 1.4e14;
/// Bytes a second at which weights and KV cache are read.
const MEMORY_BANDWIDTH: f64 = 8.0e11;
/// Share of the pool that no new request may take, so that those that run can grow.
const POOL_MARGIN: f64 = 0.01;
/// Seconds of an iteration that no reading explains: launches, sampling, scheduling.
const ITERATION_SECS: f64 = 0.004;
/// How much slower everything is with `gradient_checkpointing`.
const CHECKPOINTING_COST: f64 = 0.05;

/// What the engine runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hardware {
    /// Memory that the card can give to processes, in bytes.
    pub usable_bytes: u64,
    /// How much faster it reads prompts and memory than the card of a plain engine.
    pub speed: f64,
}

/// A request on its way through the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Whose it is: `None` for the load, a number for a probe whose sender waits for the answer.
    pub probe: Option<u64>,
    /// When it was sent, in seconds of the simulated world.
    pub arrived_secs: f64,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

impl From<&Arrival> for Request {
    fn from(arrival: &Arrival) -> Self {
        Self {
            probe: None,
            arrived_secs: arrival.at_secs,
            input_tokens: arrival.input_tokens,
            output_tokens: arrival.output_tokens,
        }
    }
}

/// A request that was answered in full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    /// The request.
    pub request: Request,
    /// From its arrival to its first token, in seconds of the simulated world.
    pub first_token_secs: f64,
    /// Mean time from one token of the answer to the next; `None` when it had one token only.
    pub per_token_secs: Option<f64>,
}

/// Whether the model is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// The weights come in; requests in flight keep their KV cache and wait.
    Loading {
        /// Seconds of the simulated world until they are there.
        left_secs: f64,
    },
    /// Requests are being served.
    Serving,
    /// There is no model; every request is turned away.
    Unloaded,
}

/// What happened in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The memory held at its highest moment, before finished requests gave theirs back.
    pub memory: Memory,
    /// Requests answered.
    pub finished: Vec<Finished>,
    /// Requests turned away: too long, too many waiting, no model.
    pub lost: Vec<Request>,
    /// Share of the step in which the card worked, 0..1.
    pub busy_ratio: f64,
    /// Prompt tokens read.
    pub prompt_tokens: f64,
    /// Tokens of answers written.
    pub generated_tokens: f64,
    /// Requests put off because the pool was full.
    pub preempted: u32,
}

/// A request that does not run: it has not begun yet, or was put off.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: Request,
    written_tokens: f64,
    first_token_at_secs: Option<f64>,
}

#[derive(Clone, Debug)]
struct Running {
    request: Request,
    /// Tokens that have to be read before it goes on writing: the prompt, and what was written before it was put off.
    prompt_tokens: f64,
    read_tokens: f64,
    written_tokens: f64,
    first_token_at_secs: Option<f64>,
}

impl Waiting {
    const fn new(request: Request) -> Self {
        Self {
            request,
            written_tokens: 0.0,
            first_token_at_secs: None,
        }
    }

    fn prompt_tokens(&self) -> f64 {
        f64::from(self.request.input_tokens) + self.written_tokens
    }

    fn begin(self) -> Running {
        Running {
            request: self.request,
            prompt_tokens: self.prompt_tokens(),
            read_tokens: 0.0,
            written_tokens: self.written_tokens,
            first_token_at_secs: self.first_token_at_secs,
        }
    }
}

impl Running {
    fn unread_tokens(&self) -> f64 {
        self.prompt_tokens - self.read_tokens
    }

    fn is_writing(&self) -> bool {
        self.unread_tokens() <= 0.0
    }

    /// Whether it goes on writing in the next step.
    fn has_first_token(&self) -> bool {
        self.is_writing() && self.first_token_at_secs.is_some()
    }

    /// Tokens in the KV cache.
    fn kv_tokens(&self) -> f64 {
        self.read_tokens + self.written_tokens - (self.prompt_tokens - f64::from(self.request.input_tokens))
    }

    fn done(&self) -> bool {
        self.is_writing() && self.written_tokens >= f64::from(self.request.output_tokens)
    }

    fn put_off(self) -> Waiting {
        Waiting {
            request: self.request,
            written_tokens: self.written_tokens,
            first_token_at_secs: self.first_token_at_secs,
        }
    }
}

/// The engine's state.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    hardware: Hardware,
    leak_bytes_per_request: u64,
    phase: Phase,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    leaked_bytes: u64,
    allocator: Allocator,
}

impl Engine {
    /// An engine that begins to load its model.
    #[must_use]
    pub fn new(config: Config, hardware: Hardware, leak_bytes_per_request: u64) -> Self {
        Self {
            hardware,
            phase: Phase::Loading {
                left_secs: config.load_secs,
            },
            config,
            leak_bytes_per_request,
            waiting: VecDeque::new(),
            running: Vec::new(),
            leaked_bytes: 0,
            allocator: Allocator::default(),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the model is there.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Requests that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Tokens in the KV cache.
    #[must_use]
    pub fn kv_tokens(&self) -> f64 {
        self.running.iter().map(Running::kv_tokens).sum()
    }

    /// Tokens that the KV cache has room for; `None` if it takes memory when tokens come.
    #[must_use]
    pub fn kv_capacity_tokens(&self) -> Option<f64> {
        self.config
            .preallocates()
            .then(|| memory::pool_tokens(&self.config, self.hardware.usable_bytes))
    }

    /// Share of the KV cache, or of what the limit lets run, that is in use; `None` without either.
    #[must_use]
    pub fn kv_used_ratio(&self) -> Option<f64> {
        let pool = self
            .kv_capacity_tokens()
            .map(|capacity| self.kv_tokens() / capacity);
        let limit = (self.config.max_batch_total_tokens > 0).then(|| {
            let total =
                |request: &Request| f64::from(request.input_tokens) + f64::from(request.output_tokens);
            let promised: f64 = self.running.iter().map(|running| total(&running.request)).sum();
            promised / f64::from(self.config.max_batch_total_tokens)
        });
        let most = pool.unwrap_or(0.0).max(limit.unwrap_or(0.0));
        (pool.is_some() || limit.is_some()).then_some(most.min(1.0))
    }

    /// Tokens of the prompts that wait.
    #[must_use]
    pub fn waiting_tokens(&self) -> f64 {
        self.waiting.iter().map(Waiting::prompt_tokens).sum()
    }

    /// Drops the weights and loads them again under `config`. Requests in flight keep their KV cache, wait, and go on
    /// when the model is back; the allocator's cache is given back.
    pub fn reload(&mut self, config: Config) {
        self.phase = Phase::Loading {
            left_secs: config.load_secs,
        };
        self.config = config;
        self.allocator.empty();
    }

    /// Takes other limits on what runs at once without loading the model again, as some servers and proxies can.
    pub fn limit(&mut self, to: &Config) {
        self.config.max_batch_size = to.max_batch_size;
        self.config.max_batch_total_tokens = to.max_batch_total_tokens;
        self.config.max_queue_secs = to.max_queue_secs;
    }

    /// Turns away what waits; returns it.
    pub fn drop_waiting(&mut self) -> Vec<Request> {
        self.waiting.drain(..).map(|waiting| waiting.request).collect()
    }

    /// Drops the model and everything that it was serving; returns what was lost.
    pub fn unload(&mut self) -> Vec<Request> {
        self.phase = Phase::Unloaded;
        self.allocator.empty();
        let running = self.running.drain(..).map(|r| r.request);
        running
            .chain(self.waiting.drain(..).map(|waiting| waiting.request))
            .collect()
    }

    /// Goes on by [`STEP_SECS`] to `now_secs`, with the requests that arrived meanwhile. `limit_bytes` is the most
    /// memory that the process can have on the card.
    ///
    /// # Errors
    /// The memory needed does not fit; the engine is of no use then.
    pub fn step(
        &mut self,
        now_secs: f64,
        limit_bytes: u64,
        arrivals: impl IntoIterator<Item = Request>,
    ) -> Result<Step, OutOfMemory> {
        let mut step = Step::default();
        for request in arrivals {
            step.lost.extend(self.turned_away(request));
        }
        match self.phase {
            Phase::Loading { left_secs } => {
                let left_secs = left_secs - STEP_SECS;
                self.phase = if left_secs > 0.0 {
                    Phase::Loading { left_secs }
                } else {
                    Phase::Serving
                };
            }
            Phase::Serving => self.serve(now_secs, &mut step),
            Phase::Unloaded => {}
        }
        step.memory = self.take_memory(limit_bytes)?;
        let done = self.running.extract_if(.., |running| running.done());
        step.finished = done.map(|running| finished(&running, now_secs)).collect();
        self.leaked_bytes += self.leak_bytes_per_request * step.finished.len() as u64;
        Ok(step)
    }

    /// Lets a request in, or hands it back.
    fn turned_away(&mut self, request: Request) -> Option<Request> {
        let pool = self.kv_capacity_tokens().unwrap_or(f64::INFINITY) * (1.0 - POOL_MARGIN);
        let longest = match self.config.max_batch_total_tokens {
            0 => u32::MAX,
            limit => limit,
        };
        let longest = longest.min(whole_tokens(pool));
        let too_long = request.input_tokens >= self.config.context_length.min(longest);
        if too_long || self.phase == Phase::Unloaded || self.waiting.len() >= QUEUE_LIMIT {
            return Some(request);
        }
        let room = self.config.context_length.min(longest) - request.input_tokens;
        self.waiting.push_back(Waiting::new(Request {
            output_tokens: request.output_tokens.clamp(1, room),
            ..request
        }));
        None
    }

    fn serve(&mut self, now_secs: f64, step: &mut Step) {
        self.turn_away_late(now_secs, step);
        self.admit();
        let slower = if self.config.gradient_checkpointing {
            1.0 + CHECKPOINTING_COST
        } else {
            1.0
        };
        let reading_secs = self.read_prompts(now_secs, slower, step);
        let writing_secs = self.write_answers(STEP_SECS - reading_secs, slower, step);
        self.put_off(step);
        // Writing leaves a part of the card idle while the batch is small.
        let writing_load = (0.5 + self.running.len() as f64 / 64.0).min(1.0);
        step.busy_ratio = (reading_secs + writing_secs * writing_load) / STEP_SECS;
    }

    /// Turns away who has waited for too long.
    fn turn_away_late(&mut self, now_secs: f64, step: &mut Step) {
        let patience = self.config.max_queue_secs;
        while patience > 0.0
            && let Some(next) = self.waiting.front()
            && next.first_token_at_secs.is_none()
            && now_secs - next.request.arrived_secs > patience
        {
            step.lost
                .extend(self.waiting.pop_front().map(|waiting| waiting.request));
        }
    }

    /// Lets requests that wait run, first come first served, while the limits and the pool have room for them.
    fn admit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let limit_tokens = match self.config.max_batch_total_tokens {
            0 => f64::INFINITY,
            limit => f64::from(limit),
        };
        let total = |request: &Request| f64::from(request.input_tokens) + f64::from(request.output_tokens);
        let mut promised: f64 = self.running.iter().map(|running| total(&running.request)).sum();
        let mut free = self.kv_capacity_tokens().map_or(f64::INFINITY, |capacity| {
            let unread: f64 = self.running.iter().map(Running::unread_tokens).sum();
            capacity * (1.0 - POOL_MARGIN) - self.kv_tokens() - unread
        });
        while let Some(next) = self.waiting.front()
            && self.running.len() < self.config.max_batch_size as usize
            && promised + total(&next.request) <= limit_tokens
            && next.prompt_tokens() <= free
        {
            promised += total(&next.request);
            free -= next.prompt_tokens();
            self.running.extend(self.waiting.pop_front().map(Waiting::begin));
        }
    }

    /// Puts requests off, newest first, while the pool is too full.
    fn put_off(&mut self, step: &mut Step) {
        let Some(capacity) = self.kv_capacity_tokens() else {
            return;
        };
        let mut tokens = self.kv_tokens();
        while tokens > capacity && self.running.len() > 1 {
            let Some(newest) = self.running.pop() else { return };
            tokens -= newest.kv_tokens();
            step.preempted += 1;
            self.waiting.push_front(newest.put_off());
        }
    }

    /// Reads prompts, oldest first; returns the time it took.
    fn read_prompts(&mut self, now_secs: f64, slower: f64, step: &mut Step) -> f64 {
        let flops = PREFILL_FLOPS * self.hardware.speed;
        let tokens_per_sec = flops / (2e9 * self.config.model.parameters_billions) / slower;
        // They begin in order and read in order, so those that write come first.
        let writing = self.running.partition_point(Running::has_first_token);
        let share = if writing > 0 { PREFILL_SHARE } else { 1.0 };
        let budget = STEP_SECS * share * tokens_per_sec;
        let mut left = budget;
        for running in self.running.iter_mut().skip(writing) {
            let read = running.unread_tokens().min(left);
            running.read_tokens += read;
            left -= read;
            if !running.is_writing() {
                break;
            }
            if running.first_token_at_secs.is_none() {
                running.first_token_at_secs = Some(now_secs);
                running.written_tokens = 1.0;
                step.generated_tokens += 1.0;
            }
        }
        step.prompt_tokens += budget - left;
        (budget - left) / tokens_per_sec
    }

    /// Writes answers for `secs`; returns the time used, which is all of it as long as there is anything to write.
    fn write_answers(&mut self, secs: f64, slower: f64, step: &mut Step) -> f64 {
        let held = memory::weights_bytes(&self.config) + memory::kv_bytes(&self.config, self.kv_tokens());
        let bandwidth = MEMORY_BANDWIDTH * self.hardware.speed;
        let iteration_secs = (ITERATION_SECS + held as f64 / bandwidth) * slower;
        let most = secs / iteration_secs;
        let (mut longest, mut generated) = (0.0, 0.0);
        for running in self.running.iter_mut().filter(|r| r.has_first_token()) {
            let left = f64::from(running.request.output_tokens) - running.written_tokens;
            let written = if most < left { most } else { left };
            if written > 0.0 {
                running.written_tokens += written;
                generated += written;
                longest = if written > longest { written } else { longest };
            }
        }
        step.generated_tokens += generated;
        secs.min(longest * iteration_secs)
    }

    fn take_memory(&mut self, limit_bytes: u64) -> Result<Memory, OutOfMemory> {
        // A pool is as large as it was made, whatever is in it.
        let tokens = match (self.kv_capacity_tokens(), self.phase) {
            (Some(capacity), Phase::Serving) => capacity,
            _ => self.kv_tokens(),
        };
        let weights_bytes = match self.phase {
            Phase::Serving => memory::weights_bytes(&self.config),
            Phase::Loading { left_secs } => {
                let loaded = 1.0 - (left_secs / self.config.load_secs).clamp(0.0, 1.0);
                memory::to_bytes(memory::weights_bytes(&self.config) as f64 * loaded)
            }
            Phase::Unloaded => 0,
        };
        let mut memory = Memory {
            context_bytes: memory::CONTEXT_BYTES,
            weights_bytes,
            kv_bytes: memory::kv_bytes(&self.config, tokens),
            activation_bytes: match self.phase {
                Phase::Serving => memory::activation_bytes(&self.config, tokens),
                Phase::Loading { .. } | Phase::Unloaded => 0,
            },
            leaked_bytes: self.leaked_bytes,
            allocator_slack_bytes: 0,
            stuck_bytes: 0,
        };
        let fixed = memory.context_bytes + memory.weights_bytes;
        let out_of_memory = |asked_bytes, in_use_bytes| OutOfMemory {
            asked_bytes,
            in_use_bytes,
            limit_bytes,
        };
        let room = limit_bytes
            .checked_sub(fixed)
            .ok_or_else(|| out_of_memory(fixed - limit_bytes, limit_bytes))?;
        let held_before = self.allocator.reserved_bytes();
        let reserved = self
            .allocator
            .fit(memory.allocated_bytes(), room, STEP_SECS)
            .map_err(|asked| out_of_memory(asked, fixed + held_before))?;
        memory.allocator_slack_bytes = reserved - memory.allocated_bytes();
        memory.stuck_bytes = self.allocator.stuck_bytes(memory.allocated_bytes());
        Ok(memory)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens, never negative; what is beyond 2^32 is as good as 2^32"
)]
const fn whole_tokens(tokens: f64) -> u32 {
    tokens as u32
}

fn finished(running: &Running, now_secs: f64) -> Finished {
    let request = running.request;
    let first_token_at = running.first_token_at_secs.unwrap_or(now_secs);
    let further = f64::from(request.output_tokens) - 1.0;
    Finished {
        request,
        first_token_secs: first_token_at - request.arrived_secs,
        per_token_secs: (further > 0.0).then(|| (now_secs - first_token_at) / further),
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
