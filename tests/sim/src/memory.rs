//! Where the engine's memory on the card goes, by formula. The figures are plausible for a server of about 8 billion
//! parameters on one 24 GiB card; what matters is that every configuration key moves the part that it moves in
//! reality.
//!
//! | part | bytes |
//! |---|---|
//! | context | [`CONTEXT_BYTES`], from the process's first use of the card until it ends |
//! | weights | parameters x [`bytes_per_parameter`]; none while unloaded, growing evenly while loading |
//! | kv | tokens in flight x `kv_bytes_per_token`, taken as tokens come (nothing is reserved ahead) |
//! | activations | [`WORKSPACE_BYTES`] + tokens of the running batch x billions of parameters x [`ACTIVATION_BYTES`], of which `gradient_checkpointing` keeps [`CHECKPOINTED_SHARE`]; none while no weights are loaded |
//! | leaked | what served requests left behind, if the load says so |
//! | allocator slack | what the caching allocator holds of kv, activations and leaks beyond their need |

use serde::Serialize;

use crate::config::{Config, Quantization};

/// The CUDA context with its kernels, for as long as the process is on the card.
pub const CONTEXT_BYTES: u64 = 460 << 20;
/// Scratch space of the kernels while weights are loaded.
pub const WORKSPACE_BYTES: u64 = 192 << 20;
/// Activations kept for one token of the running batch, by billion parameters.
pub const ACTIVATION_BYTES: f64 = 27_000.0;
/// Share of the activations that remains with `gradient_checkpointing`.
pub const CHECKPOINTED_SHARE: f64 = 0.2;
/// The allocator takes and gives back memory in segments of this size.
pub const SEGMENT_BYTES: u64 = 2 << 20;
/// Part of the need that fragmentation adds while memory is there; given up before the allocator fails.
const FRAGMENTATION: f64 = 0.03;
/// Cached segments are given back with this time constant, in seconds...
const DECAY_SECS: f64 = 20.0;
/// ...except for this share of the highest need so far: segments with a small live block inside.
const STUCK_SHARE: f64 = 0.15;

/// Bytes of one parameter, the wider embeddings and the scales included.
#[must_use]
pub const fn bytes_per_parameter(quantization: Quantization) -> f64 {
    match quantization {
        Quantization::None => 2.0,
        Quantization::Int8 => 1.06,
        Quantization::Int4 => 0.56,
    }
}

/// Memory of the loaded weights, in bytes.
#[must_use]
pub fn weights_bytes(config: &Config) -> u64 {
    let model = &config.model;
    to_bytes(model.parameters_billions * 1e9 * bytes_per_parameter(model.quantization))
}

/// KV cache of so many tokens, in bytes.
#[must_use]
pub fn kv_bytes(config: &Config, tokens: f64) -> u64 {
    to_bytes(tokens * config.kv_token_bytes())
}

/// Activations of a running batch of so many tokens, in bytes.
#[must_use]
pub fn activation_bytes(config: &Config, tokens: f64) -> u64 {
    WORKSPACE_BYTES + to_bytes(tokens * activation_token_bytes(config))
}

pub(crate) fn activation_token_bytes(config: &Config) -> f64 {
    let share = if config.gradient_checkpointing {
        CHECKPOINTED_SHARE
    } else {
        1.0
    };
    config.model.parameters_billions * ACTIVATION_BYTES * share
}

/// Tokens that fit into a card whose processes can have `usable_bytes`, when the engine may take
/// `gpu_memory_utilization` of it: what weights, context and workspace leave, divided by KV and activations of a token.
#[must_use]
pub fn pool_tokens(config: &Config, usable_bytes: u64) -> f64 {
    let taken = usable_bytes as f64 * config.gpu_memory_utilization;
    let fixed = CONTEXT_BYTES + weights_bytes(config) + WORKSPACE_BYTES;
    (taken - fixed as f64).max(0.0) / (config.kv_token_bytes() + activation_token_bytes(config))
}

/// The engine's memory on the card, part by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The CUDA context.
    pub context_bytes: u64,
    /// The model's weights.
    pub weights_bytes: u64,
    /// The KV cache of the tokens in flight.
    pub kv_bytes: u64,
    /// The running batch's activations.
    pub activation_bytes: u64,
    /// What served requests left behind.
    pub leaked_bytes: u64,
    /// Held by the caching allocator and not in use.
    pub allocator_slack_bytes: u64,
    /// The part of that slack that cannot be given back: it lies between blocks that are in use.
    pub stuck_bytes: u64,
}

impl Memory {
    /// All parts together: what the driver sees.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.context_bytes + self.weights_bytes + self.allocated_bytes() + self.allocator_slack_bytes
    }

    /// What passes through the caching allocator and is in use.
    pub(crate) const fn allocated_bytes(&self) -> u64 {
        self.kv_bytes + self.activation_bytes + self.leaked_bytes
    }
}

/// The card could not give what the engine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {asked_bytes} bytes asked for with {in_use_bytes} in use of {limit_bytes}")]
pub struct OutOfMemory {
    /// The allocation that failed.
    pub asked_bytes: u64,
    /// What the process held at that moment.
    pub in_use_bytes: u64,
    /// The most that the process could have held.
    pub limit_bytes: u64,
}

