//! The configurations of an engine's ladder, from the person's own to the most reduced.

use crate::config::{Config, KvCacheDtype, Quantization};

/// How an engine takes memory for its KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// When tokens come; it dies when there is none.
    OnDemand,
    /// Once, when it loads its model; what does not fit is put off.
    Preallocated,
}

/// A ladder's configurations; the first is the person's own.
#[derive(Clone, Debug)]
pub struct Rungs {
    configs: Vec<Config>,
}

impl Rungs {
    /// The ladder of an engine on a card of `usable_bytes`.
    #[must_use]
    pub fn new(kind: Kind, kv_bytes_per_token: u32, usable_bytes: u64) -> Self {
        let base = Config {
            gradient_checkpointing: true,
            max_batch_size: 1024,
            context_length: 1 << 20,
            kv_bytes_per_token,
            load_secs: 0.0,
            gpu_memory_utilization: match kind {
                Kind::OnDemand => 0.0,
                Kind::Preallocated => 0.95,
            },
            ..Config::parse("model: {name: a}", crate::config::Format::Yaml).expect("valid")
        };
        let fp8 = |config: &Config| Config {
            kv_cache_dtype: KvCacheDtype::Fp8,
            ..config.clone()
        };
        let int8 = |config: &Config| {
            let mut config = config.clone();
            config.model.quantization = Quantization::Int8;
            config
        };
        let capped = |config: &Config, share: f64| {
            let room = crate::memory::pool_tokens(
                &Config {
                    gpu_memory_utilization: 1.0,
                    ..config.clone()
                },
                usable_bytes,
            );
            Config {
                max_batch_total_tokens: (room * share) as u32,
                max_waiting_requests: std::env::var("Q").map_or(512, |q| q.parse().unwrap()),
                ..config.clone()
            }
        };
        let share = match kind {
            Kind::OnDemand => 0.9,
            Kind::Preallocated => 0.95,
        };
        Self {
            configs: vec![
                base.clone(),
                capped(&base, share),
                capped(&fp8(&base), share),
                capped(&int8(&fp8(&base)), share),
            ],
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.configs.len()
    }

    /// The configuration of a rung.
    #[must_use]
    pub fn config(&self, rung: usize) -> &Config {
        &self.configs[rung]
    }

    /// Whether one can be had from the other without a restart.
    #[must_use]
    pub fn is_hot(&self, from: usize, to: usize) -> bool {
        self.is_full_quality(from) && self.is_full_quality(to)
    }

    /// Whether answers are as good as with the person's own configuration.
    #[must_use]
    pub fn is_full_quality(&self, rung: usize) -> bool {
        let config = self.config(rung);
        config.kv_cache_dtype == KvCacheDtype::Auto && config.model.quantization == Quantization::None
    }
}
