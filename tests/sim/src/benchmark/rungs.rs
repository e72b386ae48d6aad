//! The configurations of an engine's ladder, from the person's own to the most reduced, and the rules that choose.
//!
//! | rung | on demand | preallocated | costs |
//! |---|---|---|---|
//! | 0 | the person's own: as many requests as come | the same; what does not fit into the pool is put off | |
//! | 1 | a limit on the tokens that run, and on how long a request may wait | the same | hot |
//! | 2 | KV cache in 8 bits, limits as above for what then fits | the same | restart, quality |
//! | 3 | weights in 8 bits as well | the same | restart, quality |

use plimsoll_tuner::rule::{Cost, RuleError};
use plimsoll_tuner::{Ladder, RuleConfig};
use serde::Deserialize;

use crate::config::{Config, KvCacheDtype, Model, Quantization};
use crate::memory;

/// Share of what fits that the limit on running tokens allows: what the allocator wastes has to fit as well.
const LIMIT_SHARE: f64 = 0.9;
/// A request that waited this long is turned away from rung 1 on: it could not be answered in time any more, and those
/// behind it would come too late as well.
const PATIENCE_SECS: f64 = 3.5;
/// What an engine that preallocates takes of the card.
const UTILIZATION: f64 = 0.95;

/// How an engine takes memory for its KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// When tokens come; it dies when there is none.
    OnDemand,
    /// Once, when it loads its model; what does not fit is put off.
    Preallocated,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OnDemand, Self::Preallocated];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on_demand",
            Self::Preallocated => "preallocated",
        }
    }
}

/// A ladder's configurations; the first is the person's own.
#[derive(Clone, Debug)]
pub(super) struct Rungs {
    kind: Kind,
    configs: Vec<Config>,
}

impl Rungs {
    /// The ladder of an engine on a card of `usable_bytes`.
    pub(super) fn new(kind: Kind, kv_bytes_per_token: u32, usable_bytes: u64) -> Self {
        let own = Config {
            model: Model {
                name: "benchmark".to_owned(),
                parameters_billions: 8.0,
                quantization: Quantization::None,
            },
            gradient_checkpointing: true,
            max_batch_size: 1024,
            context_length: 1 << 20,
            kv_bytes_per_token,
            kv_cache_dtype: KvCacheDtype::Auto,
            max_batch_total_tokens: 0,
            max_queue_secs: 0.0,
            gpu_memory_utilization: match kind {
                Kind::OnDemand => 0.0,
                Kind::Preallocated => UTILIZATION,
            },
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            load_secs: 0.0,
        };
        let small_cache = Config {
            kv_cache_dtype: KvCacheDtype::Fp8,
            ..own.clone()
        };
        let mut small_weights = small_cache.clone();
        small_weights.model.quantization = Quantization::Int8;
        let limited = |config: &Config| Config {
            max_batch_total_tokens: whole(room_tokens(config, usable_bytes) * LIMIT_SHARE),
            max_queue_secs: PATIENCE_SECS,
            ..config.clone()
        };
        let configs = vec![
            own.clone(),
            limited(&own),
            limited(&small_cache),
            limited(&small_weights),
        ];
        Self { kind, configs }
    }

    pub(super) fn len(&self) -> usize {
        self.configs.len()
    }

    /// The configuration of a rung; beyond the last, that of the last.
    pub(super) fn config(&self, rung: usize) -> &Config {
        &self.configs[rung.min(self.configs.len() - 1)]
    }

    /// Whether one can be had from the other without a restart: only limits differ.
    pub(super) fn is_hot(&self, from: usize, to: usize) -> bool {
        self.is_full_quality(from) && self.is_full_quality(to)
    }

    /// Whether answers are as good as with the person's own configuration.
    pub(super) fn is_full_quality(&self, rung: usize) -> bool {
        let config = self.config(rung);
        config.kv_cache_dtype == KvCacheDtype::Auto && config.model.quantization == Quantization::None
    }

    /// The rules that choose among the rungs, as a person would write them down.
    ///
    /// # Errors
    /// A rule that the tuner refuses.
    pub(super) fn ladder(&self) -> Result<Ladder, LadderError> {
        #[derive(Deserialize)]
        struct File {
            rule: Vec<RuleConfig>,
        }
        let text = match self.kind {
            Kind::OnDemand => include_str!("ladders/on_demand.toml"),
            Kind::Preallocated => include_str!("ladders/preallocated.toml"),
        };
        let file: File = toml_edit::de::from_str(text)?;
        let mut rules = Vec::new();
        for (position, mut rule) in file.rule.into_iter().enumerate() {
            // What an engine prints when it starts: how many tokens fit.
            let limit = |rung: usize| f64::from(self.config(rung).max_batch_total_tokens);
            rule.capacity = (position > 0).then(|| limit(position + 1) / limit(position));
            rules.push(rule.resolve(Cost::Restart)?);
        }
        Ok(Ladder::new("engine", rules)?)
    }
}

/// Why the benchmark's own rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LadderError {
    #[error("reading the benchmark's ladder")]
    Toml(#[from] toml_edit::de::Error),
    #[error("the benchmark's ladder")]
    Rule(#[from] RuleError),
}

/// Tokens that fit into the card, or into the part of it that the engine takes.
pub(super) fn room_tokens(config: &Config, usable_bytes: u64) -> f64 {
    let taken = Config {
        gpu_memory_utilization: if config.preallocates() {
            config.gpu_memory_utilization
        } else {
            1.0
        },
        ..config.clone()
    };
    memory::pool_tokens(&taken, usable_bytes)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens, far below 2^32 and never negative"
)]
fn whole(tokens: f64) -> u32 {
    tokens as u32
}
