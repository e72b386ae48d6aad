//! CUPTI tried out in a child process, because releases of it crash where there is no driver. The child tells each thing
//! before it tries the next, so that one that dies has said how far it came.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use cupti_sys::Finding;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::injection::INJECTION;
use super::{Outcome, child};

/// The variable that names a CUPTI, here and for the agent.
const NAMED: &str = "PLIMSOLL_CUPTI_LIBRARY";

/// What to do about a CUPTI that must not be loaded into an engine.
pub(in crate::commands) const REMEDY: &str = "name another libcupti in PLIMSOLL_CUPTI_LIBRARY";

/// What the child does: tells each finding as a line, at once.
pub(in crate::commands) fn answer() -> Outcome {
    alone();
    let named = std::env::var_os(NAMED)
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    cupti_sys::probe(named.as_deref(), |finding| {
        let line = match finding {
            Finding::Loaded { path, .. } => format!("loaded {}", path.display()),
            Finding::NotLoaded(why) => format!("not-loaded {}", why.replace('\n', " ")),
            Finding::PassedOver { path, answer } => format!("passed-over {} {}", answer.0, path.display()),
            Finding::Missing(symbol) => format!("missing {symbol}"),
            Finding::Trying(call) => format!("trying {call}"),
            Finding::Answered(call, answer) => format!("answered {} {call}", answer.0),
            Finding::Version(version) => format!("version {version}"),
        };
        let mut stdout = std::io::stdout().lock();
        // Without the parent there is nobody to tell.
        let _told = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    });
    Ok(ExitCode::SUCCESS)
}

/// A crash here is an answer and leaves no core file, and a hang does not outlive whoever waits.
fn alone() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core = setrlimit(Resource::Core, none);
    let end = set_parent_process_death_signal(Some(Signal::KILL));
    tracing::trace!(?core, ?end, "alone");
}

/// What the child told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::commands) struct Told {
    pub(in crate::commands) lines: String,
    /// How it ended, unless well.
    pub(in crate::commands) ending: Option<String>,
}

impl Told {
    /// Starts the child and waits for its end, for so long at most. Blocks.
    pub(in crate::commands) fn by_child(patience: Duration) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("probe-cupti")
            // It is CUPTI that is tried, not another tool's library or our own agent.
            .env_remove(INJECTION);
        let (lines, ending) = child::answer(&mut command, patience)?;
        Ok(Self { lines, ending })
    }

    /// The rest of the last line that begins with this word.
    pub(in crate::commands) fn last(&self, word: &str) -> Option<&str> {
        let mut lines = self.lines.lines().rev();
        lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// What it might do to a process that loads it, if the child did not end well.
    pub(in crate::commands) fn harm(&self) -> Option<String> {
        let ending = self.ending.as_ref()?;
        let path = self.last("loaded").unwrap_or("CUPTI");
        let call = self.last("trying").unwrap_or("loading it");
        Some(format!(
            "{path} failed in a process of its own ({ending}) at: {call}"
        ))
    }
}
