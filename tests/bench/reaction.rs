//! From the moment a value crosses a rule's line to the moment the engine is told.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::Context;
use plimsoll_trace::Stamp;
use serde_json::Value;

use crate::stand_in::ENGINE;
use crate::table::{Line, Section, quantile};
use crate::world::{GIB, Running, World, wait_until};

const INTERVAL_MS: f64 = 100.0;
const GOAL_MS: f64 = INTERVAL_MS + 50.0;
/// What the line of 80 % is crossed with; the engine holds 20 GiB of 80.
const PRESSURE: u64 = 50 * GIB;

/// One crossing.
struct Reaction {
    /// From the crossing to the signal.
    total_ms: f64,
    /// From the crossing to the tick whose reading shows it: on average half an interval, at most one.
    sampled_ms: f64,
}

pub(crate) fn measure(crossings: u32) -> anyhow::Result<Section> {
    let reactions = (0..crossings)
        .map(|_| cross())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let of = |figure: fn(&Reaction) -> f64| reactions.iter().map(figure).collect::<Vec<f64>>();
    let (total, sampled) = (of(|one| one.total_ms), of(|one| one.sampled_ms));
    let own = of(|one| one.total_ms - one.sampled_ms);
    let ms = |values: &[f64], share| format!("{:.1} ms", quantile(values, share));
    let line = |name: &str, share| {
        Line::new(
            format!("line crossed → SIGHUP arrives, {name}"),
            ms(&total, share),
        )
    };
    let worst = quantile(&total, 1.0);
    let goal = format!("≤ {GOAL_MS:.0} ms");
    Ok(Section {
        title: format!("Reaction: sampling every 100 ms, `for = \"0\"`, {crossings} crossings"),
        lines: vec![
            line("median", 0.5)
                .at_most(quantile(&total, 0.5), GOAL_MS, &goal)
                .floor(ms(&sampled, 0.5)),
            line("95th percentile", 0.95)
                .at_most(quantile(&total, 0.95), GOAL_MS, &goal)
                .floor(ms(&sampled, 0.95)),
            line("worst", 1.0)
                .at_most(worst, GOAL_MS, &goal)
                .floor(ms(&sampled, 1.0)),
            Line::new("– of it after the reading, median", ms(&own, 0.5)),
            Line::new("– of it after the reading, worst", ms(&own, 1.0)),
        ],
        notes: Vec::new(),
    })
}

/// One world, one engine, one crossing.
fn cross() -> anyhow::Result<Reaction> {
    let world = World::new(1)?;
    let (engine, mut said) = engine(&world)?;
    let port = next_number(&mut said)?;
    let place = world.gpu.attach(0, engine.pid())?;
    place.resize(20 * GIB)?;
    let file = world.path("engine.yaml");
    fs::write(&file, "model:\n  quantization: none\n")?;
    let daemon = world.daemon("100ms", &config(&world, port))?;
    wait_until("the daemon knows the engine", || {
        let status = world.plimsoll().args(["status", "--json"]).output()?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        Ok(status
            .pointer("/devices/0/processes/0/run")
            .is_some_and(Value::is_i64))
    })?;

    let crossed = Stamp::now();
    world.gpu.device(0).set_other_used_bytes(PRESSURE);
    let told_ns = next_number(&mut said)?;
    // Stored with the decision, before the file was written.
    let sql = format!("SELECT min(at_ns) FROM device_samples WHERE used_bytes >= {PRESSURE}");
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a time that a database holds as an integer"
    )]
    let sampled_ns = world.number(&sql)? as i64;
    drop((daemon, engine));
    Ok(Reaction {
        total_ms: to_ms(told_ns - crossed.mono_ns),
        sampled_ms: to_ms(sampled_ns - crossed.unix_ns),
    })
}

fn config(world: &World, port: i64) -> String {
    format!(
        r#"[engine.stand-in]
profile = "custom"
match = {{ args = "{ENGINE} {}" }}
config = {:?}
reload = {{ signal = "HUP" }}
health = {{ http = "http://127.0.0.1:{port}/health", within = "10s" }}

[[rule]]
name = "quantize"
engine = "stand-in"
mode = "act"
when = {{ signal = "vram.used_ratio", enter = "80%", exit = "60%" }}
set = {{ "model.quantization" = "int8" }}
for = "0"
"#,
        world.path("").display(),
        world.path("engine.yaml"),
    )
}

/// Starts the engine; its command line names the world, so that no other one is taken for it.
fn engine(world: &World) -> anyhow::Result<(Running, BufReader<ChildStdout>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(ENGINE)
        .arg(world.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut engine = Running(command.spawn()?);
    let said = engine.0.stdout.take().context("the engine's output")?;
    Ok((engine, BufReader::new(said)))
}

fn next_number(said: &mut impl BufRead) -> anyhow::Result<i64> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    line.trim()
        .parse()
        .with_context(|| format!("the engine said {line:?}"))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a difference of times, far below 2^52 ns"
)]
fn to_ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}
