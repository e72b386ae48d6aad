//! One module a command, or a family of commands. Each reads its arguments, asks the crate that knows, and prints.

mod agents;
mod check;
mod child;
mod control;
mod demo;
mod drop_in;
mod init;
mod injection;
mod manual;
mod orders;
mod probe;
mod query;
mod rules;
mod run;
mod trace;

pub(crate) use init::PROFILES;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::config::{Config, fits_socket, make_default_folder, socket_path};
use crate::failure::Failure;
use crate::screen::{self, say};
use crate::service;

type Outcome = Result<ExitCode, Failure>;

/// Carries out what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Demo(demo) => demo::run(&demo),
        Command::Daemon {
            config,
            die_with_parent,
        } => daemon(config.config, die_with_parent),
        Command::Run(run) => run::run(run),
        Command::Check { config, json } => check::run(config.config.as_deref(), json),
        Command::Init { profile, output } => init::init(&profile, output.as_deref()),
        Command::ProbeCupti => probe::answer(),
        Command::Status { source, json } => control::status(&source, json),
        Command::Why {
            subject,
            source,
            json,
        } => control::why(subject.as_deref(), &source, json),
        Command::Plan { source, json } => orders::plan(&source, json),
        Command::Apply {
            proposal,
            source,
            json,
        } => orders::apply(proposal, &source, json),
        Command::Revert {
            decision,
            source,
            json,
        } => orders::revert(decision, &source, json),
        Command::Rules(command) => rules::run(&command),
        Command::Pause { source } => control::pause(&source),
        Command::Resume { rule, source } => control::resume(rule, &source),
        Command::Runs { source, json } => query::runs(&source, json),
        Command::Show {
            run,
            allocator: true,
            source,
            json,
        } => query::allocators(&run.run, &source, json),
        Command::Show {
            run, source, json, ..
        } => query::show(&run.run, &source, json),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Kernels {
            run,
            limit,
            source,
            json,
        } => query::kernels(&run.run, limit, &source, json),
        Command::Report(report) => query::report(&report),
        Command::Export(export) => query::export(&export),
        Command::Sql(sql) => query::sql(&sql),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut manual::command(), "plimsoll", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man => print(&manual::page().context("the manual page")?),
        Command::SimCuda(arguments) => {
            let status = plimsoll_sim::cuda::run_cuda(&arguments);
            Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
        }
        Command::SimEngine(arguments) => {
            // Lists of processes show it as what it is.
            if let Err(error) = rustix::thread::set_name(c"sim-engine") {
                say(format_args!(
                    "plimsoll: the simulated engine keeps the program's name: {error}"
                ));
            }
            let status = plimsoll_sim::run_engine(&arguments);
            Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
        }
    }
}

fn daemon(named: Option<std::path::PathBuf>, die_with_parent: bool) -> Outcome {
    start_log("info", true);
    if die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .context("the end of the parent process cannot be watched")?;
    }
    let config = Config::load(named.as_deref())?;
    make_default_folder(&config.store_path())?;
    let socket = socket_path(&config.store_path());
    fits_socket(&socket)?;
    runtime()?.block_on(service::run(config, named, socket, service::Until::Signal))?;
    Ok(ExitCode::SUCCESS)
}

/// A runtime on this thread: the loop is one, and everything that blocks has a thread of its own.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(anyhow::Error::from)?)
}

/// Logs go to stderr, a service's with the time. `PLIMSOLL_LOG` chooses what is said, as in `plimsoll=debug`.
fn start_log(default: &str, is_service: bool) {
    let directives = std::env::var("PLIMSOLL_LOG").unwrap_or_default();
    let filter = if directives.is_empty() {
        EnvFilter::new(default)
    } else {
        EnvFilter::new(directives)
    };
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let colored = std::io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
    // When stderr is gone nothing can be said about that either; trying would end the program.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let log = log.with_ansi(colored).with_target(false);
    if is_service {
        log.init()
    } else {
        log.without_time().init()
    }
}

/// Prints data on stdout.
fn print(text: &str) -> Outcome {
    screen::print(text).context("stdout cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints JSON, for people too.
fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value:#}\n"))
}
