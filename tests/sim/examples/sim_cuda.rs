//! The simulated CUDA program as a program of its own, for this package's tests.

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    cuda: plimsoll_sim::cuda::CudaArgs,
}

fn main() -> std::process::ExitCode {
    let code = plimsoll_sim::cuda::run_cuda(&<Cli as clap::Parser>::parse().cuda);
    u8::try_from(code).map_or(std::process::ExitCode::FAILURE, std::process::ExitCode::from)
}
