//! How long a day of eight devices takes to read and draw: `cargo run --release -p plimsoll-reports --example day -- DIR`.
//!
//! Fills a store with 24 h at one reading a second (once; it is kept for the next call), then times each step.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use jiff::tz::TimeZone;
use plimsoll_reports::{Theme, load, show, svg};
use plimsoll_store::{Reader, Store, StoreOptions};
use plimsoll_trace::{
    Batch, DeviceInfo, DeviceSample, MemoryVersion, ProcessSample, Record, RunId, RunStart, Stamp, TraceTier,
};

const GIB: u64 = 1 << 30;
const START_SECS: i64 = 1_795_338_000;
const SECONDS: i64 = 86_400;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: day DIR")?);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("day.db");
    if !path.exists() {
        let started = Instant::now();
        fill(&path).await?;
        println!("filled in {:?}", started.elapsed());
    }
    let reader = Reader::open(&path).await?;
    let started = Instant::now();
    let timeline = load::timeline(&reader, &load::Request::default()).await?;
    let hour = started.elapsed();
    println!("1 h read in {hour:?}: {} devices", timeline.devices.len());
    for run in [None, Some(1)] {
        let request = load::Request {
            run,
            from_ns: Some(START_SECS * 1_000_000_000),
            ..load::Request::default()
        };
        let started = Instant::now();
        let timeline = load::timeline(&reader, &request).await?;
        let read = started.elapsed();
        let picture = svg(&timeline, Theme::Auto, &TimeZone::UTC)?;
        println!(
            "24 h of {run:?}: read in {read:?}, drawn in {:?}, {} bytes; {}",
            started.elapsed() - read,
            picture.len(),
            timeline.verdict(&TimeZone::UTC)
        );
        std::fs::write(folder.join(format!("day-{}.svg", run.unwrap_or(0))), picture)?;
    }
    let started = Instant::now();
    let now_ns = (START_SECS + SECONDS) * 1_000_000_000;
    let shown = show::load(&reader, 1, now_ns).await?;
    println!(
        "show in {:?}\n{}",
        started.elapsed(),
        show::text(&shown, &TimeZone::UTC, now_ns)
    );
    Ok(())
}

async fn fill(path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(StoreOptions::new(path)).await?;
    let writer = store.writer();
    let mut first = Batch::new(Stamp::at_secs(START_SECS));
    for device in 0..8 {
        first.records.push(Record::DeviceInfo(DeviceInfo {
            device: uuid(device).into(),
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            driver: Some("580.95.05".to_owned()),
            total_bytes: Some(80 * GIB),
            parent: None,
        }));
    }
    first.records.push(Record::RunStart(RunStart {
        id: RunId(1),
        name: "chat".to_owned(),
        engine: Some("chat".to_owned()),
        host: "gpu-host-03".to_owned(),
        pid: Some(3_000),
        command: Some("vllm serve".to_owned()),
        trace_tier: TraceTier::Off,
    }));
    writer.commit(first).await?;
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for second in 0..SECONDS {
        let mut batch = Batch::new(Stamp::at_secs(START_SECS + second));
        for device in 0..8_u32 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let held = 40 * GIB + noise % (20 * GIB);
            let mut sample = DeviceSample::unknown(uuid(device).into());
            sample.memory_version = Some(MemoryVersion::V2);
            sample.used_bytes = Some(held + GIB);
            sample.reserved_bytes = Some(GIB / 2);
            sample.total_bytes = Some(80 * GIB);
            sample.gpu_busy_ratio = Some(f64::from(u32::try_from(noise >> 40 & 1023).unwrap_or(0)) / 1024.0);
            batch.records.push(Record::Device(sample));
            for (pid, used_bytes, run) in [(3_000 + device, held, Some(RunId(1))), (9_000, GIB / 4, None)] {
                batch.records.push(Record::Process(ProcessSample {
                    device: uuid(device).into(),
                    pid,
                    run,
                    used_bytes: Some(used_bytes),
                    sm_busy_ratio: None,
                    process: Some("vllm".into()),
                    container: None,
                }));
            }
        }
        // Awaited now and then, so that the queue never overflows.
        if second % 300 == 299 {
            writer.commit(batch).await?;
        } else {
            writer.append(batch);
        }
    }
    store.close().await?;
    Ok(())
}

fn uuid(device: u32) -> String {
    format!("GPU-{device}b7c1d2e-55aa-4e0f-8b1c-0123456789a{device}")
}
