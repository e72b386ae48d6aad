//! The edge: a failure is printed once, as one chain, and becomes an exit status.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::screen::say;

/// The exit statuses that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Something did not work.
    Failed = 1,
    /// The command line, the configuration or a query is not valid.
    Usage = 2,
    /// The daemon cannot be reached.
    NotReachable = 4,
    /// A query is not allowed, or went over its limit.
    Refused = 5,
}

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(status: Status, error: impl Into<anyhow::Error>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Status::Usage, anyhow::Error::msg(message.to_string()))
    }

    /// Prints the whole chain of causes on stderr, once.
    pub(crate) fn report(&self) -> ExitCode {
        say(format_args!("plimsoll: {self}"));
        ExitCode::from(self.status as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&self.error))
    }
}

/// The error and its causes. Some libraries repeat a cause in their own text; it is said once.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let status = if error.chain().any(|cause| cause.is::<ConfigError>()) {
            Status::Usage
        } else {
            Status::Failed
        };
        Self { status, error }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Status::Usage, error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let repeated = anyhow!("no such file")
            .context("opening failed: no such file")
            .context("the store");
        assert_eq!(chain(&repeated), "the store: opening failed: no such file");
    }
}
