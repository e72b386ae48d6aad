//! The command line of the engine process.

use std::path::PathBuf;

use crate::scenario::Scenario;

/// How an engine process is started. All seconds are seconds of the simulated world.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Configuration file: .yaml, .json or .toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// State file of the simulated GPU
    #[arg(long, value_name = "FILE")]
    pub gpu: PathBuf,
    /// Index of the device to serve on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Load from a file with the columns t_s,input_tokens,output_tokens
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "seed"])]
    pub workload: Option<PathBuf>,
    /// Load made by a family of loads; default: steady if there is a seed, else no load at all
    #[arg(long, value_enum, value_name = "NAME")]
    pub scenario: Option<Scenario>,
    /// Which load of the family; default: 0
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long the family's load lasts
    #[arg(long, value_name = "SECS", default_value_t = 3600.0)]
    pub duration: f64,
    /// When the load began, in ns since the Unix epoch, not in the future; default: as the journal says, or now
    #[arg(long, value_name = "NS")]
    pub epoch_ns: Option<i64>,
    /// Seconds of the simulated world in one second
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub speed: f64,
    /// Where to write the port of the HTTP server once it listens
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Where to keep the books from one life to the next. Without it an engine knows nothing of what came before it
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Install no handler for SIGHUP, so that it ends the process
    #[arg(long)]
    pub no_hup: bool,
    /// What goes wrong at a reload
    #[arg(long, value_enum, value_name = "KIND")]
    pub reload_fault: Option<ReloadFault>,
    /// At how many reloads it goes wrong, from the first one on; default: at all of them
    #[arg(long, value_name = "N", requires = "reload_fault")]
    pub reload_fault_times: Option<u32>,
    /// End when the parent ends
    #[arg(long)]
    pub die_with_parent: bool,
}

/// What goes wrong at a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReloadFault {
    /// The answer is 200, /health too, but the model is gone and requests fail.
    Unload,
    /// The model comes back, /health stays at 503.
    Unhealthy,
    /// The process dies.
    Crash,
    /// The reload never ends.
    Hang,
    /// The new values are said to be applied, the memory stays as it was.
    NoEffect,
}
