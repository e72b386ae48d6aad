//! The picture of a day: 8 devices, one reading a second.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use plimsoll_store::{Store, StoreOptions};
use plimsoll_trace::{
    Batch, DeviceInfo, DeviceSample, MemoryVersion, ProcessSample, Record, RunEnd, RunId, RunOutcome,
    RunStart, Stamp, TraceTier,
};

use crate::table::{Line, Section, quantile};
use crate::usage::ended_children_secs;
use crate::world::{GIB, World, number};

pub(crate) const DEVICES: u32 = 8;
pub(crate) const DAY_SECS: i64 = 86_400;
/// 2026-11-21 00:00 UTC.
pub(crate) const START_SECS: i64 = 1_795_219_200;
const REPETITIONS: u32 = 5;

const GOAL_SECS: f64 = 1.0;
const GOAL_BYTES: u32 = 150_000;

pub(crate) fn measure() -> anyhow::Result<Section> {
    let world = World::new(1)?;
    let database = world.database();
    let began = Instant::now();
    record_a_day(&database, DEVICES, reading)?;
    let filled_secs = began.elapsed().as_secs_f64();

    // Before the picture, so that both find the file in the page cache.
    let began = Instant::now();
    let devices = number(
        &database,
        "SELECT count(*) FROM device_samples WHERE used_bytes > 0",
    )?;
    let processes = number(
        &database,
        "SELECT count(*) FROM process_samples WHERE used_bytes > 0",
    )?;
    let scanned_secs = began.elapsed().as_secs_f64();

    let picture = world.path("x.svg");
    let report = timed(
        || {
            let mut report = world.plimsoll();
            report.args(["report", "last", "-o"]).arg(&picture);
            report
        },
        &database,
    )?;
    let size = u32::try_from(std::fs::metadata(&picture).context("there is no picture")?.len())?;
    let stored_mib = f64::from(u32::try_from(std::fs::metadata(&database)?.len() >> 10)?) / 1024.0;
    let secs = |value: f64| format!("{value:.2} s");
    let median = report.wall_secs;
    Ok(Section {
        title: "Drawing: 24 h at 1 reading a second, 8 devices, 16 processes".to_owned(),
        lines: vec![
            Line::new("`plimsoll report last`, median of 5", secs(median))
                .at_most(median, GOAL_SECS, "< 1 s")
                .floor(secs(scanned_secs)),
            Line::new("– its processor time", secs(report.cpu_secs)),
            Line::new("size of the picture", format!("{:.1} kB", f64::from(size) / 1e3)).at_most(
                f64::from(size),
                f64::from(GOAL_BYTES),
                "< 150 kB",
            ),
            Line::new(
                "the database: rows of devices, of processes",
                format!("{devices}, {processes}"),
            ),
            Line::new("– its size", format!("{stored_mib:.0} MiB")),
            Line::new("– written in bulk in", secs(filled_secs)),
        ],
        notes: Vec::new(),
    })
}

/// What a command takes.
pub(crate) struct Took {
    /// Median of the repetitions.
    pub(crate) wall_secs: f64,
    /// Mean processor time.
    pub(crate) cpu_secs: f64,
}

/// Runs a command that reads a store again and again.
pub(crate) fn timed(command: impl Fn() -> Command, database: &Path) -> anyhow::Result<Took> {
    let (mut wall, cpu_before) = (Vec::new(), ended_children_secs()?);
    for _ in 0..REPETITIONS {
        let began = Instant::now();
        let output = command().arg("--db").arg(database).output()?;
        wall.push(began.elapsed().as_secs_f64());
        ensure!(
            output.status.success(),
            "plimsoll: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(Took {
        wall_secs: quantile(&wall, 0.5),
        cpu_secs: (ended_children_secs()? - cpu_before) / f64::from(REPETITIONS),
    })
}

/// Stores a day of one run, whose records of each second are those of `reading`.
pub(crate) fn record_a_day(path: &Path, devices: u32, reading: fn(i64) -> Batch) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(store_a_day(path, devices, reading))
}

