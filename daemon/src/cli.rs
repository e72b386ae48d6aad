//! The command line. Help, completions and the manual page all come from here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::commands::PROFILES;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use plimsoll_sim::EngineArgs;
use plimsoll_sim::cuda::CudaArgs;
use plimsoll_trace::TraceTier;
use plimsoll_trace::units::{parse_duration, parse_ratio};

/// Records where a GPU's memory and time go while an inference engine serves, and keeps the engine above the line.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100, arg_required_else_help = true, after_help = FIRST_STEPS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Each kernel of an engine at full speed fills tens of megabytes in that time.
const LONGEST_WINDOW: Duration = Duration::from_secs(30);
const SHORTEST_WINDOW: Duration = Duration::from_millis(250);

const FIRST_STEPS: &str = "\
First steps:
  plimsoll demo                      watch the whole loop, without a GPU
  plimsoll run -- python3 serve.py   record one command
  plimsoll daemon                    record all the time, and act by your rules
  plimsoll report last               draw what happened

Exit status: 0 ok, 1 failed, 2 wrong usage or configuration, 3 no GPU or driver (check), 4 daemon not reachable, \
5 query refused or over its limit, 6 check found a problem; `run` exits with its command's status.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole loop on a simulated GPU and engine: no GPU, no configuration, no root
    Demo(Demo),
    /// Run the service: record all the time, and act by the rules of the configuration
    #[command(after_help = "\
It runs in the foreground until SIGTERM or Ctrl-C; SIGHUP reads the configuration again, and so does saving it. \
PLIMSOLL_LOG chooses what it says on stderr: error, warn, info or debug.")]
    Daemon {
        #[command(flatten)]
        config: ConfigFile,
        /// End when the process that started it ends
        #[arg(long, hide = true)]
        die_with_parent: bool,
    },
    /// Record one command as a run, with or without a daemon, and exit with its status
    Run(Run),
    /// Say what works on this machine and what does not: driver, agent, kernel timing, configuration
    #[command(after_help = "\
Exit status: 0 all works, 3 no GPU or driver, 6 there is a problem. What is a note works with less.")]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented configuration to start with
    #[command(after_help = "\
Examples:
  plimsoll init custom -o plimsoll.toml
  plimsoll check --config plimsoll.toml

