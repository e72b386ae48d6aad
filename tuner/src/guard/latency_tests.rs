//! The judge over generated loads: good changes stay, bad ones do not.

use super::*;

/// A small generator of chance (splitmix64), so that every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of mean 0 and variance 1, near enough to normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.next(), 0);
        while product > limit {
            product *= self.next();
            count += 1;
        }
        count
    }
}

/// An engine under a stationary load whose latencies are lognormal, and go up and down together for some seconds.
struct Load {
    random: Random,
    at: i64,
    per_sec: f64,
    median_secs: f64,
    spread: f64,
    /// How far the slow wave of the moment lies from its mean, and how much of it stays each second.
    wave: f64,
    stays: f64,
    wave_size: f64,
    lost_share: f64,
    counts: [Vec<f64>; 2],
    finished: f64,
    refused: f64,
}

const BOUNDS: [f64; 14] = [
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.4,
    0.75,
    1.5,
    3.0,
    10.0,
    f64::INFINITY,
];

impl Load {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let per_sec = 0.7 + 12.0 * random.next();
        let (median_secs, spread) = (0.05 + 0.8 * random.next(), 0.2 + 0.6 * random.next());
        Self {
            per_sec,
            median_secs,
            spread,
            stays: 0.9 * random.next(),
            wave_size: 0.15 * random.next(),
            lost_share: 0.02 * random.next(),
            random,
            at: 0,
            wave: 0.0,
            counts: [vec![0.0; BOUNDS.len()], vec![0.0; BOUNDS.len()]],
            finished: 0.0,
            refused: 0.0,
        }
    }

    /// One second, with latencies so many times as long.
    fn second(&mut self, slower: f64) -> EngineFigures {
        self.at += 1;
        let rest = (1.0 - self.stays * self.stays).sqrt();
        self.wave = self.stays * self.wave + rest * self.random.normal();
        for _ in 0..self.random.poisson(self.per_sec) {
            if self.random.next() < self.lost_share {
                self.refused += 1.0;
                continue;
            }
            self.finished += 1.0;
            for (index, scale) in [1.0, 0.1].into_iter().enumerate() {
                let log = self.spread * self.random.normal() + self.wave_size * self.wave;
                let secs = slower * scale * self.median_secs * log.exp();
                let counts = BOUNDS.iter().zip(&mut self.counts[index]);
                counts
                    .filter(|(bound, _)| secs <= **bound)
                    .for_each(|(_, count)| *count += 1.0);
            }
        }
        let histogram =
            |counts: &[f64]| Histogram::new(BOUNDS.into_iter().zip(counts.iter().copied()).collect());
        EngineFigures {
            at: Stamp::at_secs(self.at),
            waiting: Some(0.0),
            finished: Some(self.finished),
            refused: Some(self.refused),
            ttft: histogram(&self.counts[0]),
            tpot: histogram(&self.counts[1]),
            ..EngineFigures::default()
        }
    }

    fn judge(&mut self, before_secs: u32) -> Result<LatencyJudge, Missing> {
        let figures: Vec<_> = (0..before_secs).map(|_| self.second(1.0)).collect();
        let from = Stamp::at_secs(self.at);
        Ok(LatencyJudge::new(Baseline::of(&figures)?, 0.2, from))
    }
}

/// What the judge says within so many seconds after the change.
fn watched(load: &mut Load, judge: &mut LatencyJudge, secs: u32, slower: f64) -> [Finding; 2] {
    for _ in 0..secs {
        if judge.add(&load.second(slower)) {
            break;
        }
    }
    judge.guards().map(|guard| guard.finding)
}

#[test]
fn five_hundred_good_changes_at_a_noisy_load_all_stay() {
    let (mut judged, mut passed) = (0, 0);
    for seed in 0..500 {
        let mut load = Load::new(seed);
        // Changes that make the engine a little faster or slower are good ones too.
        let slower = 0.85 + 0.2 * load.random.next();
        let Ok(mut judge) = load.judge(180) else {
            continue;
        };
        judged += 1;
        let findings = watched(&mut load, &mut judge, 300, slower);
        assert!(
            !findings.contains(&Finding::Fail),
            "seed {seed}: {:?}",
            judge.guards()
        );
        passed += usize::from(findings[0] == Finding::Pass);
    }
    assert!(judged >= 490, "{judged}");
    // So a restart, which an open question takes back, stays as well.
    assert_eq!(passed, judged);
}

#[test]
fn latencies_that_double_are_found() {
    let mut found = 0;
    for seed in 0..200 {
        let mut load = Load::new(seed);
        load.per_sec = load.per_sec.max(3.0);
        let mut judge = load.judge(120).unwrap_or_else(|missing| panic!("{missing:?}"));
        let [latency, _] = watched(&mut load, &mut judge, 90, 2.0);
        found += usize::from(latency == Finding::Fail);
        assert_ne!(latency, Finding::Pass, "seed {seed}");
    }
    assert!(found >= 190, "{found} of 200");
}

#[test]
fn lost_requests_are_found() {
    for seed in 0..100 {
        let mut load = Load::new(seed);
        load.per_sec = load.per_sec.max(3.0);
        let mut judge = load.judge(120).unwrap_or_else(|missing| panic!("{missing:?}"));
        load.lost_share = 0.3;
        let [_, errors] = watched(&mut load, &mut judge, 90, 1.0);
        assert_eq!(errors, Finding::Fail, "seed {seed}: {:?}", judge.guards());
    }
}

#[test]
fn another_load_cannot_be_compared() {
    let mut load = Load::new(7);
    load.per_sec = 6.0;
    let mut judge = load.judge(120).unwrap_or_else(|missing| panic!("{missing:?}"));
    load.per_sec = 30.0;
    let [latency, _] = watched(&mut load, &mut judge, 60, 3.0);
    assert_eq!(latency, Finding::Inconclusive, "{:?}", judge.guards());
    assert!(judge.guards()[0].able && judge.guards()[0].said.contains("another"));
}

#[test]
fn a_baseline_needs_time_and_requests() {
    let mut load = Load::new(1);
    load.per_sec = 5.0;
    let figures: Vec<_> = (0..100).map(|_| load.second(1.0)).collect();
    assert_eq!(Baseline::of(&[]), Err(Missing::TooShort { secs: 0.0 }));
    assert_eq!(
        Baseline::of(&figures[..31]),
        Err(Missing::TooShort { secs: 30.0 })
    );
    assert!(Baseline::of(&figures).is_ok_and(|baseline| baseline.arrivals_per_sec() > 3.0));
    let mut idle = Load::new(2);
    idle.per_sec = 0.1;
    let figures: Vec<_> = (0..100).map(|_| idle.second(1.0)).collect();
    assert!(matches!(Baseline::of(&figures), Err(Missing::TooFew { requests }) if requests < 30.0));
    // It does not reach back over a start of the engine.
    let mut restarted = figures.clone();
    restarted.extend((0..20).map(|second| EngineFigures {
        at: Stamp::at_secs(200 + second),
        finished: Some(0.0),
        ..load.second(1.0)
    }));
    assert!(matches!(Baseline::of(&restarted), Err(Missing::TooShort { secs }) if secs < 60.0));
}
