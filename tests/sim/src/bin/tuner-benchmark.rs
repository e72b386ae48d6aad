//! The tuner against other policies on the accelerated engine; see docs/tuner-benchmark.md.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use plimsoll_sim::benchmark::report;
use plimsoll_sim::benchmark::suite::{self, BenchmarkError, Case};

/// Measures the tuner against other policies on a simulated engine, without processes and in accelerated time.
#[derive(Debug, Parser)]
#[command(name = "tuner-benchmark")]
struct Args {
    /// A CSV file of arrivals with the columns t_s, input_tokens and output_tokens, instead of the synthetic loads.
    #[arg(long, value_name = "FILE.csv")]
    workload: Option<PathBuf>,
    /// Seeds of each family of synthetic loads.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// How long a restart takes, instead of 10, 30 and 90 seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3600))]
    restart_secs: Option<u32>,
    /// Only this family of synthetic loads.
    #[arg(long, value_name = "NAME", value_parser = suite::families(), conflicts_with = "workload")]
    family: Option<String>,
    /// Leaves out the clairvoyant schedule, which takes most of the time.
    #[arg(long)]
    no_clairvoyant: bool,
    /// One JSON object on stdout, and nothing else.
    #[arg(long)]
    json: bool,
}

const RESTARTS_SECS: [f64; 3] = [10.0, 30.0, 90.0];

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tuner-benchmark: {}", plimsoll_sim::chain(&error));
            match error {
                BenchmarkError::Ladder(_) => ExitCode::FAILURE,
                BenchmarkError::Workload(_) | BenchmarkError::Empty(_) | BenchmarkError::Long(..) => {
                    ExitCode::from(2)
                }
            }
        }
    }
}

fn run(args: &Args) -> Result<String, BenchmarkError> {
    let restarts: Vec<f64> = args
        .restart_secs
        .map_or_else(|| RESTARTS_SECS.to_vec(), |secs| vec![f64::from(secs)]);
    let (name, cases) = match &args.workload {
        Some(path) => (path.display().to_string(), suite::of_file(path, &restarts)?),
        None => (
            format!("synthetic, {} seeds", args.seeds),
            suite::synthetic(args.seeds, args.family.as_deref(), &restarts),
        ),
    };
    let results = suite::measure(&cases, restarts.len(), !args.no_clairvoyant)?;
    let measured: Vec<(&Case, Vec<suite::Result>)> = cases.iter().zip(results).collect();
    let requests = cases.iter().map(|case| case.requests);
    let requests = match &args.workload {
        // Each case has the same ones.
        Some(_) => requests.max().unwrap_or(0),
        None => requests.sum(),
    };
    Ok(if args.json {
        report::json(&name, requests, &measured).to_string()
    } else {
        report::markdown(&measured)
    })
}