/// A caching allocator: what it took from the driver it keeps, follows the highest need, and gives back slowly and
/// only in part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allocator {
    reserved_bytes: u64,
    highest_bytes: u64,
}

impl Allocator {
    /// What is held from the driver, in bytes.
    pub(crate) const fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Makes room for `need_bytes` within `limit_bytes`; returns what is held then, or the allocation that failed.
    pub(crate) fn fit(&mut self, need_bytes: u64, limit_bytes: u64, dt_secs: f64) -> Result<u64, u64> {
        let tight = segments(need_bytes);
        if tight > limit_bytes {
            return Err(tight.saturating_sub(self.reserved_bytes).max(SEGMENT_BYTES));
        }
        let most = limit_bytes - limit_bytes % SEGMENT_BYTES;
        let roomy = segments(to_bytes(need_bytes as f64 * (1.0 + FRAGMENTATION))).min(most);
        self.highest_bytes = self.highest_bytes.max(roomy);
        let stuck = to_bytes((self.highest_bytes - roomy) as f64 * STUCK_SHARE);
        let excess = self.reserved_bytes.saturating_sub(roomy + stuck) as f64;
        let kept = self.reserved_bytes - to_bytes(excess * (dt_secs / DECAY_SECS).min(1.0));
        // Short of memory, the cache goes back before anything fails.
        self.reserved_bytes = kept.clamp(roomy, most);
        Ok(self.reserved_bytes)
    }

    /// What of that cannot be given back while `need_bytes` of it are in use.
    pub(crate) fn stuck_bytes(&self, need_bytes: u64) -> u64 {
        let split = to_bytes(need_bytes as f64 * FRAGMENTATION);
        let highest = self.highest_bytes.saturating_sub(need_bytes + split);
        let stuck = split + to_bytes(highest as f64 * STUCK_SHARE);
        stuck.min(self.reserved_bytes.saturating_sub(need_bytes))
    }

    /// Gives back everything that is not needed, and forgets the past: what a reload of the model does.
    pub(crate) fn empty(&mut self) {
        *self = Self::default();
    }
}

const fn segments(bytes: u64) -> u64 {
    bytes.div_ceil(SEGMENT_BYTES) * SEGMENT_BYTES
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size in bytes, never negative"
)]
pub(crate) const fn to_bytes(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Format;

    const GIB: f64 = (1_u64 << 30) as f64;

    fn config(more: &str) -> Config {
        Config::parse(&format!("model: {{name: a, {more}}}"), Format::Yaml).expect("valid")
    }

    #[test]
    fn int8_saves_seven_gib_of_eight_billion_parameters() {
        let saved =
            weights_bytes(&config("quantization: none")) - weights_bytes(&config("quantization: int8"));
        assert!((saved as f64 / GIB - 7.0).abs() < 0.1, "{saved}");
        assert!(weights_bytes(&config("quantization: int4")) < weights_bytes(&config("quantization: int8")));
    }

    #[test]
    fn checkpointing_keeps_its_share_of_the_activations() {
        let plain = config("");
        let checkpointed = Config {
            gradient_checkpointing: true,
            ..plain.clone()
        };
        let of = |config| (activation_bytes(config, 20_000.0) - WORKSPACE_BYTES) as f64;
        assert!((of(&checkpointed) / of(&plain) - CHECKPOINTED_SHARE).abs() < 1e-6);
    }

    const LIMIT: u64 = 1 << 30;

    #[test]
    fn the_allocator_keeps_what_it_took_and_gives_back_a_part() {
        let mut allocator = Allocator::default();
        let high = allocator.fit(500 << 20, LIMIT, 0.05).expect("fits");
        assert_eq!(high % SEGMENT_BYTES, 0);
        let just_after = allocator.fit(100 << 20, LIMIT, 0.05).expect("fits");
        assert!(just_after > high * 9 / 10);
        assert!(
            allocator.stuck_bytes(100 << 20) < (just_after - (100 << 20)) / 2,
            "most of it can go back"
        );
        let mut late = just_after;
        for _ in 0..20_000 {
            late = allocator.fit(100 << 20, LIMIT, 0.05).expect("fits");
        }
        assert!(late > 150 << 20 && late < 200 << 20, "{late}");
        let left = late - (100 << 20);
        assert!(
            allocator.stuck_bytes(100 << 20) > left * 9 / 10,
            "what is left cannot"
        );
        allocator.empty();
        assert!(allocator.fit(100 << 20, LIMIT, 0.05).expect("fits") < 110 << 20);
    }

    #[test]
    fn the_allocator_fails_only_when_the_need_itself_does_not_fit() {
        let mut allocator = Allocator::default();
        allocator.fit(900 << 20, LIMIT, 0.05).expect("fits");
        // 1.03 times the need is too much, the need is not.
        assert_eq!(allocator.fit(LIMIT - SEGMENT_BYTES, LIMIT, 0.05), Ok(LIMIT));
        let asked = allocator
            .fit(LIMIT + SEGMENT_BYTES, LIMIT, 0.05)
            .expect_err("does not fit");
        assert_eq!(asked, SEGMENT_BYTES);
        // A smaller card, as when a neighbor came: the cache goes back first.
        assert_eq!(allocator.fit(400 << 20, LIMIT / 2, 0.05), Ok(LIMIT / 2));
    }
}
