//! The control socket's language: how `plimsoll status`, `why`, `run` and others talk to the daemon.
//!
//! One JSON object a line in each direction. Who may speak, and where the socket is, `socket` knows.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use plimsoll_collectors::{Peer, Rights};
use plimsoll_trace::TraceTier;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::allocator::Allocator;
use super::tell::TraceWord;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Devices, runs and rules now.
    Status,
    /// Rules clause by clause.
    Why,
    /// What waits for a person, and what the rules would do next.
    Plan,
    /// Carry out what is proposed: by a decision's number or a rule's name.
    Apply { proposal: String },
    /// Take back what a kept decision did.
    Revert { decision: i64 },
    /// Hold all acting.
    Pause,
    /// Act again; with a rule, lift its suspension or quarantine.
    Resume { rule: Option<String> },
    /// A command began; it ends with `RunEnd` or with the connection.
    RunBegin {
        name: String,
        pid: u32,
        command: String,
        /// What the agent was told to record; the tier that it has then is what counts.
        #[serde(default = "untraced", skip_serializing_if = "is_untraced")]
        trace_tier: TraceTier,
    },
    /// The command ended.
    RunEnd { exit_code: i32 },
    /// Have the allocators of a run measured now, as far as somebody in its processes can.
    MeasureAllocators { run: i64 },
    /// Tell the agents of a run something, and wait until it is done.
    Trace { run: i64, word: TraceWord },
    /// What an allocator in the asking process holds.
    Allocator(Box<Allocator>),
}

const fn untraced() -> TraceTier {
    TraceTier::Off
}

fn is_untraced(tier: &TraceTier) -> bool {
    *tier == TraceTier::Off
}

impl Request {
    /// What one must be allowed to ask it.
    pub(super) const fn needs(&self) -> Rights {
        match self {
            Self::Allocator(_) => Rights::Tell,
            _ => Rights::Everything,
        }
    }
}

/// A request on its way to the pipeline, and where its answer goes.
pub(crate) struct Call {
    pub(crate) request: Request,
    /// Which connection asks, so that a run ends with it.
    pub(crate) connection: u64,
    /// Who asks.
    pub(crate) peer: Peer,
    pub(crate) answer: oneshot::Sender<Value>,
}

/// What the socket tells the pipeline.
pub(crate) enum Control {
    Call(Call),
    /// The connection is closed.
    Closed(u64),
}

/// An answer that says why there is none.
pub(crate) fn error(message: &str) -> Value {
    serde_json::json!({ "error": message })
}

/// A connection to the daemon, from a command.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon that serves at `path`.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Waits this long for answers from now on.
    pub(crate) fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Value> {
        let line = serde_json::to_string(request)? + "\n";
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            let text = "it ended before it had answered";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let answer: Value = serde_json::from_str(&answer)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(problem) => Err(io::Error::other(problem.to_owned())),
            None => Ok(answer),
        }
    }
}
