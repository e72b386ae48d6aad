//! The control socket's door: who may come in, and where they go.
//!
//! It is a Unix socket that only the daemon's user and root may open. Agents come through it too: their first byte begins
//! no JSON, and their connections go to the agents' collector. With `[agent] group` the socket is open to a group as well,
//! whose members may tell about their own work and nothing else.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_collectors::{AgentDesk, Peer, Rights, peer_groups};
use plimsoll_trace::wire::Hello;
use rustix::net::RecvFlags;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::control::{Call, Control, Request, error};
use super::places::{Place, Places};

/// The longest request that is read.
const LINE_LIMIT: u64 = 64 << 10;
/// The most connections at a time of those who ask, of those who only tell about themselves, and of those who have not
/// said anything; no kind takes the places of another.
pub(super) const CONNECTIONS: usize = 256;
/// Connections that may wait to be let in.
const BACKLOG: i32 = 1_024;
/// How long one may say nothing at first, or not take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may say nothing later on. One that began a run is waited for.
const IDLE: Duration = Duration::from_secs(300);

/// The socket, before anybody is let in.
pub(crate) struct Socket {
    listener: UnixListener,
    file: SocketFile,
    group: Option<u32>,
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
    group: Option<u32>,
    silent: Places,
    asking: Places,
    telling: Places,
    idle: Duration,
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
        let listener = bind_private(path)?;
        let file = SocketFile(path.to_owned());
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        }
        let (door, asked) = mpsc::channel(4);
        Ok(Self {
            listener,
            file,
            group,
            door: Door(door),
            asked,
        })
    }

    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Lets connections in: those that ask to the pipeline, agents to their collector.
    pub(crate) fn serve(self, pipeline: mpsc::Sender<Control>, agents: AgentDesk) -> Serving {
        let inside = Inside::new(pipeline, agents, self.group);
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
                let silent = inside.silent.clone();
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
async fn heard(silent: &Places) {
    for _ in 0..50 {
        if silent.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Binds a listener that nobody but this user may connect to, from its first moment on: the kernel takes the mode of a
/// socket's file from the socket.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

impl Inside {
    fn new(pipeline: mpsc::Sender<Control>, agents: AgentDesk, group: Option<u32>) -> Self {
        let own_uid = rustix::process::geteuid().as_raw();
        Self {
            pipeline,
            agents,
            own_uid,
            group,
            silent: Places::new(own_uid),
            asking: Places::new(own_uid),
            telling: Places::new(own_uid),
            idle: IDLE,
        }
    }

    fn let_in(&self, stream: UnixStream, connection: u64) {
        let Ok((peer, is_member)) = peer_of(&stream, self.group, self.own_uid) else {
            return;
        };
        let Some(place) = self.silent.enter(peer.uid) else {
            tracing::warn!(
                uid = peer.uid,
                "too many connections say nothing; another is closed"
            );
            return;
        };
        let inside = self.clone();
        tokio::spawn(async move {
            let first = tokio::time::timeout(PATIENCE, first_byte(&stream)).await;
            let Ok(Ok(Some(first))) = first else {
                return;
            };
            let rights = peer.rights(inside.own_uid, is_member);
            if Hello::may_begin(first) {
                match (rights, stream.into_std()) {
                    (Some(_), Ok(stream)) => inside.agents.take(stream, peer),
                    (None, _) => inside.agents.refuse(peer),
                    (_, Err(error)) => tracing::warn!(%error, "an agent's connection cannot be handed over"),
                }
                return;
            }
            drop(place);
            // Whoever may do no more than tell takes no place of those who ask.
            let kind = match rights {
                Some(Rights::Everything) => &inside.asking,
                _ => &inside.telling,
            };
            let Some(slot) = kind.enter(peer.uid) else {
                tracing::warn!(uid = peer.uid, "too many connections ask; another is closed");
                return;
            };
            if let Err(error) = inside.serve(stream, connection, peer, (rights, slot)).await {
                tracing::debug!(%error, "a control connection ended early");
            }
            drop(inside.pipeline.send(Control::Closed(connection)).await);
        });
    }

    async fn serve(
        &self,
        stream: UnixStream,
        connection: u64,
        peer: Peer,
        (rights, mut slot): (Option<Rights>, Place),
    ) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut has_run = false;
        loop {
            let mut line = String::new();
            let mut limited = (&mut read).take(LINE_LIMIT);
            let said = limited.read_line(&mut line);
            if has_run {
                said.await?;
            } else {
                tokio::time::timeout(self.idle, said).await??;
            }
            if !line.ends_with('\n') {
                return Ok(());
            }
            let answer = match serde_json::from_str::<Request>(&line) {
                Ok(request) if rights < Some(request.needs()) => {
                    error("this user may not ask that; ask as the daemon's user or as root")
                }
                Ok(request) => {
                    // One of our own that tells about itself once a second makes room for those who ask.
                    if request.needs() == Rights::Tell && slot.is_of(&self.asking) {
                        slot = self
                            .telling
                            .enter(peer.uid)
                            .ok_or_else(|| io::Error::other("too many tell about themselves"))?;
                    }
                    has_run = match request {
                        Request::RunBegin { .. } => true,
                        Request::RunEnd { .. } => false,
                        _ => has_run,
                    };
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
            let answer = format!("{answer}\n");
            tokio::time::timeout(PATIENCE, write.write_all(answer.as_bytes())).await??;
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

/// Who is at the other end, and whether it belongs to the group. That it could connect is not enough: modes are changed
/// by hand.
fn peer_of(stream: &UnixStream, group: Option<u32>, own: u32) -> io::Result<(Peer, bool)> {
    let credentials = stream.peer_cred()?;
    let peer = Peer {
        // Zero is a process that has no number here.
        pid: credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0),
        uid: credentials.uid(),
    };
    // The daemon's own user and root may do everything without it.
    let is_known = peer.uid == own || peer.uid == 0;
    let is_member = group
        .filter(|_| !is_known)
        .is_some_and(|group| credentials.gid() == group || has_group(peer_groups(stream), group));
    Ok((peer, is_member))
}

/// Old kernels and some sandboxes do not say which groups there are; then it is in none.
fn has_group(groups: io::Result<Vec<u32>>, group: u32) -> bool {
    groups.is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_collectors::{Agents, Progress};

    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_from_its_first_moment_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plimsoll.sock");
        let _listener = bind_private(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(BlockingStream::connect(&path).is_ok(), "it listens");
    }

    #[test]
    fn groups_that_cannot_be_asked_for_are_none() {
        assert!(has_group(Ok(vec![5, 7]), 7) && !has_group(Ok(vec![5]), 7));
        assert!(!has_group(Err(io::Error::other("ENOPROTOOPT")), 7));
    }

    /// The inside of a door, and what comes out of it.
    fn inside() -> (Inside, mpsc::Receiver<Control>, Agents) {
        let (pipeline, calls) = mpsc::channel(64);
        let nothing = Progress {
            taken_in: 0,
            stored: 0,
        };
        let agents = Agents::spawn(Arc::new(|_| true), Arc::new(|| 0), Arc::new(move || nothing)).unwrap();
        (Inside::new(pipeline, agents.desk(), None), calls, agents)
    }

    #[tokio::test]
    async fn who_says_nothing_for_long_is_let_go_unless_it_has_a_run() {
        let (mut inside, mut calls, _agents) = inside();
        inside.idle = Duration::from_millis(50);
        let (idle, theirs) = UnixStream::pair().unwrap();
        inside.let_in(theirs, 1);
        let (mut runs, theirs) = UnixStream::pair().unwrap();
        inside.let_in(theirs, 2);
        runs.write_all(b"{\"request\":\"run_begin\",\"name\":\"n\",\"pid\":1,\"command\":\"c\"}\n")
            .await
            .unwrap();
        let Some(Control::Call(call)) = calls.recv().await else {
            panic!("no call")
        };
        drop(call.answer);
        let (mut idle, mut byte) = (idle, [0]);
        idle.write_all(b"{").await.unwrap();
        assert_eq!(idle.read(&mut byte).await.unwrap_or(0), 0, "it is closed");
        let Some(Control::Closed(closed)) = calls.recv().await else {
            panic!("it is told")
        };
        assert_eq!(closed, 1);
        // The other was silent for as long.
        runs.write_all(b"{\"request\":\"run_end\",\"exit_code\":0}\n")
            .await
            .unwrap();
        let Some(Control::Call(call)) = calls.recv().await else {
            panic!("it is let go with its run")
        };
        assert_eq!(call.connection, 2);
    }

    #[tokio::test]
    async fn helpers_take_no_place_of_those_who_ask() {
        let (inside, mut calls, _agents) = inside();
        let mut helpers = Vec::new();
        for connection in 0..CONNECTIONS as u64 + 10 {
            let (mut helper, theirs) = UnixStream::pair().unwrap();
            inside.let_in(theirs, connection);
            helper.write_all(b"{\"request\":\"allocator\"}\n").await.unwrap();
            helpers.push(helper);
            // Each is a call, or closed for want of a place.
            drop(calls.recv().await);
        }
        let (mut asker, theirs) = UnixStream::pair().unwrap();
        inside.let_in(theirs, 1 << 20);
        asker.write_all(b"{\"request\":\"status\"}\n").await.unwrap();
        let asked = async {
            while let Some(control) = calls.recv().await {
                if matches!(control, Control::Call(call) if call.connection == 1 << 20) {
                    return true;
                }
            }
            false
        };
        assert!(asked.await);
    }

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
