//! The engine as a process: real time, the simulated card, signals and a socket around the [`Server`].
//!
//! One thread does everything. Each tick reads the clock, lets the engine go on to that moment of the simulated world,
//! and puts on the card what the engine holds. Requests that came while no engine lived are still there at the next
//! start, as far as the queue takes them: their senders try again. Those that a dead engine had taken are lost.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_trace::Stamp;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::args::EngineArgs;
use crate::card::{Card, CardError};
use crate::config::{Config, ConfigError};
use crate::http::{Shared, lock, router};
use crate::journal::{Journal, JournalError, replace};
use crate::scenario::MAX_DURATION_SECS;
use crate::server::{Parts, Reload, Server};
use crate::traced::Traced;
use crate::workload::{Workload, WorkloadError};

/// How often the engine goes on.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// Why an engine did not start or go on.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    #[error("invalid configuration {path}")]
    Config { path: PathBuf, source: ConfigError },
    #[error("invalid --speed {0}: a factor above 0 is needed")]
    Speed(f64),
    #[error("invalid --duration {0}: seconds above 0, at most {max} are needed", max = MAX_DURATION_SECS)]
    Duration(f64),
    #[error("invalid workload")]
    Workload(#[from] WorkloadError),
    #[error("no books")]
    Journal(#[from] JournalError),
    #[error("no place on the card")]
    Card(#[from] CardError),
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
}

impl EngineError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }
}

/// Runs an engine until it ends. Returns its exit code: 0 after SIGTERM or SIGINT; 1 when memory ran out, a reload
/// killed it, or something it needs is missing; 2 when its configuration, its load or its arguments are invalid.
#[must_use]
pub fn run_engine(args: &EngineArgs) -> i32 {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(EngineError::io("starting a runtime"))
        .and_then(|runtime| runtime.block_on(serve(args)));
    result.unwrap_or_else(|error| {
        say(&format!("error: {}", chain(&error)));
        match error {
            EngineError::Config { .. }
            | EngineError::Speed(_)
            | EngineError::Duration(_)
            | EngineError::Workload(_) => 2,
            _ => 1,
        }
    })
}

/// An error with everything that led to it, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |&source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn say(line: &str) {
    eprintln!("{line}");
}

async fn serve(args: &EngineArgs) -> Result<i32, EngineError> {
    if args.die_with_parent {
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|e| EngineError::io("asking to end with the parent")(e.into()))?;
    }
    if !(args.speed > 0.0 && args.speed.is_finite()) {
        return Err(EngineError::Speed(args.speed));
    }
    let (config, config_sha256) = Config::read(&args.config).map_err(|source| EngineError::Config {
        path: args.config.clone(),
        source,
    })?;
    let workload = load(args)?;
    let start = Stamp::now();
    let (journal, mut books) = Journal::open(args.journal.as_deref(), args.epoch_ns, start.unix_ns)?;
    let clock = Clock {
        start,
        epoch_ns: books.epoch_ns,
        speed: args.speed,
    };
    if args.journal.is_none() {
        // Without books nothing is known of the time before this start.
        let start_secs = clock.at(start);
        books.next_arrival = workload
            .arrivals
            .partition_point(|arrival| arrival.at_secs < start_secs);
    }
    let card = Card::take(&args.gpu, args.device)?;
    let (traced, problem) = Traced::start(&args.gpu, args.device, &card.uuid());
    if let Some(problem) = problem {
        say(&format!("engine: cannot be traced: {problem}"));
    }

    // Handlers first: whoever finds the port may signal.
    let handler = |kind| signal(kind).map_err(EngineError::io("installing a signal handler"));
    let mut hangup = if args.no_hup {
        None
    } else {
        Some(handler(SignalKind::hangup())?)
    };
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;

    let listening = EngineError::io(format!("listening on {}", config.listen));
    let (listener, listen) = match TcpListener::bind(config.listen).await {
        Ok(listener) => listener.local_addr().map(|address| (listener, address)),
        Err(error) => Err(error),
    }
    .map_err(listening)?;
    let server = Arc::new(Mutex::new(Server::new(Parts {
        config_path: args.config.clone(),
        config,
        config_sha256,
        hardware: card.hardware(),
        listen,
        workload,
        books,
        start_secs: clock.at(start),
        fault: args
            .reload_fault
            .map(|fault| (fault, args.reload_fault_times.unwrap_or(u32::MAX))),
    })));
    let mut life = Life {
        server: Arc::clone(&server),
        card,
        traced,
        shown: Stamp::now(),
        clock,
        journal,
        journal_failed: false,
    };
    let http = axum::serve(listener, router(Arc::clone(&server)));
    let mut http = std::pin::pin!(http.into_future());
    if let Some(path) = &args.port_file {
        replace(path, &listen.port().to_string()).map_err(EngineError::io(format!(
            "writing the port file {}",
            path.display()
        )))?;
    }
    say(&format!(
        "engine: listening on {listen}, loading {}",
        lock(&server).model_name()
    ));

    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => if let Some(code) = life.tick() { return Ok(code) },
            () = next(&mut hangup) => life.reload(),
            _ = terminate.recv() => return Ok(life.end()),
            _ = interrupt.recv() => return Ok(life.end()),
            ended = &mut http => {
                let source = ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                return Err(EngineError::io("serving HTTP")(source));
            }
        }
    }
}

