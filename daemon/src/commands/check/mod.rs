//! `plimsoll check`: what works here, what does not, why it matters and what to do, a line each.

mod cupti;
mod findings;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll_collectors::{Driver, Match, look};
use serde_json::json;

pub(super) use findings::{Finding, Grade};

use super::{Outcome, injection, print, print_json};
use crate::config::{Config, socket_path};
use crate::failure::{Failure, chain};

/// The contract's statuses of this command.
const NO_DRIVER: u8 = 3;
const PROBLEM: u8 = 6;

/// The driver's start may take seconds; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(named: Option<&Path>, as_json: bool) -> Outcome {
    let mut found = Vec::new();
    let config = configuration(named, &mut found)?;
    let driver = look(&config.sampling.nvml_library, PATIENCE);
    found.extend(driver_findings(&driver));
    found.extend(agent_findings(&config));
    found.extend(cupti::findings());
    if as_json {
        let list: Vec<_> = found.iter().map(Finding::to_json).collect();
        print_json(&json!({ "version": 1, "findings": list }))?;
    } else {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        print(&lines.concat())?;
        if let Some(text) = drop_in(&config) {
            print(&text)?;
        }
    }
    let is_problem = |finding: &Finding| finding.grade == Grade::Problem;
    Ok(match driver {
        Err(_) => ExitCode::from(NO_DRIVER),
        Ok(_) if found.iter().any(is_problem) => ExitCode::from(PROBLEM),
        Ok(_) => ExitCode::SUCCESS,
    })
}

fn configuration(named: Option<&Path>, found: &mut Vec<Finding>) -> Result<Config, Failure> {
    Ok(match Config::load(named) {
        Ok(config) => {
            let what = config.file.as_ref().map_or_else(
                || "no configuration file; the defaults hold".to_owned(),
                |file| {
                    let engines = match config.engines.len() {
                        1 => "1 engine".to_owned(),
                        count => format!("{count} engines"),
                    };
                    format!("{} is valid, with {engines}", file.display())
                },
            );
            found.push(Finding::ok("configuration", what));
            found.extend(
                config
                    .warnings
                    .iter()
                    .map(|warning| Finding::note("configuration", warning)),
            );
            config
        }
        Err(error) => {
            let what = chain(&error.into());
            found.push(
                Finding::problem("configuration", what)
                    .why("the daemon does not start with it, and a running one keeps the former one"),
            );
            Config::without_file()?
        }
    })
}

fn driver_findings(driver: &Result<Driver, String>) -> Vec<Finding> {
    let driver = match driver {
        Ok(driver) => driver,
        Err(why) => {
            let finding = Finding::problem("driver", why)
                .why("without it nothing of a GPU can be recorded; samples of the host are");
            return vec![finding];
        }
    };
    let version = driver.version.as_deref().unwrap_or("of unknown version");
    let mut found = vec![Finding::ok(
        "driver",
        format!(
            "NVIDIA driver {version} answers, with {} devices",
            driver.devices.len()
        ),
    )];
    for card in &driver.devices {
        let name = card.name.as_deref().unwrap_or("a device without a name");
        let uuid = card.uuid.as_deref().unwrap_or("of unknown UUID");
        if card.is_mig {
            found.push(
                Finding::note("device", format!("{name} {uuid} is cut into MIG instances"))
                    .why("each instance is a device of its own in the recording; some figures exist for the whole only"),
            );
        }
        if card.tells_memory == Some(false) {
            found.push(
                Finding::note(
                    "device",
                    format!("the driver does not tell what the processes on {name} {uuid} hold"),
                )
                .why("whose memory it is stays unknown, and rules on run.vram_bytes cannot work")
                .remedy("run Plimsoll outside of the container or as root; WSL and vGPU never tell"),
            );
        }
    }
    found
}

fn agent_findings(config: &Config) -> Vec<Finding> {
    let agent = match injection::agent() {
        Ok(path) => Finding::ok("agent", format!("{} can be loaded into engines", path.display())),
        Err(why) => Finding::note("agent", why)
            .why("kernels, allocations and fragmentation are recorded by it alone; all else works without"),
    };
    let socket = socket_path(&config.store_path());
    let daemon = if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        Finding::ok("daemon", format!("one answers at {}", socket.display()))
    } else {
        Finding::note("daemon", format!("none answers at {}", socket.display()))
            .why("engines that are started as services are recorded by it; `plimsoll run` works without")
    };
    vec![agent, daemon]
}

/// What makes the engines' services load the agent.
fn drop_in(config: &Config) -> Option<String> {
    let socket = socket_path(&config.store_path());
    let units = config
        .engines
        .iter()
        .filter_map(|(engine, _)| match &engine.matcher {
            Some(Match::Unit(unit)) => Some((engine.spec.name.as_str(), unit)),
            _ => None,
        });
    let texts: Vec<String> = units
        .filter_map(|(engine, unit)| injection::drop_in(engine, unit, &socket).ok())
        .map(|text| format!("\n{text}"))
        .collect();
    (!texts.is_empty()).then(|| texts.concat())
}
