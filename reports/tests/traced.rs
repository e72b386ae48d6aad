//! Reports of runs whose GPU work was traced, out of a real store.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::tz::{Offset, TimeZone};
use plimsoll_reports::family::Family;
use plimsoll_reports::load::{self, Request};
use plimsoll_reports::timeline::{GpuTime, Timeline};
use plimsoll_reports::{Theme, export, flame, html, show, svg};
use plimsoll_store::{Reader, Store, StoreOptions};
use plimsoll_trace::wire::Direction;
use plimsoll_trace::{
    AllocatorSample, Batch, CopyWindow, DeviceInfo, DeviceSample, Event, EventKind, KernelSpan, KernelWindow,
    Level, MemoryVersion, ProcessSample, Record, RunId, RunStart, Stamp, TraceTier, Traced, Work,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

const GIB: u64 = 1 << 30;
const MS: u64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// 2026-11-22 09:00:00 UTC.
const START: i64 = 1_795_338_000;
const PID: u32 = 4242;

fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(1))
}

fn traced(device: Option<&str>, work: Work) -> Record {
    Record::Traced(Traced {
        pid: PID,
        run: Some(RunId(1)),
        device: device.map(Into::into),
        work,
    })
}

/// Launches that ended in the second before `second`.
fn kernels(second: i64, name: &str, total_ms: u64) -> Record {
    let window = KernelWindow {
        name: name.into(),
        start_ns: (START + second - 1) * SECOND,
        end_ns: (START + second) * SECOND,
        count: 10,
        total_ns: total_ms * MS,
        min_ns: MS,
        max_ns: 9 * MS,
        buckets: vec![(80, 10)],
    };
    traced(Some("GPU-a"), Work::Kernels(window))
}

fn copies(second: i64, total_ms: u64) -> Record {
    let window = CopyWindow {
        direction: Direction::HostToDevice,
        start_ns: (START + second - 1) * SECOND,
        end_ns: (START + second) * SECOND,
        count: 1,
        bytes: GIB,
        total_ns: total_ms * MS,
    };
    traced(Some("GPU-a"), Work::Copies(window))
}

fn duty(ratio: f64) -> Record {
    let signal = "agent.duty_ratio".into();
    traced(None, Work::Signal { signal, value: ratio })
}

fn held(used_bytes: u64) -> [Record; 2] {
    let mut sample = DeviceSample::unknown("GPU-a".into());
    sample.memory_version = Some(MemoryVersion::V2);
    sample.used_bytes = Some(used_bytes + 2 * GIB);
    sample.reserved_bytes = Some(GIB / 2);
    sample.total_bytes = Some(24 * GIB);
    sample.gpu_busy_ratio = Some(0.5);
    let process = ProcessSample {
        device: "GPU-a".into(),
        pid: PID,
        run: Some(RunId(1)),
        used_bytes: Some(used_bytes),
        sm_busy_ratio: None,
        process: Some("server".into()),
        container: None,
    };
    [Record::Device(sample), Record::Process(process)]
}

/// Forty seconds of one run: what is added to each second is the test's.
async fn story(path: &Path, second_by_second: impl Fn(i64) -> Vec<Record>) -> Reader {
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    for second in 0..=40 {
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        if second == 0 {
            batch.records.push(Record::DeviceInfo(DeviceInfo {
                device: "GPU-a".into(),
                name: Some("NVIDIA Test 24GB".to_owned()),
                driver: Some("580.95.05".to_owned()),
                total_bytes: Some(24 * GIB),
                parent: None,
            }));
            batch.records.push(Record::RunStart(RunStart {
                id: RunId(1),
                name: "chat".to_owned(),
                engine: None,
                host: "box".to_owned(),
                pid: Some(PID),
                process_key: None,
                command: Some("server".to_owned()),
                trace_tier: TraceTier::Graph,
            }));
        }
        batch.records.extend(held(8 * GIB));
        batch.records.extend(second_by_second(second));
        store.writer().commit(batch).await.expect("stored");
    }
    store.close().await.expect("closed");
    Reader::open(path).await.expect("a reader")
}

async fn timeline(reader: &Reader) -> Timeline {
    let request = Request {
        run: Some(1),
        ..Request::default()
    };
    load::timeline(reader, &request).await.expect("a timeline")
}

