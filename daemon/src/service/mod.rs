//! The service: what runs, from start to graceful end.

mod acting;
mod agents;
mod allocator;
mod answers;
mod control;
mod journal;
mod orders;
mod pace;
mod pipeline;
mod places;
mod remember;
mod restarts;
mod runs;
mod secrets;
mod snapshot;
mod socket;
mod sources;
mod status;
mod tell;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context;
use plimsoll_collectors::Watch as ProcessWatch;
use plimsoll_store::{Store, StoreOptions};
use plimsoll_trace::units::Size;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
pub(crate) use control::{Client, Request};
use pipeline::{Event, Pipeline};
use sources::Sources;
pub(crate) use tell::TraceWord;

/// How many events may wait for the loop. Each source has at most a few under way, so this is never reached in health;
/// when it is, the sources wait, and their missed ticks are counted.
const QUEUE: usize = 1024;

/// How long the service runs.
pub(crate) enum Until {
    /// Until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    Signal,
    /// Until told, or until the other end is gone; it says when it can be asked.
    Told {
        /// Told once the control socket listens.
        ready: oneshot::Sender<()>,
        /// Tells when to stop.
        stopped: oneshot::Receiver<()>,
    },
}

/// Runs the service, which listens at `socket`. `named` is the configuration file that `--config` named.
pub(crate) async fn run(
    config: Config,
    named: Option<PathBuf>,
    socket: PathBuf,
    until: Until,
) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let path = config.store_path();
    let store = Store::open(store_options(&config, &path))
        .await
        .context("the store cannot be opened")?;
    let (events, queue) = mpsc::channel(QUEUE);
    let path_of_socket = socket;
    let socket = socket::Socket::bind(&path_of_socket, config.agent_group)
        .with_context(|| format!("the control socket {} cannot be made", path_of_socket.display()))?;
    let sources =
        Sources::spawn(&config, &events, store.writer()).context("a collector cannot be started")?;
    let agents = sources.agents();
    let pipeline = Pipeline::new(
        config,
        named,
        &path,
        store.writer(),
        sources,
        socket.door(),
        events.clone(),
    )
    .await?;
    let (control, mut calls) = mpsc::channel(64);
    let _serving = socket.serve(control, agents);
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            if events.send(Event::Control(call)).await.is_err() {
                return;
            }
        }
    });
    match until {
        Until::Signal => listen_for_signals(pipeline.events())?,
        Until::Told { ready, stopped } => {
            let events = pipeline.events();
            tokio::spawn(async move {
                drop(stopped.await);
                drop(events.send(Event::Stop).await);
            });
            if ready.send(()).is_err() {
                tracing::debug!("whoever started the service has given up");
            }
        }
    }
    tracing::info!(store = %path.display(), socket = %path_of_socket.display(), "plimsoll is running");
    pipeline.run(queue).await;
    store.close().await.context("the last batch cannot be stored")?;
    tracing::info!("plimsoll has stopped");
    Ok(())
}

/// The store that `config` describes, at `path`.
pub(crate) fn store_options(config: &Config, path: &Path) -> StoreOptions {
    let Size(max_size_bytes) = config.store.max_size;
    StoreOptions {
        keep_raw: config.store.keep.raw.0,
        keep_seconds: config.store.keep.seconds.0,
        keep_minutes: config.store.keep.minutes.0,
        max_size_bytes,
        ..StoreOptions::new(path)
    }
}

/// Whose processes are looked for.
pub(crate) fn watches(config: &Config) -> Vec<ProcessWatch> {
    let watch = |engine: &crate::config::Engine| {
        Some(ProcessWatch {
            engine: engine.spec.name.clone(),
            matcher: engine.matcher.clone()?,
        })
    };
    config
        .engines
        .iter()
        .filter_map(|(engine, _)| watch(engine))
        .collect()
}

fn listen_for_signals(events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Hangup,
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
