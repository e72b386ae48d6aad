//! `plimsoll init`: a commented configuration to start with, for a kind of engine.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;

use super::drop_in::DropIn;
use super::{Outcome, print};
use crate::config::{Config, socket_path};
use crate::failure::{Failure, Status};
use crate::screen::say;

/// What there is a configuration for: each is one file, in which this line is replaced.
pub(crate) const PROFILES: [(&str, &str); 1] = [("custom", include_str!("init/custom.toml"))];
const DROP_IN: &str = "# @DROP_IN@\n";

pub(super) fn init(profile: &str, output: Option<&Path>) -> Outcome {
    let text = PROFILES.iter().find(|(name, _)| *name == profile);
    // The command line lets nothing else through.
    let (_, text) = text.with_context(|| format!("there is no profile {profile}"))?;
    let config = Config::without_file()?;
    let text = filled(
        text,
        DropIn::new(None, DropIn::ANY, &socket_path(&config.store_path()), None).map(|text| text.to_string()),
    );
    let Some(path) = output.filter(|path| *path != Path::new("-")) else {
        return print(&text);
    };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let path = path.display();
        let why = match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("{path} is there already and stays as it is; name another file with -o, or remove it")
            }
            ErrorKind::NotFound => {
                format!("{path} cannot be written: its folder does not exist; make it first")
            }
            ErrorKind::PermissionDenied => {
                format!("{path} may not be written by this user; name another file with -o, or use sudo")
            }
            _ => format!("{path} cannot be written: {error}"),
        };
        Failure::new(Status::Failed, anyhow::Error::msg(why))
    })?;
    say(format_args!(
        "{0} is written; it records and changes nothing. Replace what is in capitals, then: plimsoll check --config {0}",
        path.display()
    ));
    Ok(std::process::ExitCode::SUCCESS)
}

/// The text with the environment of a traced service, as a comment.
fn filled(text: &str, drop_in: Result<String, String>) -> String {
    let said = match drop_in {
        Ok(said) => said,
        Err(why) => format!("It is not here: {why}\n"),
    };
    let lines = said
        .lines()
        .map(|line| format!("# {line}").trim_end().to_owned() + "\n");
    text.replace(DROP_IN, &lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::Mode;

    use super::*;

    #[test]
    fn each_profile_is_a_valid_configuration_that_changes_nothing() {
        for (name, text) in PROFILES {
            assert_eq!(text.matches(DROP_IN).count(), 1, "{name}");
            for drop_in in [
                Ok("[Service]\nEnvironment=A=b\n\n".to_owned()),
                Err("no agent".to_owned()),
            ] {
                let text = filled(text, drop_in);
                let config = Config::parse(&text, Path::new("init.toml")).unwrap();
                assert_eq!(config.engines.len(), 1, "{name}");
                let (_, ladder) = &config.engines[0];
                assert!(
                    ladder.rules.iter().all(|rule| rule.mode == Mode::Observe),
                    "{name}"
                );
                assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
                assert!(text.lines().all(|line| line == line.trim_end()), "{name}");
            }
        }
    }

    /// What is commented out is meant to be used: with the comments taken off it is valid too.
    #[test]
    fn what_is_commented_out_is_valid() {
        for (name, text) in PROFILES {
            let is_key = |line: &str| {
                let key = line.split(" = ").next().unwrap_or_default();
                line.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            };
            let open = |line: &str| match line.strip_prefix("# ") {
                Some(rest) if is_key(rest) => rest.to_owned(),
                _ => line.to_owned(),
            };
            let text: Vec<String> = text.lines().map(open).collect();
            let text = text.join("\n").replace("mode = \"observe\"", "mode = \"act\"");
            let config = Config::parse(&text, Path::new("init.toml")).unwrap();
            assert!(config.store.path.is_some(), "{name}");
            let (_, ladder) = &config.engines[0];
            assert!(ladder.rules.iter().all(|rule| rule.mode == Mode::Act), "{name}");
        }
    }
}
