//! Reports on a day of a traced process: one device, fifty kernels, a window of each every second.

use std::time::Instant;

use plimsoll_trace::{
    Batch, DeviceSample, KernelWindow, ProcessSample, Record, RunId, Stamp, Traced, Work, sketch,
};

use crate::drawing::{DAY_SECS, START_SECS, record_a_day, scatter, timed, uuid};
use crate::table::{Line, Section};
use crate::world::{GIB, World, number};

const KERNELS: u32 = 50;
const PID: u32 = 3_000;
const SECOND_NS: i64 = 1_000_000_000;

const GOAL_SECS: f64 = 2.0;

pub(crate) fn measure() -> anyhow::Result<Section> {
    let world = World::new(1)?;
    let database = world.database();
    let began = Instant::now();
    record_a_day(&database, 1, reading)?;
    let filled_secs = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let windows = number(
        &database,
        "SELECT count(*) FROM kernel_windows WHERE total_ns > 0",
    )?;
    let scanned_secs = began.elapsed().as_secs_f64();
    let minutes = number(&database, "SELECT count(*) FROM kernel_minutes")?;

    let picture = world.path("x.svg");
    let picture = picture.to_string_lossy();
    let mut lines = Vec::new();
    for words in [
        &["report", "last", "-o", &*picture][..],
        &["show", "last"],
        &["kernels", "last"],
    ] {
        let command = || {
            let mut command = world.plimsoll();
            command.args(words);
            command
        };
        let took = timed(command, &database)?;
        let name = words.get(..2).unwrap_or_default().join(" ");
        lines.push(
            Line::new(format!("`plimsoll {name}`, median of 5"), secs(took.wall_secs))
                .at_most(took.wall_secs, GOAL_SECS, "< 2 s")
                .floor(secs(scanned_secs)),
        );
        lines.push(Line::new("– its processor time", secs(took.cpu_secs)));
    }
    let stored_mib = f64::from(u32::try_from(std::fs::metadata(&database)?.len() >> 10)?) / 1024.0;
    lines.push(Line::new(
        "the database: windows, minutes of kernels",
        format!("{windows}, {minutes}"),
    ));
    lines.push(Line::new("– its size", format!("{stored_mib:.0} MiB")));
    lines.push(Line::new("– written in bulk in", secs(filled_secs)));
    Ok(Section {
        title: "Reports: 24 h of one process with 50 kernels".to_owned(),
        lines,
        notes: Vec::new(),
    })
}

fn secs(value: f64) -> String {
    format!("{value:.2} s")
}

fn reading(second: i64) -> Batch {
    let mut batch = Batch::new(Stamp::at_secs(START_SECS + second));
    let device = uuid(0);
    let mut sample = DeviceSample::unknown(device.as_str().into());
    (sample.used_bytes, sample.total_bytes) = (Some(20 * GIB), Some(80 * GIB));
    sample.gpu_busy_ratio = Some(0.9);
    batch.records.push(Record::Device(sample));
    batch.records.push(Record::Process(ProcessSample {
        device: device.as_str().into(),
        pid: PID,
        run: Some(RunId(1)),
        used_bytes: Some(19 * GIB),
        sm_busy_ratio: None,
        process: Some("serve".into()),
        container: None,
    }));
    let traced = |device, work| {
        Record::Traced(Traced {
            pid: PID,
            run: Some(RunId(1)),
            device,
            work,
        })
    };
    let end_ns = (START_SECS + second.min(DAY_SECS)) * SECOND_NS;
    batch.records.extend((0..KERNELS).map(|kernel| {
        let mean_ns = 1_000 + u64::from(kernel) * 200;
        let count = 100 + u64::from(scatter(second, kernel) % 1_000);
        let window = KernelWindow {
            name: format!("_ZN4test9kernel_{kernel:02}IfEEvPT_PKS1_mmiS4_bbfS1_jjjjjPKv").into(),
            start_ns: end_ns - SECOND_NS,
            end_ns,
            count,
            total_ns: count * mean_ns,
            min_ns: mean_ns / 2,
            max_ns: mean_ns * 3,
            buckets: vec![(sketch::bucket(mean_ns), count)],
        };
        traced(Some(device.as_str().into()), Work::Kernels(window))
    }));
    let signal = "agent.duty_ratio".into();
    batch
        .records
        .push(traced(None, Work::Signal { signal, value: 1.0 }));
    batch
}
