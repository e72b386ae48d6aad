//! How large an engine is for a load: fast enough that with endless memory nearly all is answered in time, and with as
//! much memory as a share of the seconds need.

use std::sync::Arc;

use crate::config::Config;
use crate::model::Hardware;
use crate::workload::Workload;

use super::rungs::{Kind, Rungs};
use super::world::{Scenario, World};

const USABLE: u64 = (24 << 30) - (512 << 20);

/// Demand of an engine with endless memory.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The card's speed that it was measured at.
    pub speed: f64,
    /// KV tokens, second by second, sorted.
    pub sorted_tokens: Vec<f64>,
    /// Good requests, of all.
    pub good_ratio: f64,
}

fn endless(workload: &Workload, duration_secs: f64, speed: f64, kv_bytes: u32) -> Demand {
    let workload = Workload { neighbor: Vec::new(), leak_bytes_per_request: 0, ..workload.clone() };
    let total = workload.arrivals.len().max(1) as f64;
    let scenario = Arc::new(Scenario {
        name: String::new(),
        workload,
        duration_secs,
        hardware: Hardware { usable_bytes: 1 << 60, speed },
        rungs: Rungs::new(Kind::OnDemand, kv_bytes, 1 << 50),
        restart_secs: 0.0,
    });
    let mut world = World::new(scenario, 0);
    let mut sorted_tokens = Vec::new();
    while !world.is_over() {
        world.advance(1.0);
        sorted_tokens.push(world.kv_tokens());
    }
    sorted_tokens.sort_unstable_by(f64::total_cmp);
    let good_ratio = world.score().good as f64 / total;
    Demand { speed, sorted_tokens, good_ratio }
}

/// The speed at which at least `good` of the requests that endless memory could serve in time are.
pub fn demand(workload: &Workload, duration_secs: f64, kv_bytes: u32, good: f64) -> Demand {
    let (mut low, mut high) = (0.01, 100.0);
    let best = endless(workload, duration_secs, high, kv_bytes).good_ratio;
    let mut found = None;
    for _ in 0..12 {
        let middle = f64::sqrt(low * high);
        let demand = endless(workload, duration_secs, middle, kv_bytes);
        if demand.good_ratio >= best * good {
            high = middle;
            found = Some(demand);
        } else {
            low = middle;
        }
    }
    found.unwrap_or_else(|| endless(workload, duration_secs, high, kv_bytes))
}

impl Demand {
    /// Tokens that are enough for this share of the seconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted_tokens.len().saturating_sub(1);
        self.sorted_tokens.get(((last as f64) * share) as usize).copied().unwrap_or(0.0)
    }
}

/// An engine and its card, for a load.
pub fn fit(workload: &Workload, duration_secs: f64, share: f64, slack: f64) -> (u32, Hardware, Demand) {
    let config = Config { gpu_memory_utilization: 1.0, ..Rungs::new(Kind::OnDemand, 1, USABLE).config(0).clone() };
    let activation = crate::memory::activation_token_bytes(&config);
    let room = crate::memory::pool_tokens(&config, USABLE) * (1.0 + activation);
    let mut now = demand(workload, duration_secs, 60_000, 0.99);
    let mut kv_bytes = 60_000;
    for _ in 0..5 {
        let tokens = now.quantile(share) * slack;
        kv_bytes = (room / tokens.max(1.0) - activation).clamp(4096.0, 1e9) as u32;
        now = endless(workload, duration_secs, now.speed, kv_bytes);
    }
    (kv_bytes, Hardware { usable_bytes: USABLE, speed: now.speed }, now)
}
