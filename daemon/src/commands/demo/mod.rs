//! `plimsoll demo`: the real service, in a process of its own, beside a simulated GPU and engine.

mod story;
mod summary;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use plimsoll_sim::demo::Demo;
use plimsoll_store::Reader;
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, query, runtime};
use crate::cli;
use crate::failure::{Failure, Status};
use crate::screen::say;
use story::Story;
use world::World;

/// How often the story looks into the database.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn run(arguments: &cli::Demo) -> Outcome {
    runtime()?.block_on(show(arguments))
}

async fn show(arguments: &cli::Demo) -> Outcome {
    let demo = Demo {
        seed: arguments.seed,
        duration: Duration::from_secs(u64::from(arguments.seconds)),
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(anyhow::Error::from)?;
    let mut world = World::build(&demo, &arguments.out)?;
    say(format_args!(
        "A simulated 24 GiB GPU, a simulated engine whose load grows for {} s, and the real plimsoll daemon.\n\
         Its rules: above 80 % enable gradient checkpointing, above 92 % quantize to int8.\n\
         Everything is left in {}. Ctrl-C ends it early.\n",
        arguments.seconds,
        arguments.out.display()
    ));
    let reader = world.wait_for_daemon().await?;
    let began = Instant::now();
    world.start_engine()?;
    let mut story = Story::begin();
    let mut stopped = false;
    while began.elapsed() < demo.duration && !stopped {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = interrupt.recv() => stopped = true,
            _ = terminate.recv() => stopped = true,
            _ = hangup.recv() => stopped = true,
        }
        world.check()?;
        story.tell(&reader).await?;
    }
    let restarts = world.end_engine(&reader).await?;
    story.tell(&reader).await?;
    drop(reader);
    world.end_daemon().await?;
    if stopped {
        let error = anyhow::anyhow!(
            "the demo was interrupted; what was recorded is in {}",
            arguments.out.display()
        );
        return Err(Failure::new(Status::Failed, error));
    }
    let reader = Reader::open(&world.files.store)
        .await
        .context("the demo's database cannot be read")?;
    query::draw(&reader, &world.run_name(), &world.files.timeline).await?;
    query::draw(&reader, &world.run_name(), &world.files.report).await?;
    let summary = summary::make(&reader, &world, &demo, restarts).await?;
    super::print(&summary.text)?;
    if summary.complete {
        return Ok(ExitCode::SUCCESS);
    }
    let error = anyhow::anyhow!(
        "not both rules were applied and kept with an effect that was seen and the comments intact; see {}",
        world.files.daemon_log.display()
    );
    Err(Failure::new(Status::Failed, error))
}
