//! The edge: a failure is printed once, as one chain, and becomes an exit status.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

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
        Self { status, error: error.into() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Status::Usage, anyhow::Error::msg(message.to_string()))
    }

    /// Prints the whole chain of causes on stderr, once.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("plimsoll: {:#}", self.error);
        ExitCode::from(self.status as u8)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let status = if error.chain().any(|cause| cause.is::<ConfigError>()) { Status::Usage } else { Status::Failed };
        Self { status, error }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Status::Usage, error)
    }
}
