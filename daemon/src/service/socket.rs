//! The control socket's door: who may come in, and where they go.
//!
//! It is a Unix socket that only the daemon's user and root may open. Agents come through it too: their first byte begins
//! no JSON, and their connections go to the agents' collector. With `[agent] group` the socket is open to a group as well,
//! whose members may tell about their own work and nothing else.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_collectors::{AgentDesk, Peer, Rights};
use plimsoll_trace::wire::Hello;
use rustix::net::RecvFlags;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::control::{Call, Control, Request, error};

/// The longest request that is read.
const LINE_LIMIT: u64 = 64 << 10;
/// The most connections at a time that ask, each with one request.
const CONNECTIONS: usize = 256;
/// The most connections at a time that have not said anything.
const SILENT: usize = 256;
/// How long they may.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket, before anybody is let in.
pub(crate) struct Socket {
    listener: UnixListener,
    file: SocketFile,
    is_open_to_group: bool,
    door: Door,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

/// The socket while connections are served; it is closed when this is dropped.
pub(crate) struct Serving {
    task: tokio::task::JoinHandle<()>,
    _file: SocketFile,
}

/// Removed when it is dropped.
struct SocketFile(PathBuf);

/// Where connections go, and what they may do there.
#[derive(Clone)]
struct Inside {
    pipeline: mpsc::Sender<Control>,
    agents: AgentDesk,
    own_uid: u32,
    is_open_to_group: bool,
    silent: Arc<Semaphore>,
    slots: Arc<Semaphore>,
}

/// Asks the listener to let everybody in who stands before it.
#[derive(Clone)]
pub(crate) struct Door(mpsc::Sender<oneshot::Sender<()>>);

impl Socket {
    /// Takes the place at `path`; whoever connects waits until [`Socket::serve`]. The caller holds the store's lock, so a
    /// socket file found there is left from a former life. With a group, its members may connect too.
    pub(crate) fn bind(path: &Path, group: Option<u32>) -> io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            if BlockingStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another daemon answers there; stop it, or name another socket with PLIMSOLL_SOCKET",
                ));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let (door, asked) = mpsc::channel(4);
        Ok(Self {
            listener,
            file,
            is_open_to_group: group.is_some(),
            door: Door(door),
            asked,
        })
    }

    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Lets connections in: those that ask to the pipeline, agents to their collector.
    pub(crate) fn serve(self, pipeline: mpsc::Sender<Control>, agents: AgentDesk) -> Serving {
        let inside = Inside {
            pipeline,
            agents,
            own_uid: rustix::process::geteuid().as_raw(),
            is_open_to_group: self.is_open_to_group,
            silent: Arc::new(Semaphore::new(SILENT)),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
        };
        Serving {
            task: tokio::spawn(listen(self.listener, inside, self.asked)),
            _file: self.file,
        }
    }
}

impl Door {
    /// Waits until everybody who has connected by now is let in, and agents are handed over.
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            // It is done when its other end is gone.
            drop(settled.await);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

async fn listen(listener: UnixListener, inside: Inside, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut connection = 0;
    let mut let_in = |stream| {
        connection += 1;
        inside.let_in(stream, connection);
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => let_in(stream),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(done) = asked.recv() => {
                // Asked directly: the runtime may not have been told of them yet.
                while let Ok(stream) = accept_now(&listener) {
                    let_in(stream);
                }
                let silent = Arc::clone(&inside.silent);
                tokio::spawn(async move {
                    heard(&silent).await;
                    drop(done);
                });
            }
        }
    }
}

fn accept_now(listener: &UnixListener) -> io::Result<UnixStream> {
    let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
    let stream = rustix::net::accept_with(listener, flags)?;
    UnixStream::from_std(BlockingStream::from(stream))
}

/// Until all who were let in have said something, or a moment has passed: whoever means it speaks at once.
async fn heard(silent: &Semaphore) {
    for _ in 0..50 {
        if silent.available_permits() == SILENT {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Inside {
    fn let_in(&self, stream: UnixStream, connection: u64) {
        let Ok(place) = Arc::clone(&self.silent).try_acquire_owned() else {
            tracing::warn!("too many connections say nothing; another is closed");
            return;
        };
        let inside = self.clone();
        tokio::spawn(async move {
            let first = tokio::time::timeout(PATIENCE, first_byte(&stream)).await;
            let (Ok(Ok(Some(first))), Ok(peer)) = (first, peer_of(&stream)) else {
                return;
            };
            let rights = peer.rights(inside.own_uid, inside.is_open_to_group);
            if Hello::may_begin(first) {
                match (rights, stream.into_std()) {
                    (Some(_), Ok(stream)) => inside.agents.take(stream, peer),
                    (None, _) => inside.agents.refuse(peer),
                    (_, Err(error)) => tracing::warn!(%error, "an agent's connection cannot be handed over"),
                }
                return;
            }
            drop(place);
            let Ok(slot) = Arc::clone(&inside.slots).try_acquire_owned() else {
                tracing::warn!("too many connections ask; another is closed");
                return;
            };
            if let Err(error) = inside.serve(stream, connection, peer, rights).await {
                tracing::debug!(%error, "a control connection ended early");
            }
            drop(inside.pipeline.send(Control::Closed(connection)).await);
            drop(slot);
        });
    }

    async fn serve(
        &self,
        stream: UnixStream,
        connection: u64,
        peer: Peer,
        rights: Option<Rights>,
    ) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = String::new();
            (&mut read).take(LINE_LIMIT).read_line(&mut line).await?;
            if !line.ends_with('\n') {
                return Ok(());
            }
            let answer = match serde_json::from_str::<Request>(&line) {
                Ok(request) if rights < Some(request.needs()) => {
                    error("this user may not ask that; ask as the daemon's user or as root")
                }
                Ok(request) => {
                    let (answer, answered) = oneshot::channel();
                    let call = Control::Call(Call {
                        request,
                        connection,
                        peer,
                        answer,
                    });
                    if self.pipeline.send(call).await.is_err() {
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
}

/// The first byte, which stays where it is; `None` when the connection is closed.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    loop {
        stream.readable().await?;
        let mut first = [0];
        let peeked = stream.try_io(Interest::READABLE, || {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            Ok(rustix::net::recv(stream, &mut first[..], flags)?.0)
        });
        match peeked {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(first[0])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer {
        // Zero is a process that has no number here.
        pid: credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0),
        uid: credentials.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_somebody_answers_is_left_alone_and_a_leftover_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plimsoll.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, None).unwrap();
        let second = Socket::bind(&path, None).err().map(|error| error.kind());
        assert_eq!(second, Some(io::ErrorKind::AddrInUse));
        assert!(BlockingStream::connect(&path).is_ok());
        drop(first);
        assert!(!path.exists());
    }
}