/// Seconds of the time that fall into a family, and of those recorded, between two seconds.
fn between(timeline: &Timeline, from: i64, to: i64, family: Family) -> (f64, f64) {
    let [from, to] = [from, to].map(|second| (START + second) * SECOND);
    let times = timeline.devices[0].gpu_time.iter();
    let times: Vec<&GpuTime> = times
        .filter(|time| time.from_ns >= from && time.to_ns <= to)
        .collect();
    let place = Family::ALL
        .iter()
        .position(|other| *other == family)
        .expect("a family");
    let secs = |ns: u64| ((ns / MS) as f64 / 100.0).round() / 10.0;
    let sum = |of: &dyn Fn(&GpuTime) -> u64| secs(times.iter().map(|time| of(time)).sum());
    (sum(&|time| time.family_ns[place]), sum(&|time| time.recorded_ns))
}

#[tokio::test]
async fn a_wide_window_is_read_by_the_minute_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("t.db"), |second| {
        vec![
            kernels(second, "ampere_sgemm_128x64", 300),
            kernels(second, "flash_fwd_kernel", 100),
            duty(1.0),
        ]
    })
    .await;
    let request = |from_ns| Request {
        run: Some(1),
        from_ns: Some(from_ns),
        ..Request::default()
    };
    // Stretches of less than a second, and of more than a minute.
    for before_secs in [20, 4 * 3_600] {
        let request = request((START - before_secs) * SECOND);
        let timeline = load::timeline(&reader, &request).await.expect("a timeline");
        let sum = |part: &dyn Fn(&GpuTime) -> u64| {
            (timeline.devices[0].gpu_time.iter().map(part).sum::<u64>() + MS / 2) / MS
        };
        let of = |family: Family| sum(&move |time| time.family_ns[family as usize]);
        assert_eq!(
            [
                of(Family::Gemm),
                of(Family::Attention),
                sum(&|time| time.recorded_ns)
            ],
            [41 * 300, 41 * 100, 41_000],
            "{before_secs}"
        );
    }
}

#[tokio::test]
async fn traced_kernels_become_shares_of_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("traces.db"), |second| match second {
        // Busy, then idle, then the governor lets the agent rest, then half of the time.
        1..=10 => vec![
            kernels(second, "_Z16flash_fwd_kernelPf", 200),
            kernels(second, "ampere_sgemm_128x64", 400),
            copies(second, 100),
            duty(1.0),
        ],
        11..=20 => vec![duty(1.0)],
        21..=30 => vec![duty(0.0)],
        31..=40 => vec![kernels(second, "ampere_sgemm_128x64", 250), duty(0.5)],
        _ => Vec::new(),
    })
    .await;
    let timeline = timeline(&reader).await;
    assert_eq!(between(&timeline, 0, 10, Family::Attention), (2.0, 9.9));
    assert_eq!(between(&timeline, 0, 10, Family::Gemm), (4.0, 9.9));
    assert_eq!(between(&timeline, 0, 10, Family::Copy), (1.0, 9.9));
    assert_eq!(between(&timeline, 11, 20, Family::Gemm), (0.0, 8.8));
    assert_eq!(between(&timeline, 21, 30, Family::Gemm), (0.0, 0.0));
    assert_eq!(between(&timeline, 31, 40, Family::Gemm), (2.2, 4.4));
    let picture = svg(&timeline, Theme::Light, &zone()).expect("a picture");
    assert!(
        picture.contains("kernels not recorded: 37.5 % of the time"),
        "{picture}"
    );
}

