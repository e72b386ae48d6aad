//! The simulated engine as a program of its own, for this package's tests.

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    engine: plimsoll_sim::EngineArgs,
}

fn main() -> std::process::ExitCode {
    let code = plimsoll_sim::run_engine(&<Cli as clap::Parser>::parse().engine);
    u8::try_from(code).map_or(std::process::ExitCode::FAILURE, std::process::ExitCode::from)
}