fn load(args: &EngineArgs) -> Result<Workload, EngineError> {
    if !(args.duration > 0.0 && args.duration <= MAX_DURATION_SECS) {
        return Err(EngineError::Duration(args.duration));
    }
    Ok(match (&args.workload, args.scenario, args.seed) {
        (Some(path), ..) => Workload::read(path)?,
        (None, None, None) => Workload::default(),
        (None, scenario, seed) => scenario
            .unwrap_or_default()
            .workload(seed.unwrap_or(0), args.duration),
    })
}

/// Waits for the next signal of a handler; for ever if there is no handler.
async fn next(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Real time as time of the simulated world. Once started, only the monotonic clock counts.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Stamp,
    epoch_ns: i64,
    speed: f64,
}

impl Clock {
    /// Seconds of the simulated world since the load began.
    fn at(&self, now: Stamp) -> f64 {
        let before_ns = self.start.unix_ns.saturating_sub(self.epoch_ns) as f64;
        (before_ns / 1e9 + now.since(self.start).as_secs_f64()) * self.speed
    }
}

/// One life of the engine.
struct Life {
    server: Shared,
    card: Card,
    traced: Traced,
    /// When the engine's work was last shown to whoever traces it.
    shown: Stamp,
    clock: Clock,
    journal: Journal,
    journal_failed: bool,
}

impl Life {
    /// Goes on to now; an exit code if that was the end.
    fn tick(&mut self) -> Option<i32> {
        let now = Stamp::now();
        let now_secs = self.clock.at(now);
        let mut server = lock(&self.server);
        if server.crashed() {
            say("engine: fatal error during reload: CUDA error: an illegal memory access was encountered");
            return Some(1);
        }
        if let Some(bytes) = server.neighbor_bytes(now_secs) {
            self.card.set_neighbor(bytes);
        }
        let went_on = server.go_on(now_secs, self.card.limit_bytes());
        let held = went_on.and_then(|busy| {
            self.card.hold(server.memory().total_bytes())?;
            Ok(busy)
        });
        if held.is_err() {
            server.close_books();
        }
        if let Err(error) = self.journal.save(server.books())
            && !std::mem::replace(&mut self.journal_failed, true)
        {
            say(&format!(
                "engine: writing the journal failed: {error}; the next life will not know all of this one"
            ));
        }
        match held {
            Ok(busy) => {
                if let Some(busy) = busy {
                    self.card.show_work(busy);
                    let elapsed = now.since(self.shown);
                    self.shown = now;
                    self.traced
                        .show(elapsed, busy, server.memory(), server.quantization());
                }
                None
            }
            Err(out) => {
                say(&self.card.last_words(&out));
                Some(1)
            }
        }
    }

    fn reload(&self) {
        let begun = lock(&self.server).reload();
        say(&match begun {
            Reload::Refused(reason) => format!("engine: reload refused, nothing changed: {reason}"),
            Reload::Loading(_) | Reload::Done | Reload::Silent => "engine: reloading".to_owned(),
        });
    }

    fn end(&self) -> i32 {
        say("engine: ending");
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_clock_counts_from_the_epoch_at_its_speed() {
        let start = Stamp::at_secs(100);
        let clock = Clock {
            start,
            epoch_ns: 90_000_000_000,
            speed: 2.0,
        };
        assert_eq!(clock.at(start), 20.0);
        assert_eq!(clock.at(start.plus(Duration::from_secs(5))), 30.0);
    }

    #[test]
    fn errors_are_told_with_their_causes() {
        let error = EngineError::io("listening on 127.0.0.1:1")(io::Error::other("no"));
        assert_eq!(chain(&error), "listening on 127.0.0.1:1: no");
    }
}
