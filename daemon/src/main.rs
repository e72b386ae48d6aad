//! The `plimsoll` program: a command line over the crates that do the work.

mod cli;
mod commands;
mod config;
mod failure;
mod screen;
mod service;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