async fn store_a_day(path: &Path, devices: u32, reading: fn(i64) -> Batch) -> anyhow::Result<()> {
    let store = Store::open(StoreOptions::new(path)).await?;
    let writer = store.writer();
    let mut first = Batch::new(Stamp::at_secs(START_SECS));
    first.records.extend((0..devices).map(|device| {
        Record::DeviceInfo(DeviceInfo {
            device: uuid(device).into(),
            name: Some("Simulated GPU".to_owned()),
            driver: Some("580.95.05".to_owned()),
            total_bytes: Some(80 * GIB),
            parent: None,
        })
    }));
    first.records.push(Record::RunStart(RunStart {
        id: writer.next_run_id(),
        name: "chat".to_owned(),
        engine: Some("chat".to_owned()),
        host: "bench".to_owned(),
        pid: Some(3_000),
        process_key: None,
        command: Some("serve".to_owned()),
        trace_tier: TraceTier::Off,
    }));
    writer.commit(first).await?;
    for second in 0..DAY_SECS {
        let batch = reading(second);
        // Waited for now and then, so that the queue never overflows.
        if second % 300 == 299 {
            writer.commit(batch).await?;
        } else {
            writer.append(batch);
        }
    }
    let end = RunEnd {
        id: RunId(1),
        exit_code: Some(0),
        outcome: RunOutcome::Ok,
    };
    writer
        .commit(Batch {
            at: Stamp::at_secs(START_SECS + DAY_SECS),
            records: vec![Record::RunEnd(end)],
        })
        .await?;
    Ok(store.close().await?)
}

/// A server's second: it loads, its cache breathes with the load, traffic rises and falls.
pub(crate) fn reading(second: i64) -> Batch {
    let mut batch = Batch::new(Stamp::at_secs(START_SECS + second));
    #[expect(clippy::cast_precision_loss, reason = "seconds of one day")]
    let hours = second as f64 / 3600.0;
    let traffic = 0.5 - 0.4 * (hours / 24.0 * std::f64::consts::TAU).cos();
    for device in 0..DEVICES {
        let noise = f64::from(scatter(second, device)) / f64::from(u32::MAX);
        let loaded = (hours * 20.0).min(1.0);
        let held = gib(loaded * 40.0 + traffic * 20.0 + noise * 4.0);
        let mut sample = DeviceSample::unknown(uuid(device).into());
        sample.memory_version = Some(MemoryVersion::V2);
        (sample.reserved_bytes, sample.total_bytes) = (Some(600 << 20), Some(80 * GIB));
        sample.used_bytes = Some(held + GIB);
        sample.free_bytes = Some(79 * GIB - (600 << 20) - held);
        sample.gpu_busy_ratio = Some((traffic * (0.8 + 0.2 * noise) * 100.0).round() / 100.0);
        sample.memory_busy_ratio = sample.gpu_busy_ratio.map(|busy| busy / 2.0);
        sample.temperature_celsius = Some((40.0 + 35.0 * traffic).round());
        sample.power_watts = Some((100.0 + 500.0 * traffic + 20.0 * noise).round());
        batch.records.push(Record::Device(sample));
        for (pid, used_bytes, run) in [
            (3_000 + device, held, Some(RunId(1))),
            (9_000 + device, GIB / 2, None),
        ] {
            batch.records.push(Record::Process(ProcessSample {
                device: uuid(device).into(),
                pid,
                run,
                used_bytes: Some(used_bytes),
                sm_busy_ratio: None,
                process: Some("serve".into()),
                container: None,
            }));
        }
    }
    batch
}

/// The same disorder every time.
pub(crate) fn scatter(second: i64, device: u32) -> u32 {
    let mut bits = second.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(device);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    u32::try_from(bits >> 32).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 80")]
fn gib(gib: f64) -> u64 {
    (gib * 1024.0) as u64 * (GIB / 1024)
}

pub(crate) fn uuid(device: u32) -> String {
    format!("GPU-{device}b7c1d2e-55aa-4e0f-8b1c-0123456789a{device}")
}
