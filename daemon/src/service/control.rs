//! The control socket: how `plimsoll status`, `why`, `run` and others talk to the daemon.
//!
//! One JSON object a line in each direction over a Unix socket that only the daemon's user may open.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Devices, runs and rules now.
    Status,
    /// Rules clause by clause.
    Why,
    /// Hold all acting.
    Pause,
    /// Act again; with a rule, lift its suspension or quarantine.
    Resume { rule: Option<String> },
    /// A command began; it ends with `RunEnd` or with the connection.
    RunBegin { name: String, pid: u32, command: String },
    /// The command ended.
    RunEnd { exit_code: i32 },
}

/// A request on its way to the pipeline, and where its answer goes.
pub(crate) struct Call {
    pub(crate) request: Request,
    /// Which connection asks, so that a run ends with it.
    pub(crate) connection: u64,
    pub(crate) answer: oneshot::Sender<Value>,
}

/// What the socket tells the pipeline.
pub(crate) enum Control {
    Call(Call),
    /// The connection is closed.
    Closed(u64),
}

/// The longest request that is read.
const LINE_LIMIT: u64 = 64 << 10;
/// The most connections at a time.
const CONNECTIONS: usize = 64;

/// The listening socket; its file is removed when it is dropped.
pub(crate) struct Socket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Socket {
    /// Listens at `path`. A socket file found there that nobody answers is left from a former life; one that somebody
    /// answers belongs to a daemon of another store.
    pub(crate) fn listen(path: &Path, pipeline: mpsc::Sender<Control>) -> io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            if BlockingStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    ErrorKind::AddrInUse,
                    "another daemon answers there; stop it, or name another socket with PLIMSOLL_SOCKET",
                ));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
            for connection in 0_u64.. {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let pipeline = pipeline.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, connection, &pipeline).await {
                        tracing::debug!(%error, "a control connection ended early");
                    }
                    drop(pipeline.send(Control::Closed(connection)).await);
                    drop(slot);
                });
            }
        });
        Ok(Self {
            path: path.to_owned(),
            task,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.path));
    }
}

async fn serve(stream: UnixStream, connection: u64, pipeline: &mpsc::Sender<Control>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = AsyncReader::new(read);
    loop {
        let mut line = String::new();
        (&mut read).take(LINE_LIMIT).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => {
                let (answer, answered) = oneshot::channel();
                let call = Control::Call(Call {
                    request,
                    connection,
                    answer,
                });
                if pipeline.send(call).await.is_err() {
                    return Ok(());
                }
                answered
                    .await
                    .unwrap_or_else(|_| error("the daemon is shutting down"))
            }
            Err(problem) => error(&format!("not a request: {problem}")),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

/// An answer that says why there is none.
pub(crate) fn error(message: &str) -> Value {
    serde_json::json!({ "error": message })
}

/// A connection to the daemon, from a command.
pub(crate) struct Client {
    stream: BufReader<BlockingStream>,
}

impl Client {
    /// Connects to the daemon that serves at `path`.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = BlockingStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Value> {
        let line = serde_json::to_string(request)? + "\n";
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(problem) => Err(io::Error::other(problem.to_owned())),
            None => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_somebody_answers_is_left_alone_and_a_leftover_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plimsoll.sock");
        let (calls, _waiting) = mpsc::channel(1);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::listen(&path, calls.clone()).unwrap();
        let second = Socket::listen(&path, calls).err().map(|error| error.kind());
        assert_eq!(second, Some(ErrorKind::AddrInUse));
        assert!(BlockingStream::connect(&path).is_ok());
        drop(first);
        assert!(!path.exists());
    }
}
