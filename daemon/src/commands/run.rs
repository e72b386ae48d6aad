//! `plimsoll run`: a command recorded as a run. A daemon that keeps the same store does the recording; without one,
//! this process does, with the same pipeline.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use plimsoll_trace::TraceTier;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::injection::{self, Tracing};
use super::probe::{REMEDY, Told};
use super::{Outcome, runtime};
use crate::cli;
use crate::config::{Config, fits_socket, make_default_folder, socket_beside, socket_path};
use crate::failure::chain;
use crate::screen::say;
use crate::service::{self, Client, Request, Until};

/// What a shell answers when a command cannot be started.
const NOT_STARTED: u8 = 127;
/// The socket takes requests of up to 64 KiB; a longer command line is recorded as far as it fits.
const COMMAND_LIMIT: usize = 48 << 10;
const NAME_LIMIT: usize = 4 << 10;
/// A CUPTI that has not said by then whether it works is not loaded into the command. Where the driver is not kept loaded
/// it takes seconds to start, which the command would wait for anyway.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: cli::Run) -> Outcome {
    // A machine without a driver is told of in the recording; here the command has the word.
    super::start_log("warn,plimsoll_collectors::nvml=error", false);
    let named = arguments.source.config.config;
    let mut config = only_recording(Config::load(named.as_deref())?);
    let socket = match arguments.source.db {
        // The daemon that the environment names keeps another database than the one that is asked for.
        Some(db) => {
            let socket = socket_beside(&db);
            config.store.path = Some(db);
            socket
        }
        None => socket_path(&config.store_path()),
    };
    make_default_folder(&config.store_path())?;
    let name = arguments.name.unwrap_or_else(|| base_name(&arguments.command[0]));
    let tracing = Tracing {
        tier: arguments.trace,
        budget: arguments.budget,
    };
    runtime()?.block_on(async move {
        // Beside the recorder's start, which takes its time too.
        let probe = (tracing.tier > TraceTier::Off)
            .then(|| tokio::task::spawn_blocking(|| Told::by_child(PROBE_PATIENCE)));
        let job = Job {
            name,
            words: arguments.command,
            tracing,
            probe,
        };
        let recorder = match Client::connect(&socket) {
            Ok(client) => Recorder {
                client: Some(client),
                own: None,
                place: Place::of(socket),
            },
            Err(_) => Recorder::start(config, socket).await?,
        };
        record(recorder, job).await
    })
}

/// What is to be run and recorded.
struct Job {
    name: String,
    words: Vec<OsString>,
    tracing: Tracing,
    /// What a child that tries CUPTI out tells, if the command is to be traced.
    probe: Option<JoinHandle<std::io::Result<Told>>>,
}

/// Engines are the daemon's business. Without a file nobody edits this configuration, so they do not come back either.
fn only_recording(mut config: Config) -> Config {
    config.engines.clear();
    config.warnings.clear();
    config.file = None;
    config
}

/// Who records: a daemon at the other end of its socket, or a service of our own.
struct Recorder {
    /// `None` while somebody asks, and after a panic there.
    client: Option<Client>,
    own: Option<(oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>)>,
    place: Place,
}

/// Where the recorder's socket is.
struct Place {
    socket: PathBuf,
    /// The folder that was made for it, removed with it.
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    fn of(socket: PathBuf) -> Self {
        Self {
            socket,
            _folder: None,
        }
    }

    /// For a recorder that only this run asks: the socket may lie anywhere, and a path that is too long for the kernel is
    /// no reason not to run.
    fn of_own(socket: PathBuf) -> anyhow::Result<Self> {
        if fits_socket(&socket).is_ok() {
            return Ok(Self::of(socket));
        }
        let folder = tempfile::Builder::new().prefix("plimsoll-").tempdir_in("/tmp");
        let folder = folder.context("there is no short place for the control socket")?;
        Ok(Self {
            socket: folder.path().join("plimsoll.sock"),
            _folder: Some(folder),
        })
    }
}

