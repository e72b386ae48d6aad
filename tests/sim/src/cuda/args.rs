//! The command line of the simulated CUDA program.

use std::path::PathBuf;

/// What a CUDA program does. All its processes together make exactly so many launches, and say so at their end.
#[derive(Clone, Debug, clap::Args)]
pub struct CudaArgs {
    /// Threads of each process, each with a stream of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Processes, this one included
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: u32,
    /// Launches of all threads and processes together
    #[arg(long, value_name = "TOTAL", default_value_t = 10_000)]
    pub launches: u64,
    /// Kernels with different names
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub names: u32,
    /// How long each kernel takes; default: 1 to 16 us, by its name
    #[arg(long, value_name = "NS")]
    pub kernel_ns: Option<u64>,
    /// Launch graphs of so many kernels; a graph is one launch
    #[arg(long, value_name = "KERNELS", default_value_t = 0)]
    pub graph: u32,
    /// Launches a second of each process; default: as many as go
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// Pieces of memory that each process takes, copies to and from, and gives back
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub allocations: u64,
    /// How many of these it does not give back
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep: u64,
    /// Measure how long the calls that launch take
    #[arg(long)]
    pub latency: bool,
    /// Fork half-way; the child tries to use CUDA and ends with the exit handlers
    #[arg(long)]
    pub fork: bool,
    /// When all is done, say so and wait to be killed
    #[arg(long, conflicts_with_all = ["exit_hard", "sigkill_after"])]
    pub hang: bool,
    /// End without exit handlers
    #[arg(long, conflicts_with = "sigkill_after")]
    pub exit_hard: bool,
    /// Each process makes only so many of its launches, says what it did, and kills itself
    #[arg(long, value_name = "N")]
    pub sigkill_after: Option<u64>,
    /// The simulated CUDA library; default: the one built with this program
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_SIM_CUDA")]
    pub library: Option<PathBuf>,
    /// Which of the processes this is; the first one starts the others
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    pub process: u32,
}

/// The part of `total` that falls to the `place`-th of `parts`; the first ones take one more where it does not come out even.
pub(super) fn share(total: u64, parts: u32, place: u32) -> u64 {
    let parts = u64::from(parts.max(1));
    total / parts + u64::from(u64::from(place) < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (total, parts) in [(0, 3), (10, 3), (1_000_000, 16), (2, 5)] {
            let sum: u64 = (0..parts).map(|place| share(total, parts, place)).sum();
            assert_eq!(sum, total);
        }
        assert_eq!([share(10, 3, 0), share(10, 3, 1), share(10, 3, 2)], [4, 3, 3]);
    }
}
