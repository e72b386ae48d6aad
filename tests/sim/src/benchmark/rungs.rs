//! The configurations of an engine's ladder, from the person's own to the most reduced, and the rules that choose.
//!
//! | rung | configuration | costs |
//! |---|---|---|
//! | 0 | the person's own: as many requests as come; what does not fit into a pool is put off | |
//! | 1 | a limit on the tokens that run, and on how long a request may wait | hot |
//! | 2 | KV cache in 8 bits, limits as in 1 for what then fits | restart, quality |
//! | 3 | weights in 8 bits as well | restart, quality |
//!
//! On demand the limit has several steps, which leave room to others on the card and to leaks; they are taken on any rung
//! from 1 on. Besides, the engine can be restarted as it is.

use plimsoll_tuner::rule::{Cost, RuleError};
use plimsoll_tuner::{Ladder, RuleConfig};
use serde::Deserialize;

use crate::config::{Config, KvCacheDtype, Model, Quantization};
use crate::memory;

/// A request that waited this long is turned away from rung 1 on: it could not be answered in time any more, and those
/// behind it would come too late as well.
const PATIENCE_SECS: f64 = 4.0;
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

impl Kind {
    /// Share of what fits that the limit on running tokens allows, prompts and answers counted in full. What is taken on
    /// demand must fit at its highest; a pool that is too full puts somebody off.
    const fn limit_share(self) -> f64 {
        match self {
            Self::OnDemand => 0.95,
            Self::Preallocated => 1.1,
        }
    }

    /// Memory that each of the limits leaves to others and to leaks, in bytes. A pool is the engine's, whoever comes.
    const fn reserves(self) -> &'static [u64] {
        match self {
            Self::OnDemand => &[
                0,
                1000 << 20,
                1100 << 20,
                1100 << 20,
                2000 << 20,
                2200 << 20,
                3300 << 20,
                3300 << 20,
                4400 << 20,
                4400 << 20,
                5400 << 20,
            ],
            Self::Preallocated => &[0],
        }
    }
}

/// How good the answers are.
const QUALITIES: [(KvCacheDtype, Quantization); 3] = [
    (KvCacheDtype::Auto, Quantization::None),
    (KvCacheDtype::Fp8, Quantization::None),
    (KvCacheDtype::Fp8, Quantization::Int8),
];

/// The rungs that are taken: of those that limit what runs the highest, and of those that cost quality. None at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    limits: usize,
    quality: usize,
}

impl Taken {
    /// Whether answers are as good as with the person's own configuration.
    pub(super) const fn is_full_quality(self) -> bool {
        self.quality == 0
    }

    /// Whether one can be had from the other without a restart: only limits differ.
    pub(super) const fn is_hot(self, to: Self) -> bool {
        self.quality == to.quality
    }

    /// Whether the engine does less, or worse, than with the other.
    pub(super) const fn is_below(self, other: Self) -> bool {
        self.quality > other.quality || self.quality == other.quality && self.limits > other.limits
    }
}

/// A ladder's configurations. Rung 0 is the person's own, then come the limits and then the qualities, as in its rules.
#[derive(Clone, Debug)]
pub(super) struct Rungs {
    kind: Kind,
    kv_bytes_per_token: u32,
    usable_bytes: u64,
}

impl Rungs {
    /// The ladder of an engine on a card of `usable_bytes`.
    pub(super) const fn new(kind: Kind, kv_bytes_per_token: u32, usable_bytes: u64) -> Self {
        Self {
            kind,
            kv_bytes_per_token,
            usable_bytes,
        }
    }

    /// How many rungs there are, the person's own included: that, limits, and the two that cost quality.
    pub(super) const fn len(&self) -> usize {
        1 + QUALITIES.len()
    }

    /// What is taken on a rung that is held for ever.
    pub(super) const fn taken(&self, rung: usize) -> Taken {
        Taken {
            limits: if rung > 0 { 1 } else { 0 },
            quality: rung.saturating_sub(1),
        }
    }

    /// The limits on demand that leave something to others, as many as make a difference for a schedule.
    pub(super) fn lower_limits(&self) -> impl Iterator<Item = Taken> {
        let all = self.kind.reserves().len();
        let chosen = if all > 1 { vec![all / 2, all] } else { Vec::new() };
        chosen.into_iter().map(|limits| Taken { limits, quality: 0 })
    }

    /// The rung that this belongs to. All limits are one rung: how low they are follows what else is on the card.
    pub(super) const fn rung(&self, taken: Taken) -> usize {
        if taken.quality > 0 {
            1 + taken.quality
        } else if taken.limits > 0 {
            1
        } else {
            0
        }
    }

    /// What is taken when these rules are, by their positions in the ladder, counted from 1.
    pub(super) fn all(&self, rules: impl Iterator<Item = usize>) -> Taken {
        let limits = self.kind.reserves().len();
        rules.fold(Taken::default(), |taken, rule| Taken {
            limits: taken.limits.max(if rule <= limits { rule } else { 0 }),
            quality: taken.quality.max(rule.saturating_sub(limits)),
        })
    }

    /// The engine's configuration.
    pub(super) fn config(&self, taken: Taken) -> Config {
        let (kv_cache_dtype, quantization) = QUALITIES.get(taken.quality).copied().unwrap_or_default();
        let mut config = Config {
            model: Model {
                name: "benchmark".to_owned(),
                parameters_billions: 8.0,
                quantization,
            },
            gradient_checkpointing: true,
            max_batch_size: 1024,
            context_length: 1 << 20,
            kv_bytes_per_token: self.kv_bytes_per_token,
            kv_cache_dtype,
            max_batch_total_tokens: 0,
            max_queue_secs: 0.0,
            gpu_memory_utilization: match self.kind {
                Kind::OnDemand => 0.0,
                Kind::Preallocated => UTILIZATION,
            },
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            load_secs: 0.0,
        };
        let reserve = taken
            .limits
            .checked_sub(1)
            .and_then(|limit| self.kind.reserves().get(limit));
        if let Some(reserve) = reserve {
            let left = self.usable_bytes.saturating_sub(*reserve);
            config.max_batch_total_tokens = whole(room_tokens(&config, left) * self.kind.limit_share());
            config.max_queue_secs = PATIENCE_SECS;
        }
        config
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
            let limit = |taken: Taken| f64::from(self.config(taken).max_batch_total_tokens);
            let own = self.all(std::iter::once(position + 1).chain([1]));
            let before = match own.quality {
                0 | 1 => self.taken(1),
                quality => self.taken(quality),
            };
            let is_rung = position > 0 && !rule.restart;
            rule.capacity = is_rung.then(|| limit(own) / limit(before).max(1.0));
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
