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

    /// Every policy on this case. What another one `cheaper`, with the same load and engine and shorter restarts, came to
    /// without any time down is not simulated again: it is the same here. The clairvoyant schedule takes most of the time.
    fn measure(
        &self,
        cheaper: Option<&[Result]>,
        with_clairvoyant: bool,
    ) -> std::result::Result<Vec<Result>, BenchmarkError> {
        let scenario = &self.scenario;
        let known = |policy: &str| {
            let same = cheaper?.iter().find(|result| result.policy == policy)?;
            same.score.was_never_down().then(|| same.score.clone())
        };
        let mut results: Vec<Result> = Vec::new();
        let mut add = |policy: &str, score: Score| {
            results.push(Result {
                policy: policy.to_owned(),
                score,
            });
        };
        let statics: Vec<Score> = (0..scenario.rungs.len())
            .map(|rung| known(&format!("static_{rung}")).unwrap_or_else(|| fixed(scenario, rung)))
            .collect();
        let tuner = match known("tuner") {
            Some(score) => score,
            None => tuned(scenario)?,
        };
        let schedules: Vec<Score> = if with_clairvoyant {
            // A schedule that needs no restart is the best for those who pay more for one, too.
            let same = WORTHS.iter().map(|worth| known(&clairvoyant_name(*worth)));
            let others: Vec<&Score> = statics.iter().chain([&tuner]).collect();
            same.collect::<Option<_>>()
                .unwrap_or_else(|| clairvoyant(scenario, &WORTHS, &others))
        } else {
            Vec::new()
        };
        add("none", statics.first().cloned().unwrap_or_default());
        add("tuner", tuner);
        for (policy, gap) in [("naive", 0.0), ("naive_hysteresis", SCRIPT_GAP)] {
            add(policy, known(policy).unwrap_or_else(|| script(scenario, gap)));
        }
        for (worth, score) in WORTHS.into_iter().zip(schedules) {
            add(&clairvoyant_name(worth), score);
        }
        for (rung, score) in statics.into_iter().enumerate() {
            add(&format!("static_{rung}"), score);
        }
        Ok(results)
    }
}

/// Every policy on every case, on all cores; `restarts` is how many restart costs the cases were made with.
///
/// # Errors
/// The benchmark's own rules are refused.
pub fn measure(
    cases: &[Case],
    restarts: usize,
    with_clairvoyant: bool,
) -> std::result::Result<Vec<Vec<Result>>, BenchmarkError> {
    // Cases that differ in the restart cost alone are neighbors, the cheapest first.
    let groups: Vec<&[Case]> = cases.chunks(restarts.max(1)).collect();
    let measured = in_parallel("engines", &groups, |group| {
        let mut all: Vec<Vec<Result>> = Vec::new();
        for case in *group {
            let results = case.measure(all.last().map(Vec::as_slice), with_clairvoyant)?;
            all.push(results);
        }
        Ok(all)
    });
    let measured: std::result::Result<Vec<_>, BenchmarkError> = measured.into_iter().collect();
    Ok(measured?.into_iter().flatten().collect())
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
    let workload = Arc::new(workload.clone());
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
                workload: Arc::clone(&workload),
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
fn in_parallel<T: Sync, R: Send>(what: &str, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
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
