//! Which loads and engines are measured, and every policy on each of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clairvoyant::clairvoyant;
use super::fixed::fixed;
use super::rungs::{Kind, LadderError, Rungs};
use super::score::Score;
use super::script::script;
use super::size::{Fit, Size, fit};
use super::tuned::tuned;
use super::world;
use crate::scenario;
use crate::workload::{Workload, WorkloadError};

/// What a degraded answer may be worth to somebody, of a full one.
pub const WORTHS: [f64; 3] = [0.5, 0.8, 0.95];
/// Points of a ratio that the script with hysteresis waits for.
const SCRIPT_GAP: f64 = 0.15;
/// After the last request: as long as the longest good answer takes.
const TAIL_SECS: f64 = 120.0;
/// The longest load that is simulated, in seconds.
const LONGEST_SECS: f64 = 172_800.0;
/// Families of synthetic loads, and for how long each is simulated.
const FAMILIES: [(scenario::Scenario, &str, f64); 6] = [
    (scenario::Scenario::Steady, "steady", 3_600.0),
    (scenario::Scenario::Diurnal, "diurnal", 10_800.0),
    (scenario::Scenario::Bursts, "bursts", 3_600.0),
    (scenario::Scenario::LongContexts, "long contexts", 3_600.0),
    (scenario::Scenario::Leak, "leak", 3_600.0),
    (scenario::Scenario::Neighbor, "neighbor", 3_600.0),
];

/// One load on one engine.
#[derive(Debug)]
pub struct Case {
    /// What people call it.
    pub name: String,
    /// The family or file that the load is from.
    pub family: String,
    /// How well the engine's memory suits its load.
    pub size: Size,
    /// How the engine takes memory.
    pub kind: Kind,
    /// From the first request to the last, in hours.
    pub hours: f64,
    /// Requests.
    pub requests: usize,
    scenario: Arc<world::Scenario>,
}

/// What a policy came to.
#[derive(Debug)]
pub struct Result {
    /// The policy's name.
    pub policy: String,
    /// What became of the load.
    pub score: Score,
}

impl Case {
    /// How long a restart takes until the model answers, in seconds.
    #[must_use]
    pub fn restart_secs(&self) -> f64 {
        self.scenario.restart_secs
    }

    /// Every policy on this case; the clairvoyant schedule takes most of the time.
    ///
    /// # Errors
    /// The benchmark's own rules are refused.
    pub fn measure(&self, with_clairvoyant: bool) -> std::result::Result<Vec<Result>, BenchmarkError> {
        let scenario = &self.scenario;
        let mut results = Vec::new();
        let mut add = |policy: &str, score: Score| {
            results.push(Result {
                policy: policy.to_owned(),
                score,
            });
        };
        let statics: Vec<Score> = (0..scenario.rungs.len())
            .map(|rung| fixed(scenario, rung))
            .collect();
        add("none", statics.first().cloned().unwrap_or_default());
        add("tuner", tuned(scenario)?);
        add("naive", script(scenario, 0.0));
        add("naive_hysteresis", script(scenario, SCRIPT_GAP));
        let schedules = if with_clairvoyant {
            clairvoyant(scenario, &WORTHS, &statics)
        } else {
            Vec::new()
        };
        for (worth, score) in WORTHS.into_iter().zip(schedules) {
            add(&clairvoyant_name(worth), score);
        }
        for (rung, score) in statics.into_iter().enumerate() {
            add(&format!("static_{rung}"), score);
        }
        Ok(results)
    }
}

/// The clairvoyant schedule's name in results; the plain one is for the middle worth.
#[must_use]
pub fn clairvoyant_name(worth: f64) -> String {
    let [_, middle, _] = WORTHS;
    if (worth - middle).abs() < f64::EPSILON {
        "clairvoyant".to_owned()
    } else {
        format!("clairvoyant_{worth}")
    }
}