What it prints is valid as it is, records everything and changes nothing. A file that is there is never overwritten. \
For an engine that has no profile of its own yet, begin with custom.")]
    Init {
        /// The kind of engine; custom is a server of your own
        #[arg(value_parser = PossibleValuesParser::new(PROFILES.iter().map(|(name, _)| *name)))]
        profile: String,
        /// The file; `-` for stdout [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show devices, engines, agents and rules now, as the daemon sees them
    Status {
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the recorded runs, newest first
    Runs {
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one run: its peak, its processes, what happened, what was decided
    #[command(after_help = "\
--allocator has the helper plimsoll_pytorch in the run's processes walk over all of the allocator's blocks, which holds \
the allocator up for a moment. Of a run that has ended it shows the last that was told.")]
    Show {
        #[command(flatten)]
        run: RunName,
        /// Show its allocators instead: what they hold, what rounding costs, and the largest free block, measured now
        #[arg(long)]
        allocator: bool,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell the agents of a run: record each kernel for a while, or make room for another profiler
    Trace(Trace),
    /// List a run's kernels by GPU time: count, total, share, mean, median, 99th percentile
    Kernels {
        #[command(flatten)]
        run: RunName,
        /// At most so many kernels; 0 is all
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw the memory timeline of a run, alone (SVG) or in a page with all decisions (HTML)
    Report(Report),
    /// Write a run for other tools: Perfetto, CSV, or one JSON object a line
    Export(Export),
    /// Ask the traces in SQL, read-only; try: plimsoll sql 'SELECT * FROM columns'
    Sql(Sql),
    /// Say why a rule did or did not act, or what became of a decision
    Why {
        /// A decision's number or a rule's name [default: all rules now, and the latest decisions]
        subject: Option<String>,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what waits for a person and what the rules would do next: the exact change, the reload, what blocks
    Plan {
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Carry out what a rule in mode advise proposes, with the same checks as a rule in mode act
    #[command(after_help = "\
Exit status: 0 it is kept, 1 it was refused or taken back, 4 no daemon answers.")]
    Apply {
        /// The decision's number or the rule's name
        proposal: String,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what a kept decision did; its rule is silent then until the pressure is over
    #[command(after_help = "\
When nothing was changed on top of it, the file is byte for byte what it was before. It is refused while a later decision is \
in force on top of it: revert that first.

Exit status: 0 it is taken back, 1 it was refused or did not work, 4 no daemon answers.")]
    Revert {
        /// The decision's number
        decision: i64,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at rules: lint them, run their tests, or replay them over a recorded run
    #[command(subcommand)]
    Rules(Rules),
    /// Let no rule act until `resume`, also after a restart of the daemon; recording goes on
    Pause {
        #[command(flatten)]
        source: Source,
    },
    /// Let rules act again after `pause`; or lift one rule's suspension or quarantine
    Resume {
        /// The rule's name, to lift only its own suspension or quarantine
        rule: Option<String>,
        #[command(flatten)]
        source: Source,
    },
    /// Print completions for a shell
    #[command(
        after_help = "For example: plimsoll completions bash > ~/.local/share/bash-completion/completions/plimsoll"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "To read it: plimsoll man | man -l -")]
    Man,
    /// Tries CUPTI out, for `check`; it may crash
    #[command(hide = true)]
    ProbeCupti,
    /// The simulated inference engine, as the demo and the tests start it
    #[command(hide = true)]
    SimEngine(EngineArgs),
    /// The simulated CUDA program, as the tests start it
    #[command(hide = true)]
    SimCuda(CudaArgs),
}

/// Which configuration. The environment is read where the file is looked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file [default: PLIMSOLL_CONFIG, else ~/.config/plimsoll/plimsoll.toml, else
    /// /etc/plimsoll/plimsoll.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which database.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The database [default: PLIMSOLL_DB, else the one the configuration names]
    #[arg(long, value_name = "PATH")]
    pub(crate) db: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

/// Which run.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunName {
    /// The run: its number, its name (the newest of that name), or `last`
    pub(crate) run: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It takes the seconds given and a few more, and leaves about 2 MB; a folder of an earlier demo is used again."
)]
pub(crate) struct Demo {
    /// How long the load lasts, 10 to 600 seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=600))]
    pub(crate) seconds: u32,
    /// The folder for the database, the pictures and the engine's configuration
    #[arg(long, value_name = "DIR", default_value = "plimsoll-demo")]
    pub(crate) out: PathBuf,
    /// The seed of the load: the same number gives the same load again
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "plimsoll run [OPTIONS] -- <CMD>...",
    after_help = "\
Examples:
  plimsoll run -- python3 serve.py --port 8000
  plimsoll run --name nightly -- ./benchmark.sh
  plimsoll run --trace graph -- python3 serve.py     then: plimsoll kernels last

Signals and stdin, stdout and stderr are CMD's. A command that cannot be started gives status 127."
)]
pub(crate) struct Run {
    /// The run's name in the list of runs [default: the command's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What of its GPU work to record: allocations (memory), and kernels with whole CUDA graphs (graph), and every kernel
    /// in short windows (kernels)
    #[arg(long, value_name = "TIER", default_value = "off", value_parser = tier())]
    pub(crate) trace: TraceTier,
    /// The share of the command's time that tracing may cost, such as 2% [default: 1%; 100% is no limit]
    #[arg(long, value_name = "RATIO", value_parser = budget)]
    pub(crate) budget: Option<f64>,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "plimsoll trace <--window D|--yield|--resume> [OPTIONS] <RUN>",
    after_help = "\
Examples:
  plimsoll trace last --window 5s   then: plimsoll export last --format perfetto
  plimsoll trace chat --yield       before nsys, ncu or torch.profiler
  plimsoll trace chat --resume      afterwards

The run must go on, with the agent in it (`plimsoll run --trace`, or three lines in its service: `plimsoll check`). It \
returns when the agents have done it. A window is opened whatever the tier and the budget are. While CUPTI is left to \
another, allocations are not seen either; what is live is unknown from then on."
)]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) run: RunName,
    #[command(flatten)]
    pub(crate) what: TraceWhat,
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TraceWhat {
    /// Record every single kernel from now on, for 250ms to 30s, in steps of 250ms
    #[arg(long, value_name = "D", value_parser = window)]
    pub(crate) window: Option<Duration>,
    /// Stop recording and let another profiler have CUPTI; the agent stays connected
    #[arg(long = "yield")]
    pub(crate) yields: bool,
    /// Record again, after `--yield` or after another profiler took CUPTI over
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll report last
  plimsoll report chat -o chat.html --from 10m --to 1h
  plimsoll report 7 -o night.svg --from \"2026-11-22 03:20\"")]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// The file: .svg for the picture, .html for the page, `-` for the picture on stdout [default: RUN.svg]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also draw what the GPU's time went to, kernel by kernel, into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) flame: Option<PathBuf>,
    /// The picture's colors
    #[arg(long, value_enum, default_value_t = Theme::Auto)]
    pub(crate) theme: Theme,
    /// Where to begin: time into the run ("90s" or "01:30"), time of day ("03:20:00"), or a date and time
    /// ("2026-11-22 03:20")
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Where to end, written likewise
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Theme {
    /// Light or dark, as the viewer prefers
    Auto,
    /// For a light page
    Light,
    /// For a dark page
    Dark,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll export last --format perfetto -o last.json   then open it in ui.perfetto.dev
  plimsoll export chat --format csv --from 10m --to 20m > chat.csv

perfetto has counters of memory, single kernels as far as they were kept, events and decisions. csv has a line for each \
value of a sample, ndjson one for each row of the views; times are nanoseconds since 1970, and an empty field or null is \
unknown.")]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// The file; `-` for stdout [default: stdout, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where to begin, written as for `report`
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Where to end, written likewise
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

const RULES_TEST: &str = "\
FILE has rules as a configuration has them, and tests behind them:

  [[test]]
  name = \"a peak of half a minute\"
  usable = \"24GiB\"
  series = { \"vram.used_ratio\" = \"0.5 x10, 0.5..0.95 over 30s, 95% for 5s, unknown x3, 0.5\" }
  expect = [
    { at = \"30s\", states = { quantize = \"idle\" } },
    { at = \"60s\", decisions = [\"apply quantize\"] },
  ]

The parts of a series follow each other; the last value stays. Readings are what they would be without any rung; what a rung \
saves is taken off while it is in force. docs/tuning.md says more.

Exit status: 0 all tests pass, 1 one fails, 2 the file is not valid.";

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// Say what is valid in the rules and hardly meant: where, why it matters, what to do
    #[command(after_help = "\
Exit status: 0 nothing was found, 2 the configuration is not valid, 6 something was found.")]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try rules out on readings that are written down, and say where they decide otherwise than expected
    #[command(after_help = RULES_TEST)]
    Test {
        /// The file with rules and tests
        file: PathBuf,
        /// Take the rules from this configuration instead
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what rules would have decided in a recorded run
    Replay(RulesReplay),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll rules replay last                          the rules of then: each decision is found again
  plimsoll rules replay last --rules new.toml         what other rules would have done
  plimsoll rules replay chat --against new.toml       the rules of then beside other ones

Up to the first action that was not taken then, or was taken then only, the samples are what the rules would have seen: \
that part is exact. After it the readings of memory and of the KV cache are moved by what the rungs are known or said to \
do: that part is an estimate, and called so.

FILE is a configuration; engines' sections may be left out, and a rule then costs a restart unless it says otherwise.")]
pub(crate) struct RulesReplay {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// The rules [default: those of `--config` where that is given, else those that were in force then, else those of the
    /// configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Rules to compare with
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A trace that opens in ui.perfetto.dev and chrome://tracing
    Perfetto,
    /// Comma-separated, one value a line
    Csv,
    /// One object a line
    Ndjson,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll sql 'SELECT * FROM columns'   what there is to ask
  plimsoll sql 'SELECT name, outcome, peak_used_bytes FROM runs'
  plimsoll sql --format csv - < query.sql

A query can read and do nothing else, for at most 3 s, 100,000 rows and 256 MiB. Times are nanoseconds since 1970, \
ratios lie between 0 and 1, and NULL is unknown.")]
pub(crate) struct Sql {
    /// The query; `-` reads it from stdin
    pub(crate) query: String,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people, as wide as the terminal
    Table,
    /// Comma-separated, with a header; NULL is an empty field
    Csv,
    /// One list of objects
    Json,
    /// One object a line
    Ndjson,
    /// A table for a ticket or a wiki
    Markdown,
}

fn tier() -> impl TypedValueParser<Value = TraceTier> {
    let words = PossibleValuesParser::new(TraceTier::ALL.iter().map(|tier| tier.as_str()));
    words.try_map(|word| word.parse::<TraceTier>())
}

fn budget(text: &str) -> Result<f64, String> {
    match parse_ratio(text) {
        Ok(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(ratio),
        Ok(_) => Err("it must lie above 0 and be at most 100%".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(length) if (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&length) => Ok(length),
        Ok(_) => Err("it must lie between 250ms and 30s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
