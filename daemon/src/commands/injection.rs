//! What a command needs in its environment so that CUDA loads the agent into it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use plimsoll_trace::TraceTier;

/// Where CUDA looks for a library to load into each process that uses it. There is one place for all tools.
pub(in crate::commands) const INJECTION: &str = "CUDA_INJECTION64_PATH";
/// Where the agent looks for a library that would have stood there.
pub(in crate::commands) const CHAIN: &str = "PLIMSOLL_CHAIN";

/// What is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::commands) struct Tracing {
    pub(in crate::commands) tier: TraceTier,
    /// The share of the process's time that it may cost.
    pub(in crate::commands) budget: Option<f64>,
}

/// The variables for a command, or why there are none.
pub(in crate::commands) fn variables(
    tracing: Tracing,
    socket: &Path,
) -> Result<Vec<(&'static str, OsString)>, String> {
    let agent = agent()?;
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let mut variables = vec![
        ("PLIMSOLL_SOCKET", socket.into_os_string()),
        ("PLIMSOLL_TRACE", tracing.tier.as_str().into()),
    ];
    if let Some(budget) = tracing.budget {
        variables.push(("PLIMSOLL_BUDGET", budget.to_string().into()));
    }
    if let Some(other) = foreign(std::env::var_os(INJECTION), &agent) {
        variables.push((CHAIN, other));
    }
    variables.push((INJECTION, agent.into_os_string()));
    Ok(variables)
}

/// Somebody else's library in the place that the agent takes: the agent loads it in its turn. "none" is how PyTorch's
/// profiler is told that there is to be none.
pub(in crate::commands) fn foreign(present: Option<OsString>, agent: &Path) -> Option<OsString> {
    let is_agent = |value: &OsStr| {
        let path = Path::new(value);
        path.file_name() == agent.file_name() || path.canonicalize().is_ok_and(|path| path == agent)
    };
    present.filter(|value| !value.is_empty() && value != "none" && !is_agent(value))
}

/// The agent: named by PLIMSOLL_AGENT, else beside this program, where it is built, or where packages put it.
pub(in crate::commands) fn agent() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("PLIMSOLL_AGENT").filter(|value| !value.is_empty()) {
        return PathBuf::from(&named).canonicalize().map_err(|error| {
            format!(
                "PLIMSOLL_AGENT names {}, which cannot be used: {error}",
                Path::new(&named).display()
            )
        });
    }
    plimsoll_agent::library_path().ok_or_else(|| {
        "libplimsoll_agent.so lies neither beside this program nor in ../lib/plimsoll; build it \
         (cargo build --workspace), or name it with PLIMSOLL_AGENT"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_put_there_is_kept() {
        let agent = Path::new("/usr/lib/plimsoll/libplimsoll_agent.so");
        let kept = |value: &str| foreign(Some(value.into()), agent);
        assert_eq!(
            kept("/opt/nsys/libToolsInjection64.so"),
            Some("/opt/nsys/libToolsInjection64.so".into())
        );
        assert_eq!(kept("/elsewhere/libplimsoll_agent.so"), None);
        assert_eq!(kept("none"), None);
        assert_eq!(kept(""), None);
        assert_eq!(foreign(None, agent), None);
    }
}