impl Recorder {
    async fn start(config: Config, socket: PathBuf) -> anyhow::Result<Self> {
        let place = Place::of_own(socket)?;
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let until = Until::Told { ready, stopped };
        let mut service = tokio::spawn(service::run(config, None, place.socket.clone(), until));
        tokio::select! {
            Ok(()) = is_ready => {}
            ended = &mut service => {
                ended.context("the recorder cannot start")??;
            }
        }
        let client = Client::connect(&place.socket).context("the recorder does not answer")?;
        Ok(Self {
            client: Some(client),
            own: Some((stop, service)),
            place,
        })
    }

    /// Asks on a thread of its own, because the answer may come from this very runtime.
    async fn ask(&mut self, request: Request) -> anyhow::Result<()> {
        let mut client = self.client.take().context("the recorder does not answer")?;
        let asked = tokio::task::spawn_blocking(move || {
            let answer = client.ask(&request);
            (client, answer)
        });
        let (client, answer) = asked.await?;
        self.client = Some(client);
        answer.map(drop).context("the run cannot be recorded")
    }

    /// Ends what there is. A service of our own stores all that it has taken in, and all that agents have written, before
    /// it ends: also what took it too long to answer for.
    async fn finish(self) -> anyhow::Result<()> {
        if let Some((stop, service)) = self.own {
            if stop.send(()).is_err() {
                tracing::debug!("the recorder has ended already; its result says why");
            }
            service.await??;
        }
        // Not before: a command that hangs up has an end that nobody knows.
        drop(self.client);
        Ok(())
    }
}

async fn record(mut recorder: Recorder, job: Job) -> Outcome {
    let Job {
        name,
        words,
        mut tracing,
        probe,
    } = job;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if let Some(probe) = probe {
        let variables = match harm(probe).await {
            Some(why) => Err(why),
            None => injection::variables(tracing, &recorder.place.socket),
        };
        match variables {
            Ok(variables) => {
                command.envs(variables);
            }
            Err(why) => {
                say(format_args!("plimsoll: GPU work will not be traced: {why}"));
                tracing.tier = TraceTier::Off;
            }
        }
    }
    // Before there is a command that a signal could miss.
    let signals = signals_to_forward().map_err(anyhow::Error::from)?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            say(format_args!("plimsoll: {}", not_started(&words[0], &error)));
            recorder.finish().await?;
            return Ok(ExitCode::from(NOT_STARTED));
        }
    };
    let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let begin = Request::RunBegin {
        name: shortened(name, NAME_LIMIT),
        pid: child.id().unwrap_or(0),
        command: shortened(line.join(" "), COMMAND_LIMIT),
        trace_tier: tracing.tier,
    };
    // From here on the command comes first: recording troubles are told at its end and never change its status.
    let begun = recorder.ask(begin).await;
    let status = wait(&mut child, signals).await.map_err(anyhow::Error::from)?;
    let code = exit_code(status);
    let ended = match begun {
        Ok(()) => {
            let exit_code = i32::from(code);
            recorder.ask(Request::RunEnd { exit_code }).await
        }
        Err(error) => Err(error),
    };
    let is_late = recorder.own.is_some() && ended.as_ref().is_err_and(is_timeout);
    let mut finished = recorder.finish().await;
    if !is_late {
        finished = ended.and(finished);
    }
    if let Err(error) = finished {
        say(format_args!(
            "plimsoll: the run is not fully recorded: {}",
            chain(&error)
        ));
    }
    Ok(ExitCode::from(code))
}

/// Whether the answer only took too long.
fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Why CUPTI must not be loaded into the command, if it must not. A probe that could not be made says nothing of CUPTI.
async fn harm(probe: JoinHandle<std::io::Result<Told>>) -> Option<String> {
    match probe.await {
        Ok(Ok(told)) => told.harm().map(|harm| format!("{harm}; {REMEDY}")),
        problem => {
            tracing::debug!(?problem, "CUPTI was not tried out");
            None
        }
    }
}