/// Every case of a file of arrivals.
///
/// # Errors
/// The file cannot be read or has no arrivals.
pub fn of_file(path: &Path, restarts_secs: &[f64]) -> std::result::Result<Vec<Case>, BenchmarkError> {
    let mut workload = Workload::read(path)?;
    let Some((first, last)) = workload.arrivals.first().zip(workload.arrivals.last()) else {
        return Err(BenchmarkError::Empty(path.display().to_string()));
    };
    // A file may begin at any time, such as that of the wall clock.
    let (first_secs, span_secs) = (first.at_secs, last.at_secs - first.at_secs);
    if span_secs > LONGEST_SECS {
        return Err(BenchmarkError::Long(
            path.display().to_string(),
            span_secs / 3_600.0,
        ));
    }
    workload
        .arrivals
        .iter_mut()
        .for_each(|arrival| arrival.at_secs -= first_secs);
    let name = path
        .file_stem()
        .map_or_else(|| "file".into(), |stem| stem.to_string_lossy());
    Ok(cases(&name, &name, &workload, restarts_secs, &Size::ALL))
}

/// Names of the families of synthetic loads.
#[must_use]
pub fn families() -> [&'static str; 6] {
    FAMILIES.map(|(_, name, _)| name)
}

/// Every case of the synthetic families, or of one: each seed has the engine of one size, in turn.
#[must_use]
pub fn synthetic(seeds: u64, family: Option<&str>, restarts_secs: &[f64]) -> Vec<Case> {
    let wanted = |position: &usize| {
        let name = FAMILIES.get(*position).map(|(_, name, _)| *name);
        family.is_none() || family == name
    };
    let loads: Vec<(usize, u64)> = (0..FAMILIES.len())
        .filter(wanted)
        .flat_map(|family| (1..=seeds).map(move |seed| (family, seed)))
        .collect();
    let made = in_parallel("loads", &loads, |(family, seed)| {
        let (scenario, family, duration_secs) = FAMILIES[*family];
        let workload = scenario.workload(*seed, duration_secs);
        let position = usize::try_from(*seed).unwrap_or(0) % Size::ALL.len();
        let size = Size::ALL[position];
        cases(
            family,
            &format!("{family} {seed}"),
            &workload,
            restarts_secs,
            &[size],
        )
    });
    made.into_iter().flatten().collect()
}

fn cases(family: &str, name: &str, workload: &Workload, restarts_secs: &[f64], sizes: &[Size]) -> Vec<Case> {
    let last_secs = workload.arrivals.last().map_or(0.0, |arrival| arrival.at_secs);
    let duration_secs = last_secs + TAIL_SECS;
    let fits = fit(workload, duration_secs, sizes);
    let case = |(size, fit): (Size, Fit), kind: Kind, restart_secs: f64| {
        let rungs = Rungs::new(kind, fit.kv_bytes_per_token, fit.hardware.usable_bytes);
        Case {
            name: format!("{name}, {}, {}", size.as_str(), kind.as_str()),
            family: family.to_owned(),
            size,
            kind,
            hours: last_secs / 3_600.0,
            requests: workload.arrivals.len(),
            scenario: Arc::new(world::Scenario {
                workload: workload.clone(),
                duration_secs,
                hardware: fit.hardware,
                rungs,
                restart_secs,
            }),
        }
    };
    let mut cases = Vec::new();
    for fit in fits {
        for kind in Kind::ALL {
            cases.extend(
                restarts_secs
                    .iter()
                    .map(|restart_secs| case(fit, kind, *restart_secs)),
            );
        }
    }
    cases
}

/// Does something with each on all cores; the results are in order, whoever finished first. Says on stderr how far it is.
pub fn in_parallel<T: Sync, R: Send>(what: &str, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tell = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done * 20 / items.len() != (done - 1) * 20 / items.len() {
            eprintln!("{what}: {done} of {}", items.len());
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let work = || {
            let mut own = Vec::new();
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(position) else {
                    return own;
                };
                own.push((position, each(item)));
                tell();
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.sort_unstable_by_key(|(position, _)| *position);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Why there is no benchmark.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// The file of arrivals cannot be used.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The file has no arrivals.
    #[error("{0} has a header and no requests below it")]
    Empty(String),
    /// The file's arrivals are too far apart to be simulated second by second.
    #[error("{0} spans {1:.0} hours; at most 48 are simulated, so cut it or check that t_s is in seconds")]
    Long(String, f64),
    /// The benchmark's own rules are refused.
    #[error(transparent)]
    Ladder(#[from] RefusedLadder),
}

/// The benchmark's own rules are refused.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RefusedLadder(LadderError);

impl From<LadderError> for BenchmarkError {
    fn from(error: LadderError) -> Self {
        Self::Ladder(RefusedLadder(error))
    }
}