#[tokio::test]
async fn what_is_deleted_for_want_of_room_is_not_drawn_as_idle() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.db");
    story(&path, |second| match second {
        // It loads for a while before it launches anything.
        0..=4 => vec![duty(1.0)],
        5..=20 => vec![kernels(second, "ampere_sgemm_128x64", 900), duty(1.0)],
        _ => vec![kernels(second, "ampere_sgemm_128x64", 100), duty(1.0)],
    })
    .await;
    let sums = async || {
        let reader = Reader::open(&path).await.expect("a reader");
        let timeline = timeline(&reader).await;
        let times = timeline.devices[0].gpu_time.iter();
        times.fold((0, 0), |(gemm, recorded), time| {
            let ms = |ns: u64| (ns + MS / 2) / MS;
            (
                gemm + ms(time.family_ns[Family::Gemm as usize]),
                recorded + ms(time.recorded_ns),
            )
        })
    };
    let near = |(gemm, recorded): (u64, u64), wanted: (u64, u64)| {
        gemm.abs_diff(wanted.0) < 200 && recorded.abs_diff(wanted.1) < 200
    };
    let whole = sums().await;
    assert!(near(whole, (16 * 900 + 20 * 100, 40_000)), "{whole:?}");
    let half = (START + 20) * SECOND;
    delete(
        &path,
        &format!("DELETE FROM _kernel_window WHERE start_ns < {half}"),
    )
    .await;
    let by_the_minute = sums().await;
    assert!(near(by_the_minute, whole), "{by_the_minute:?} of {whole:?}");
    delete(&path, "DELETE FROM _kernel_minute").await;
    let left = sums().await;
    assert!(near(left, (20 * 100, 20_000)), "{left:?}");
}

/// As the store does it when it has no room.
async fn delete(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("open");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .expect("deleted");
    connection.close().await.expect("closed");
}

#[tokio::test]
async fn a_run_without_kernels_has_no_lane_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("traces.db"), |_| vec![duty(1.0)]).await;
    let timeline = timeline(&reader).await;
    assert_eq!(timeline.devices[0].gpu_time, []);
}

fn allocator(level: Level, allocated: u64, reserved: u64, stuck: Option<u64>) -> Record {
    let source = if level == Level::PyTorch {
        "pytorch"
    } else {
        "cupti"
    };
    let mut sample = AllocatorSample::unknown(level, source);
    sample.allocated_bytes = Some(allocated);
    sample.reserved_bytes = Some(reserved);
    sample.inactive_split_bytes = stuck;
    traced(Some("GPU-a"), Work::Allocator(sample))
}

#[tokio::test]
async fn allocators_are_told_by_level_and_the_driver_has_no_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("traces.db"), |second| match second {
        5..=30 => vec![
            allocator(Level::Driver, 7 * GIB, 7 * GIB, None),
            allocator(Level::VirtualMemory, GIB, 20 * GIB, None),
            allocator(Level::PyTorch, 6 * GIB, 8 * GIB, Some(GIB)),
        ],
        _ => Vec::new(),
    })
    .await;
    let timeline = timeline(&reader).await;
    let [allocator] = timeline.devices[0].allocators.as_slice() else {
        panic!("{:?}", timeline.devices[0].allocators);
    };
    assert_eq!(
        (allocator.level.as_str(), allocator.source.as_str()),
        ("pytorch", "pytorch")
    );
    assert!(allocator.slack.iter().all(|share| share.ratio == Some(0.25)));
    assert!(allocator.stuck.iter().all(|share| share.ratio == Some(0.125)));
    assert_eq!(
        allocator.stuck.first().map(|share| share.at_ns),
        Some((START + 5) * SECOND)
    );
}

#[tokio::test]
async fn what_does_not_add_up_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("traces.db"), |second| {
        let allocated = if second == 0 { 7 * GIB } else { 9 * GIB };
        vec![allocator(Level::Driver, allocated, allocated, None)]
    })
    .await;
    let now_ns = (START + 40) * SECOND;
    let shown = show::load(&reader, 1, now_ns).await.expect("a run");
    let told = show::text(&shown, &zone(), now_ns);
    let section = told.split("Where the memory was\n").nth(1);
    let section = section.and_then(|rest| rest.split("\nEvents").next());
    insta::assert_snapshot!("ledger", section.unwrap_or(&told));
    let json: serde_json::Value = serde_json::from_str(&show::json(&shown)).expect("JSON");
    assert_eq!(
        json["ledger"][1]["processes"][0]["unattributed_bytes"],
        -1_073_741_824_i64
    );
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes a few bytes and then no more, as a full disk.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(left) = self.0.checked_sub(bytes.len()) else {
            return Err(std::io::ErrorKind::StorageFull.into());
        };
        self.0 = left;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn request(from: i64, to: i64) -> export::Request {
    export::Request {
        run: 1,
        from_ns: Some((START + from) * SECOND),
        to_ns: Some((START + to) * SECOND),
        now_ns: (START + 40) * SECOND,
    }
}

