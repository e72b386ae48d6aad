//! `plimsoll rules check`: lints.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::super::{Outcome, print, print_json};
use crate::config::lints_of;
use crate::failure::Failure;

/// The contract's status of a check that found something.
const FOUND: u8 = 6;

pub(super) fn run(named: Option<&Path>, as_json: bool) -> Outcome {
    let (Some(path), found) = lints_of(named)? else {
        return Err(Failure::usage(
            "there is no configuration to check; name one with --config, or begin with `plimsoll init`",
        ));
    };
    if as_json {
        let lints: Vec<_> = found.iter().map(|found| found.to_json()).collect();
        print_json(&json!({ "version": 1, "path": path, "lints": lints }))?;
    } else if found.is_empty() {
        print("nothing was found\n")?;
    } else {
        let texts: Vec<String> = found
            .iter()
            .map(|found| {
                let (what, lint) = (found.what(&path), &found.lint);
                format!("{what}\n  why: {}\n  to do: {}\n", lint.why, lint.to_do)
            })
            .collect();
        print(&texts.concat())?;
    }
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FOUND)
    })
}
