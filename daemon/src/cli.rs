//! The command line. Help, completions and the manual page all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use plimsoll_sim::EngineArgs;

/// Records where a GPU's memory and time go while an inference engine serves, and keeps the engine above the line.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole loop on a simulated GPU and engine: no GPU, no configuration, no root
    Demo(Demo),
    /// Run the service
    Daemon {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Record one command as a run, with or without a daemon, and exit with its status
    Run(Run),
    /// Show devices, engines and rules now, as the daemon sees them
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
    Show {
        #[command(flatten)]
        run: RunName,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw the memory timeline of a run as SVG
    Report(Report),
    /// Ask the traces in SQL, read-only; try: SELECT * FROM columns
    Sql(Sql),
    /// Say why a rule did or did not act, or what became of a decision
    Why {
        /// A decision's number or a rule's name; without it, all rules now and the latest decisions
        subject: Option<String>,
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold all acting; sampling and evaluating go on
    Pause {
        #[command(flatten)]
        source: Source,
    },
    /// Act again; with a rule's name, lift its suspension or quarantine
    Resume {
        /// The rule
        rule: Option<String>,
        #[command(flatten)]
        source: Source,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// The simulated inference engine, as the demo and the tests start it
    #[command(hide = true)]
    SimEngine(EngineArgs),
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file [default: $XDG_CONFIG_HOME/plimsoll/plimsoll.toml, then /etc/plimsoll/plimsoll.toml]
    #[arg(long, env = "PLIMSOLL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which database.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The database [default: the one the configuration names]
    #[arg(long, env = "PLIMSOLL_DB", value_name = "PATH")]
    pub(crate) db: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

/// Which run.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunName {
    /// A run's number, its name, or `last`
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How long the load lasts
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=600))]
    pub(crate) seconds: u32,
    /// Where to leave the database, the pictures and the engine's configuration
    #[arg(long, value_name = "DIR", default_value = "plimsoll-demo")]
    pub(crate) out: PathBuf,
    /// Which of many similar loads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The name it gets in the list of runs [default: the command's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// Where to write it; `-` for stdout [default: RUN.svg]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Colors for a light or a dark page, or as the viewer prefers
    #[arg(long, value_enum, default_value_t = Theme::Auto)]
    pub(crate) theme: Theme,
    /// Begin here: seconds into the run ("90s", "10m") or a time (2026-11-22T03:20:00Z)
    #[arg(long, value_name = "T")]
    pub(crate) from: Option<String>,
    /// End here
    #[arg(long, value_name = "T")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Theme {
    Auto,
    Light,
    Dark,
}

#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// The query; `-` reads it from stdin
    pub(crate) query: String,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
    Ndjson,
    Markdown,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
