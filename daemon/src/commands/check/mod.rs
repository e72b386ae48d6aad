//! `plimsoll check`: what works here, what does not, why it matters and what to do, a line each.

mod cupti;
mod findings;
mod unit;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll_collectors::{Driver, Match, look};
use serde_json::json;

pub(super) use findings::{Finding, Grade};

use self::unit::{Door, Unit};
use super::drop_in::DropIn;
use super::{Outcome, injection, print, print_json};
use crate::config::{Config, Linted, fits_socket, lints_of, socket_path};
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
    found.extend(rules_findings(&config));
    let (about_units, drop_ins) = services(&config);
    found.extend(about_units);
    if as_json {
        let list: Vec<_> = found.iter().map(Finding::to_json).collect();
        let texts: Vec<_> = drop_ins.iter().map(DropIn::to_json).collect();
        print_json(&json!({ "version": 1, "findings": list, "drop_ins": texts }))?;
    } else {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        print(&lines.concat())?;
        let texts: Vec<String> = drop_ins.iter().map(|text| format!("\n{text}")).collect();
        print(&texts.concat())?;
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
    let daemon = if let Err(error) = fits_socket(&socket) {
        Finding::problem("daemon", error).why("it does not start, and no agent could tell it anything")
    } else if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        Finding::ok("daemon", format!("one answers at {}", socket.display()))
    } else {
        Finding::note("daemon", format!("none answers at {}", socket.display()))
            .why("engines that are started as services are recorded by it; `plimsoll run` works without")
    };
    vec![agent, daemon]
}

/// What `plimsoll rules check` finds.
fn rules_findings(config: &Config) -> Vec<Finding> {
    let path = config.file.as_deref();
    // A file that cannot be read is a finding of its own.
    let found = path.and_then(|path| lints_of(Some(path)).ok());
    let Some((Some(path), found)) = found else {
        return Vec::new();
    };
    let finding = |found: &Linted| {
        Finding::note("rules", found.what(&path))
            .why(found.lint.why)
            .remedy(found.lint.to_do)
    };
    found.iter().map(finding).collect()
}

/// What is to be said of the engines' services, and what makes them load the agent; without any, what would make one.
fn services(config: &Config) -> (Vec<Finding>, Vec<DropIn>) {
    let socket = socket_path(&config.store_path());
    let door = Door {
        socket: &socket,
        group: config.agent_group,
    };
    let mut found = Vec::new();
    let mut drop_ins = Vec::new();
    for (engine, _) in &config.engines {
        let Some(Match::Unit(name)) = &engine.matcher else {
            continue;
        };
        let unit = Unit::ask(name).unwrap_or_default();
        found.extend(unit.findings(name, &door));
        drop_ins.extend(DropIn::new(
            Some(&engine.spec.name),
            name,
            &socket,
            unit.injection,
        ));
    }
    if drop_ins.is_empty() {
        drop_ins.extend(DropIn::new(None, DropIn::ANY, &socket, None));
    }
    (found, drop_ins)
}
