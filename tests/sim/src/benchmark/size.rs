//! How large an engine is for a load: fast enough that with endless memory nearly all is answered in time, and with as
//! much room for its KV cache that a share of the requests finds it.

use std::sync::Arc;

use super::rungs::{Kind, Rungs, room_tokens};
use super::world::{Scenario, World};
use crate::memory;
use crate::model::Hardware;
use crate::workload::Workload;

/// Memory of the card that processes can have: 24 GiB less what the driver keeps.
const USABLE_BYTES: u64 = (24 << 30) - (512 << 20);
/// With endless memory, at least this share of what an endlessly fast card answers in time is answered in time.
const GOOD_SHARE: f64 = 0.99;
/// An engine that answers less than this part of that, because what it keeps for each token turned out so large that reading
/// it takes long, gets a faster card.
const FAR_TOO_SLOW: f64 = 0.9;
/// Bounds of the card's speed, and of the KV cache of a token in bytes.
const SPEEDS: (f64, f64) = (0.02, 50.0);
const KV_BYTES: (f64, f64) = (4_096.0, 1e9);

/// How well an engine's memory suits its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// There is always room, and a tenth more.
    Roomy,
    /// There is room when 99 % of the requests come.
    Tight,
    /// There is room when 90 % of the requests come.
    Short,
}

impl Size {
    /// All, largest first.
    pub const ALL: [Self; 3] = [Self::Roomy, Self::Tight, Self::Short];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Roomy => "roomy",
            Self::Tight => "tight",
            Self::Short => "short",
        }
    }

    /// For which share of the requests there is room, and how many times as much.
    const fn room(self) -> (f64, f64) {
        match self {
            Self::Roomy => (1.0, 1.1),
            Self::Tight => (0.99, 1.0),
            Self::Short => (0.9, 1.0),
        }
    }
}

/// An engine and its card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) kv_bytes_per_token: u32,
    pub(super) hardware: Hardware,
}

/// What a load needs.
struct Demand {
    /// Tokens in the KV cache, one value a second, sorted, with the requests that came in that second.
    tokens: Vec<(f64, usize)>,
    good: u64,
}

/// Chooses engines for a load, one for each size.
pub(super) fn fit(workload: &Workload, duration_secs: f64, sizes: &[Size]) -> Vec<(Size, Fit)> {
    // Others on the card are no part of what the engine is bought for.
    let workload = Arc::new(Workload {
        arrivals: workload.arrivals.clone(),
        ..Workload::default()
    });
    let own = Rungs::new(Kind::OnDemand, 1, USABLE_BYTES);
    let activation = memory::activation_token_bytes(&own.config(super::rungs::Taken::default()));
    let room_bytes =
        room_tokens(&own.config(super::rungs::Taken::default()), USABLE_BYTES) * (1.0 + activation);
    // The cache of a token changes the speed at which tokens come, and that what is in flight: a fixed point.
    let middling = 65_536;
    let (middling_speed, wanted) = slowest(&workload, duration_secs, middling);
    let of_size = |size: &Size| {
        let (share, times) = size.room();
        let (mut kv_bytes_per_token, mut speed) = (middling, middling_speed);
        for _ in 0..3 {
            let mut good = 0.0;
            for _ in 0..4 {
                let demand = endless(&workload, duration_secs, kv_bytes_per_token, speed);
                let tokens = quantile(&demand.tokens, share) * times;
                let bytes = room_bytes / tokens.max(1.0) - activation;
                kv_bytes_per_token = whole(bytes.clamp(KV_BYTES.0, KV_BYTES.1));
                good = demand.good as f64;
            }
            if good >= wanted * FAR_TOO_SLOW {
                break;
            }
            speed = slowest(&workload, duration_secs, kv_bytes_per_token).0;
        }
        let hardware = Hardware {
            usable_bytes: USABLE_BYTES,
            speed,
        };
        let fit = Fit {
            kv_bytes_per_token,
            hardware,
        };
        (*size, fit)
    };
    sizes.iter().map(of_size).collect()
}

/// The lowest speed that suffices, and how many requests it has to answer in time.
fn slowest(workload: &Arc<Workload>, duration_secs: f64, kv_bytes_per_token: u32) -> (f64, f64) {
    let good = |speed| endless(workload, duration_secs, kv_bytes_per_token, speed).good as f64;
    let (mut low, mut high) = SPEEDS;
    let wanted = good(high) * GOOD_SHARE;
    for _ in 0..12 {
        let middle = f64::sqrt(low * high);
        if good(middle) >= wanted {
            high = middle;
        } else {
            low = middle;
        }
    }
    (high, wanted)
}

fn endless(workload: &Arc<Workload>, duration_secs: f64, kv_bytes_per_token: u32, speed: f64) -> Demand {
    let scenario = Scenario {
        workload: Arc::clone(workload),
        duration_secs,
        hardware: Hardware {
            usable_bytes: 1 << 60,
            speed,
        },
        rungs: Rungs::new(Kind::OnDemand, kv_bytes_per_token, 1 << 50),
        restart_secs: 0.0,
    };
    let mut world = World::new(Arc::new(scenario), 0);
    let mut tokens = Vec::new();
    while !world.is_over() {
        let before = world.arrived();
        world.advance(1.0);
        tokens.push((world.kv_tokens(), world.arrived() - before));
    }
    tokens.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    Demand {
        tokens,
        good: world.score().good,
    }
}

/// Tokens that are not exceeded when this share of the requests comes.
fn quantile(sorted: &[(f64, usize)], share: f64) -> f64 {
    let all: usize = sorted.iter().map(|(_, requests)| requests).sum();
    let mut passed = 0;
    let reaches = |(_, requests): &&(f64, usize)| {
        passed += requests;
        passed as f64 >= all as f64 * share
    };
    let found = sorted.iter().find(reaches).or(sorted.last());
    found.map_or(0.0, |(tokens, _)| *tokens)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes within bounds"
)]
const fn whole(bytes: f64) -> u32 {
    bytes as u32
}
