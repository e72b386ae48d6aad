//! One module a command, or a family of commands. Each reads its arguments, asks the crate that knows, and prints.

mod control;
mod demo;
mod query;
mod run;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::failure::Failure;
use crate::service;

type Outcome = Result<ExitCode, Failure>;

/// Carries out what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Demo(demo) => demo::run(&demo),
        Command::Daemon { config } => daemon(config.config),
        Command::Run(run) => run::run(run),
        Command::Status { source, json } => control::status(&source, json),
        Command::Why { subject, source, json } => control::why(subject.as_deref(), &source, json),
        Command::Pause { source } => control::pause(&source),
        Command::Resume { rule, source } => control::resume(rule, &source),
        Command::Runs { source, json } => query::runs(&source, json),
        Command::Show { run, source, json } => query::show(&run.run, &source, json),
        Command::Report(report) => query::report(&report),
        Command::Sql(sql) => query::sql(&sql),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "plimsoll", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(anyhow::Error::from)?;
            print(&String::from_utf8_lossy(&text))
        }
        Command::SimEngine(arguments) => {
            // Lists of processes show it as what it is.
            if let Err(error) = rustix::thread::set_name(c"sim-engine") {
                eprintln!("plimsoll: the simulated engine keeps the program's name: {error}");
            }
            let status = plimsoll_sim::run_engine(&arguments);
            Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
        }
    }
}

fn daemon(named: Option<std::path::PathBuf>) -> Outcome {
    start_log("info");
    let config = Config::load(named.as_deref())?;
    runtime()?.block_on(service::run(config, named, service::Until::Signal))?;
    Ok(ExitCode::SUCCESS)
}

/// A runtime on this thread: the loop is one, and everything that blocks has a thread of its own.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(anyhow::Error::from)?)
}

/// Logs go to stderr; `PLIMSOLL_LOG` chooses what is said, as in `plimsoll=debug`.
fn start_log(default: &str) {
    let directives = std::env::var("PLIMSOLL_LOG").unwrap_or_default();
    let filter = if directives.is_empty() { EnvFilter::new(default) } else { EnvFilter::new(directives) };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    log.with_ansi(colored).with_target(false).init();
}

/// Prints data on stdout. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(error).into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints JSON, for people too.
fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value:#}\n"))
}