async fn exported(reader: &Reader, format: export::Format) -> String {
    let kept = Kept::default();
    export::write(reader, &request(0, 2), format, Box::new(kept.clone()))
        .await
        .expect("written");
    let bytes = kept.0.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("text")
}

/// A second of each kind of record, with names that need quoting.
async fn everything(path: &Path) -> Reader {
    story(path, |second| match second {
        1 => {
            let span = |stream, name: &str, start_ms: i64| KernelSpan {
                name: name.into(),
                stream,
                start_ns: (START + 1) * SECOND + start_ms * 1_000_000 + 1,
                end_ns: (START + 1) * SECOND + start_ms * 1_000_000 + 251_001,
            };
            let event = Event::new(EventKind::ProcessStart, "a \"quoted\", name");
            vec![
                kernels(1, "ampere_sgemm_128x64", 400),
                copies(1, 100),
                duty(1.0),
                allocator(Level::PyTorch, 6 * GIB, 8 * GIB, Some(GIB)),
                traced(Some("GPU-a"), Work::Span(span(7, "ampere_sgemm_128x64", 1))),
                traced(Some("GPU-a"), Work::Span(span(7, "_Z3fooPf", 2))),
                traced(Some("GPU-a"), Work::Span(span(8, "_Z3fooPf", 2))),
                Record::Event(event.in_run(Some(RunId(1)))),
            ]
        }
        _ => Vec::new(),
    })
    .await
}

#[tokio::test]
async fn a_run_for_other_tools() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = everything(&folder.path().join("traces.db")).await;
    insta::assert_snapshot!("csv", exported(&reader, export::Format::Csv).await);
    let lines = exported(&reader, export::Format::Ndjson).await;
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert!(object["view"].is_string());
    }
    insta::assert_snapshot!("ndjson", lines);
    let trace = exported(&reader, export::Format::Perfetto).await;
    insta::assert_snapshot!("perfetto", trace);
    let trace: serde_json::Value = serde_json::from_str(&trace).expect("JSON");
    let spans: Vec<&serde_json::Value> = trace["traceEvents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["ph"] == "X")
        .collect();
    assert_eq!(spans.len(), 3);
    assert_eq!(
        (&spans[0]["ts"], &spans[0]["dur"]),
        (&1_001_000.001.into(), &251.0.into())
    );
    assert_eq!(spans[0]["cat"], "GEMM");
    assert_eq!(spans[0]["tid"], spans[1]["tid"]);
    assert_ne!(spans[1]["tid"], spans[2]["tid"]);
}

#[tokio::test]
async fn a_full_disk_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = everything(&folder.path().join("traces.db")).await;
    for room in [0, 50, 2_000] {
        let failed = export::write(
            &reader,
            &request(0, 40),
            export::Format::Ndjson,
            Box::new(Full(room)),
        )
        .await;
        assert!(matches!(failed, Err(export::ExportError::Write(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn kernels_are_a_picture_of_their_own_and_in_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = story(&folder.path().join("traces.db"), |second| match second {
        1..=3 => vec![
            kernels(second, "_Z16flash_fwd_kernelPf", 200),
            kernels(second, "_ZN2at6native4fillIiEEvPT_", 40),
            kernels(second, "_ZN2at6native4fillIfEEvPT_", 60),
            kernels(second, "evil <b>\"&", 1),
        ],
        _ => Vec::new(),
    })
    .await;
    let kernels = flame::load(&reader, 1).await.expect("kernels");
    let picture = flame::svg(&kernels, Theme::Light);
    insta::assert_snapshot!("flame", picture);
    let now_ns = (START + 40) * SECOND;
    let shown = show::load(&reader, 1, now_ns).await.expect("a run");
    let page = html::page(&shown, "<svg></svg>", Some(&picture), &zone(), now_ns);
    assert!(page.contains("Where the GPU time went") && !page.contains("<b>"));
    let nothing = flame::Flame::default();
    assert!(flame::svg(&nothing, Theme::Dark).contains("no kernels were recorded"));
    assert!(!html::page(&shown, "", None, &zone(), now_ns).contains("GPU time"));
}