/// The signals to hand on to the command, from now on. What is ignored here (as under nohup) the command ignores too, and
/// stays ignored. What the terminal sends to the whole foreground group reaches the command by itself.
fn signals_to_forward() -> std::io::Result<mpsc::Receiver<Signal>> {
    let from_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let (forward, forwarded) = mpsc::channel(16);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (kind, number, by_terminal) in [
        (SignalKind::interrupt(), Signal::INT, true),
        (SignalKind::quit(), Signal::QUIT, true),
        (SignalKind::terminate(), Signal::TERM, false),
        (SignalKind::hangup(), Signal::HUP, false),
        (SignalKind::user_defined1(), Signal::USR1, false),
        (SignalKind::user_defined2(), Signal::USR2, false),
    ] {
        if is_ignored(&status, number) {
            continue;
        }
        let mut stream = signal(kind)?;
        let forward = forward.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let handed_on = by_terminal && from_terminal;
                if !handed_on && forward.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(forwarded)
}

/// Whether bit n-1 of `SigIgn` is set (proc_pid_status(5)).
fn is_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    u32::try_from(signal.as_raw() - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// Waits for the command and hands on the signals that it should have.
async fn wait(child: &mut Child, mut signals: mpsc::Receiver<Signal>) -> std::io::Result<ExitStatus> {
    loop {
        let signal = tokio::select! {
            status = child.wait() => return status,
            Some(signal) = signals.recv() => signal,
        };
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, "the command has ended this very moment");
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn not_started(command: &OsStr, error: &std::io::Error) -> String {
    let name = command.to_string_lossy();
    let is_path = name.contains('/');
    match error.kind() {
        ErrorKind::NotFound if name.is_empty() => "the command is empty; write it behind `--`".to_owned(),
        ErrorKind::NotFound if is_path => {
            format!("'{name}' cannot be started: there is no such file, or its interpreter is missing")
        }
        ErrorKind::NotFound => format!("'{name}' cannot be started: no folder in PATH has it"),
        ErrorKind::PermissionDenied => format!(
            "'{name}' cannot be started: this user may not execute it (chmod +x makes a file executable)"
        ),
        _ => format!("'{name}' cannot be started: {error}"),
    }
}

/// The text, cut off where it would take more than `limit` bytes of a request.
fn shortened(mut text: String, limit: usize) -> String {
    let mut length = 0;
    let end = text.char_indices().find(|(_, character)| {
        // As JSON writes them.
        length += match character {
            '"' | '\\' => 2,
            '\0'..='\x1f' => 6,
            other => other.len_utf8(),
        };
        length > limit
    });
    if let Some((end, _)) = end {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn base_name(command: &OsStr) -> String {
    PathBuf::from(command)
        .file_name()
        .unwrap_or(command)
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_run_only_records() {
        let text =
            "[http]\nlisten = \"127.0.0.1:1\"\n[engine.e]\nprofile = \"custom\"\nmatch = { exe = \"e\" }\n";
        let config = Config::parse(text, Path::new("/etc/plimsoll/plimsoll.toml")).unwrap();
        assert_eq!((config.engines.len(), config.warnings.len()), (1, 1));
        let config = only_recording(config);
        assert!(config.engines.is_empty() && config.warnings.is_empty());
        // What is not known cannot be watched for edits, which would bring the engines back.
        assert_eq!(config.file, None);
    }

    #[test]
    fn what_is_recorded_fits_into_a_request() {
        assert_eq!(shortened("serve".to_owned(), 5), "serve");
        assert_eq!(shortened("serve".to_owned(), 4), "serv…");
        for text in ["x", "é", "\"", "\n", "🦀"] {
            let command = shortened(text.repeat(100_000), COMMAND_LIMIT);
            let name = shortened(text.repeat(100_000), NAME_LIMIT);
            let request = Request::RunBegin {
                name,
                pid: 1,
                command,
                trace_tier: plimsoll_trace::TraceTier::Off,
            };
            let line = serde_json::to_string(&request).unwrap();
            assert!(line.len() < 60 << 10, "{text}: {}", line.len());
        }
    }
}
