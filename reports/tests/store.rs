//! Reports out of a real store.

use std::path::Path;

use jiff::tz::{Offset, TimeZone};
use plimsoll_reports::load::{self, Request, RuleLine};
use plimsoll_reports::timeline::{MarkKind, Owner, OwnerName, Timeline};
use plimsoll_reports::{ReportError, Theme, find_run, kernels, runs, show, svg, why};
use plimsoll_store::{Reader, Store, StoreOptions};
use plimsoll_trace::{
    Batch, ChangeOutcome, ConfigChange, Decision, DecisionId, DecisionOutcome, DeviceInfo, DeviceSample,
    Event, EventKind, HostSample, KernelWindow, Loss, MemoryVersion, Mode, ProcessSample, Record, RunEnd,
    RunId, RunOutcome, RunStart, Stamp, TraceTier, Traced, Verdict, Work, sketch,
};
use serde_json::json;

const GIB: u64 = 1 << 30;
/// 2026-11-22 09:00:00 UTC.
const START: i64 = 1_795_338_000;
const NOW_NS: i64 = (START + 60) * 1_000_000_000;

fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(1))
}

fn device(uuid: &str, used_bytes: Option<u64>) -> Record {
    let mut sample = DeviceSample::unknown(uuid.into());
    sample.memory_version = Some(MemoryVersion::V2);
    sample.used_bytes = used_bytes;
    sample.reserved_bytes = Some(GIB / 2);
    sample.total_bytes = Some(24 * GIB);
    sample.gpu_busy_ratio = Some(0.5);
    Record::Device(sample)
}

fn process(uuid: &str, pid: u32, run: Option<i64>, used_bytes: u64, name: &str) -> Record {
    Record::Process(ProcessSample {
        device: uuid.into(),
        pid,
        run: run.map(RunId),
        used_bytes: Some(used_bytes),
        sm_busy_ratio: None,
        process: Some(name.into()),
        container: None,
    })
}

fn start(id: i64, name: &str, pid: u32) -> Record {
    Record::RunStart(RunStart {
        id: RunId(id),
        name: name.to_owned(),
        engine: Some(name.to_owned()),
        host: "box".to_owned(),
        pid: Some(pid),
        process_key: None,
        command: Some("server --config /etc/deepseek/server.yaml".to_owned()),
        trace_tier: TraceTier::Off,
    })
}

fn end(id: i64, exit_code: i32, outcome: RunOutcome) -> Record {
    Record::RunEnd(RunEnd {
        id: RunId(id),
        exit_code: Some(exit_code),
        outcome,
    })
}

fn decision() -> [Record; 2] {
    let decision = quantize(1, 2, "deepseek", 0.9);
    let change = change();
    [Record::Decision(decision), Record::ConfigChange(change)]
}

/// A rule that every engine may have, with a line of its own.
fn quantize(id: i64, run: i64, engine: &str, line: f64) -> Decision {
    Decision {
        id: DecisionId(id),
        run: Some(RunId(run)),
        engine: engine.to_owned(),
        rule: "quantize".to_owned(),
        at_ns: (START + 40) * 1_000_000_000,
        mode: Mode::Act,
        verdict: Verdict::Apply,
        outcome: DecisionOutcome::Kept,
        signal: "vram.used_ratio".to_owned(),
        value: Some(0.93),
        threshold: Some(line),
        explanation: "vram.used_ratio is 93 %, at or above 90 % for 5.0 s.".to_owned(),
        detail: json!({
            "because_of": "quantize",
            "clauses": [{"signal": "vram.used_ratio", "enter": line, "exit": 0.75, "text": "vram.used_ratio is 93 %"}],
            "effect": {"freed_bytes": 6.0 * 1_073_741_824.0},
        }),
    }
}

fn change() -> ConfigChange {
    ConfigChange {
        id: 1,
        decision: DecisionId(1),
        path: "/etc/deepseek/server.yaml".to_owned(),
        at_ns: (START + 40) * 1_000_000_000,
        before: "quantization: none\n".to_owned(),
        after: "quantization: int8\n".to_owned(),
        diff: "--- server.yaml\n+++ server.yaml\n@@ -1 +1 @@\n-quantization: none\n+quantization: int8\n"
            .to_owned(),
        outcome: ChangeOutcome::Kept,
    }
}

/// A minute: a first run dies of memory, a second one is helped; another process and a second device are beside them.
async fn minute(path: &Path) -> Reader {
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    let writer = store.writer();
    for second in 0..=60 {
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        if second == 0 {
            for uuid in ["GPU-a", "GPU-b"] {
                batch.records.push(Record::DeviceInfo(DeviceInfo {
                    device: uuid.into(),
                    name: Some("NVIDIA Test 24GB".to_owned()),
                    driver: Some("580.95.05".to_owned()),
                    total_bytes: Some(24 * GIB),
                    parent: None,
                }));
            }
            batch.records.push(start(1, "deepseek", 100));
        }
        let first = second <= 20;
        let held = match second {
            0..=20 => u64::try_from(second).unwrap_or(0) * GIB + 2 * GIB,
            25..=40 => u64::try_from(second - 20).unwrap_or(0) * GIB,
            41.. => 14 * GIB,
            _ => 0,
        };
        batch
            .records
            .push(device("GPU-a", (second != 50).then_some(held + GIB)));
        batch.records.push(device("GPU-b", Some(GIB)));
        if held > 0 {
            let (pid, run) = if first { (100, 1) } else { (200, 2) };
            batch
                .records
                .push(process("GPU-a", pid, Some(run), held, "server"));
        }
        batch.records.push(process("GPU-a", 9, None, GIB / 2, "Xorg"));
        match second {
            21 => {
                batch.records.push(end(1, 1, RunOutcome::OutOfMemory));
                let event = Event::new(
                    EventKind::OutOfMemory,
                    "deepseek failed with its device 94 % full",
                );
                batch.records.push(Record::Event(
                    event.in_run(Some(RunId(1))).with_detail(json!({"pid": 100})),
                ));
            }
            25 => {
                batch.records.push(start(2, "deepseek", 200));
                let event = Event::new(EventKind::ProcessStart, "deepseek runs as process 200");
                batch.records.push(Record::Event(event.in_run(Some(RunId(2)))));
            }
            40 => batch.records.extend(decision()),
            45 => {
                let event = Event::new(EventKind::Xid, "Xid 31 on GPU-b").on_device("GPU-b".into());
                batch
                    .records
                    .push(Record::Event(event.with_detail(json!({"xid": 31}))));
                batch
                    .records
                    .push(Record::Loss(Loss::new("nvml", "device_hung", 2)));
            }
            60 => batch.records.push(end(2, 0, RunOutcome::Ok)),
            _ => {}
        }
        writer.commit(batch).await.expect("stored");
    }
    store.close().await.expect("closed");
    Reader::open(path).await.expect("a reader")
}

async fn read(reader: &Reader, run: Option<i64>) -> Timeline {
    let request = Request {
        run,
        ..Request::default()
    };
    load::timeline(reader, &request).await.expect("a timeline")
}

#[tokio::test]
async fn a_run_becomes_a_timeline() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = minute(&folder.path().join("traces.db")).await;
    let timeline = read(&reader, Some(2)).await;
    assert_eq!(timeline.title.outcome.as_deref(), Some("ok"));
    assert_eq!((timeline.to_ns - timeline.from_ns) / 1_000_000_000, 35);
    // Only the device the run was on.
    assert_eq!(timeline.devices.len(), 1);
    let track = &timeline.devices[0];
    assert_eq!((track.uuid.as_str(), track.samples.len()), ("GPU-a", 36));
    assert_eq!(track.usable_bytes(), Some(24 * GIB - GIB / 2));
    assert_eq!(track.peak.map(|peak| peak.used_bytes), Some(21 * GIB));
    let names: Vec<&OwnerName> = track.owners.iter().map(|owner| &owner.name).collect();
    let server = OwnerName::Process {
        name: Some("server".to_owned()),
        pid: 200,
    };
    assert_eq!(names, [&server, &OwnerName::OtherProcesses]);
    assert_eq!(track.lines.len(), 1);
    assert_eq!(
        (track.lines[0].enter_ratio, track.lines[0].exit_ratio),
        (Some(0.9), Some(0.75))
    );
    let kinds: Vec<MarkKind> = timeline.marks.iter().map(|mark| mark.kind).collect();
    // The Xid was on a device that is not in the picture.
    assert_eq!(kinds, [MarkKind::Restart, MarkKind::Kept]);
    assert_eq!(
        timeline.marks[1].detail,
        "quantization: none → int8 in server.yaml; 6.0 GiB freed; \
         vram.used_ratio is 93 %, at or above 90 % for 5.0 s."
    );
    assert_eq!(
        timeline.verdict(&zone()),
        "peak 21.0 of 23.5 GiB at 00:15, 1 tuner action kept, 0 out of memory"
    );
    insta::assert_snapshot!(svg(&timeline, Theme::Light, &zone()).expect("a picture"));
}

/// A run that goes on; its device is read for twenty seconds, the host for as long as told.
async fn running(path: &Path, host_secs: i64) -> Timeline {
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    let writer = store.writer();
    for second in 0..=host_secs {
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        if second == 0 {
            batch.records.push(start(1, "deepseek", 100));
        }
        if second <= 20 {
            batch.records.push(device("GPU-a", Some(2 * GIB)));
            batch.records.push(process("GPU-a", 100, Some(1), GIB, "server"));
        }
        batch.records.push(Record::Host(HostSample::default()));
        writer.commit(batch).await.expect("stored");
    }
    store.close().await.expect("closed");
    read(&Reader::open(path).await.expect("a reader"), Some(1)).await
}

#[tokio::test]
async fn a_device_that_is_lost_while_its_run_goes_on_leaves_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let lost = running(&folder.path().join("lost.db"), 40).await;
    assert_eq!(lost.title.outcome.as_deref(), Some("running"));
    let seconds = |ns: i64| ns / 1_000_000_000 - START;
    let gaps: Vec<(i64, i64)> = (lost.devices[0].gaps.iter())
        .map(|gap| (seconds(gap.from_ns), seconds(gap.to_ns)))
        .collect();
    assert_eq!(gaps, [(20, 40)]);
    let late = running(&folder.path().join("late.db"), 22).await;
    assert_eq!(late.devices[0].gaps, [], "its next reading may be under way");
}

#[tokio::test]
async fn a_process_s_own_peak_is_told_however_narrow_the_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    let store = Store::open(StoreOptions::new(&path)).await.expect("a store");
    // The device is fullest at one second, one process at another, the others together at a third.
    for second in 0..=60 {
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        if second == 0 {
            batch.records.push(start(1, "deepseek", 100));
        }
        let at = |peak: i64, high: u64, low: u64| if second == peak { high * GIB } else { low * GIB };
        batch.records.push(device("GPU-a", Some(at(10, 22, 16))));
        for (pid, run, held) in [
            (100, Some(1), at(30, 9, 5)),
            (7, None, at(40, 4, 1)),
            (8, None, at(40, 3, 2)),
        ] {
            batch.records.push(process("GPU-a", pid, run, held, "server"));
        }
        store.writer().commit(batch).await.expect("stored");
    }
    store.close().await.expect("closed");
    let reader = Reader::open(&path).await.expect("a reader");
    let request = Request {
        run: Some(1),
        from_ns: Some((START - 86_400) * 1_000_000_000),
        ..Request::default()
    };
    let timeline = load::timeline(&reader, &request).await.expect("a timeline");
    let most = |owner: &Owner| {
        let known = owner
            .samples
            .iter()
            .filter_map(|sample| Some((sample.used_bytes?, sample.at_ns)));
        known
            .max()
            .map(|(bytes, at_ns)| (bytes / GIB, at_ns / 1_000_000_000 - START))
    };
    let told: Vec<_> = timeline.devices[0].owners.iter().map(most).collect();
    assert_eq!(told, [Some((9, 30)), Some((7, 40))]);
    let picture = svg(&timeline, Theme::Light, &zone()).expect("a picture");
    assert!(picture.contains("server (pid 100): at most 9.0 GiB (9663676416 bytes) at"));
}

#[tokio::test]
async fn without_a_run_everything_is_in_the_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = minute(&folder.path().join("traces.db")).await;
    let request = Request {
        from_ns: Some(START * 1_000_000_000),
        rules: vec![RuleLine {
            rule: "low".to_owned(),
            signal: "vram.free_bytes".to_owned(),
            enter: 1_073_741_824.0,
            exit: None,
        }],
        ..Request::default()
    };
    let timeline = load::timeline(&reader, &request).await.expect("a timeline");
    assert_eq!(timeline.title.name, "deepseek");
    assert_eq!(timeline.devices.len(), 2);
    assert_eq!(timeline.devices[0].owners.len(), 3);
    assert_eq!(timeline.devices[1].lines.len(), 2);
    let xid = timeline.marks.iter().find(|mark| mark.kind == MarkKind::Xid);
    assert_eq!(
        xid.map(|mark| (mark.label.as_str(), mark.detail.as_str())),
        Some(("Xid 31 on GPU-b", ""))
    );
    assert_eq!(
        timeline
            .marks
            .iter()
            .filter(|mark| mark.kind == MarkKind::OutOfMemory)
            .count(),
        1
    );
}

/// Two engines, each with a rule of the same name: a run's picture has its own line, a picture of all has both.
#[tokio::test]
async fn a_line_is_of_its_own_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.db");
    let store = Store::open(StoreOptions::new(&path)).await.expect("a store");
    for second in 0..=60 {
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        batch.records.push(device("GPU-a", Some(9 * GIB)));
        match second {
            0 => batch.records.extend([
                Record::DeviceInfo(DeviceInfo {
                    device: "GPU-a".into(),
                    name: None,
                    driver: None,
                    total_bytes: Some(24 * GIB),
                    parent: None,
                }),
                start(1, "one", 100),
                start(2, "two", 200),
            ]),
            40 => batch.records.extend([
                Record::Decision(quantize(1, 1, "one", 0.9)),
                Record::Decision(quantize(2, 2, "two", 0.8)),
            ]),
            _ => {}
        }
        store.writer().commit(batch).await.expect("stored");
    }
    store.close().await.expect("closed");
    let reader = Reader::open(&path).await.expect("a reader");
    let lines = async |run: Option<i64>| -> Vec<Option<f64>> {
        let timeline = read(&reader, run).await;
        let lines = timeline.devices[0].lines.iter();
        lines.map(|line| line.enter_ratio).collect()
    };
    assert_eq!(lines(Some(1)).await, [Some(0.9)]);
    assert_eq!(lines(Some(2)).await, [Some(0.8)]);
    assert_eq!(lines(None).await, [Some(0.8), Some(0.9)]);
}

#[tokio::test]
async fn runs_show_and_why_as_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = minute(&folder.path().join("traces.db")).await;
    let list = runs::load(&reader, None).await.expect("runs");
    insta::assert_snapshot!("runs", runs::text(&list, &zone(), NOW_NS));
    assert_eq!(runs::load(&reader, Some(1)).await.expect("runs").len(), 1);
    let shown = show::load(&reader, 2, NOW_NS).await.expect("a run");
    insta::assert_snapshot!("show", show::text(&shown, &zone(), NOW_NS));
    let told = why::load(&reader, Some("quantize")).await.expect("decisions");
    insta::assert_snapshot!("why", why::text(&told, &zone()));
    assert_eq!(told, why::load(&reader, None).await.expect("decisions"));
    assert_eq!(told, why::load(&reader, Some("1")).await.expect("decisions"));
    for text in [
        runs::text(&list, &zone(), NOW_NS),
        show::text(&shown, &zone(), NOW_NS),
        why::text(&told, &zone()),
    ] {
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[tokio::test]
async fn runs_show_and_why_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = minute(&folder.path().join("traces.db")).await;
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let list = read(&runs::json(&runs::load(&reader, None).await.expect("runs")));
    assert_eq!((&list["version"], &list["runs"][0]["id"]), (&json!(1), &json!(2)));
    assert_eq!(list["runs"][1]["outcome"], "out_of_memory");
    let shown = show::load(&reader, 2, NOW_NS).await.expect("a run");
    insta::assert_snapshot!("show-json", show::json(&shown));
    let told = read(&why::json(&why::load(&reader, None).await.expect("decisions")));
    assert_eq!(told["decisions"][0]["changes"][0]["outcome"], "kept");
}

#[tokio::test]
async fn names_find_runs_and_near_misses_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = minute(&folder.path().join("traces.db")).await;
    for wanted in ["last", "2", "deepseek"] {
        assert_eq!(find_run(&reader, wanted).await.expect("a run"), 2);
    }
    assert_eq!(find_run(&reader, "1").await.expect("a run"), 1);
    let error = find_run(&reader, "deepsek").await.expect_err("no such run");
    assert_eq!(
        error.to_string(),
        "there is no run 'deepsek'; did you mean 'deepseek'?"
    );
    let error = find_run(&reader, "77").await.expect_err("no such run");
    assert_eq!(
        error.to_string(),
        "there is no run '77'; list them with `plimsoll runs`"
    );
    let error = why::load(&reader, Some("quantise"))
        .await
        .expect_err("no such rule");
    assert_eq!(
        error.to_string(),
        "there is no decision or rule 'quantise'; did you mean 'quantize'?"
    );
    let backwards = Request {
        from_ns: Some(2),
        to_ns: Some(1),
        ..Request::default()
    };
    let error = load::timeline(&reader, &backwards).await.expect_err("no window");
    assert!(matches!(error, ReportError::EmptyWindow { .. }));
}

#[tokio::test]
async fn an_empty_store_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.db");
    Store::open(StoreOptions::new(&path))
        .await
        .expect("a store")
        .close()
        .await
        .expect("closed");
    let reader = Reader::open(&path).await.expect("a reader");
    assert!(matches!(
        find_run(&reader, "last").await,
        Err(ReportError::NoRuns)
    ));
    let timeline = read(&reader, None).await;
    assert!(timeline.devices.is_empty());
    assert!(svg(&timeline, Theme::Auto, &zone()).is_ok());
    assert_eq!(runs::text(&[], &zone(), NOW_NS), "No runs are recorded yet.\n");
    assert_eq!(
        why::text(&why::load(&reader, None).await.expect("none"), &zone()),
        "Nothing was decided yet.\n"
    );
}

/// Of a long window only what a picture shows is kept; what must not be lost is there as in a short one.
#[tokio::test]
async fn a_long_window_keeps_its_peak_its_gap_and_its_owners() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.db");
    let store = Store::open(StoreOptions::new(&path)).await.expect("a store");
    let writer = store.writer();
    const SECONDS: i64 = 40_000;
    for second in 0..SECONDS {
        if (10_000..12_000).contains(&second) {
            continue;
        }
        let mut batch = Batch::new(Stamp::at_secs(START + second));
        if second == 0 {
            batch.records.push(start(1, "deepseek", 100));
        }
        let held = if second == 31_337 {
            23 * GIB
        } else {
            8 * GIB + u64::try_from(second % 2).unwrap_or(0) * GIB
        };
        batch.records.push(device("GPU-a", Some(held + GIB / 2)));
        batch.records.push(process("GPU-a", 100, Some(1), held, "server"));
        if second % 200 == 0 {
            writer.commit(batch).await.expect("stored");
        } else {
            writer.append(batch);
        }
    }
    store.close().await.expect("closed");
    let reader = Reader::open(&path).await.expect("a reader");
    let timeline = read(&reader, Some(1)).await;
    let track = &timeline.devices[0];
    assert!(track.samples.len() < 4 * 761, "{} samples", track.samples.len());
    let peak = track.peak.expect("a peak");
    assert_eq!(peak.used_bytes, 23 * GIB + GIB / 2);
    assert_eq!(peak.at_ns, (START + 31_337) * 1_000_000_000);
    assert_eq!(track.gaps.len(), 1);
    assert_eq!(track.gaps[0].from_ns, (START + 9_999) * 1_000_000_000);
    assert_eq!(track.owners.len(), 1);
    let most = track.owners[0]
        .samples
        .iter()
        .filter_map(|sample| sample.used_bytes)
        .max();
    assert_eq!(most, Some(23 * GIB));
    let picture = svg(&timeline, Theme::Auto, &zone()).expect("a picture");
    assert!(!picture.contains("processes claim"), "the owners were blown up");
    // Half a GiB is nobody's throughout: neither more nor less.
    let at_most = picture
        .split("known process; ")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    assert_eq!(at_most, Some("at most 512.0 MiB"), "the owners were cut down");
}

fn kernel(device: &str, name: &str, count: u64, each_ns: u64) -> Record {
    Record::Traced(Traced {
        pid: 7,
        run: Some(RunId(1)),
        device: Some(device.into()),
        work: Work::Kernels(KernelWindow {
            name: name.into(),
            start_ns: START * 1_000_000_000,
            end_ns: (START + 1) * 1_000_000_000,
            count,
            total_ns: count * each_ns,
            min_ns: each_ns,
            max_ns: each_ns,
            buckets: vec![(sketch::bucket(each_ns), count)],
        }),
    })
}

fn agent_signal(signal: &str, value: f64) -> Record {
    Record::Traced(Traced {
        pid: 7,
        run: Some(RunId(1)),
        device: None,
        work: Work::Signal {
            signal: signal.into(),
            value,
        },
    })
}

#[tokio::test]
async fn kernels_by_gpu_time_with_cost_and_losses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let store = Store::open(StoreOptions::new(&path)).await.unwrap();
    let commit = async |at: i64, records| {
        let at = Stamp::at_secs(START + at);
        store.writer().commit(Batch { at, records }).await.unwrap();
    };
    let mut chat = start(1, "chat", 7);
    if let Record::RunStart(run) = &mut chat {
        run.trace_tier = TraceTier::Graph;
    }
    commit(0, vec![chat, start(2, "idle", 8)]).await;
    let long = format!("_ZN{}{}Ev", 90, "n".repeat(90));
    commit(
        1,
        vec![
            kernel(
                "GPU-a",
                "_ZN2at6native18elementwise_kernelILi128EEEvi",
                1_234_567,
                4_000,
            ),
            kernel("GPU-b", "ampere_fp16_s16816gemm_fp16_128x128", 500, 2_500_000),
            kernel("GPU-a", &long, 1, 870),
            kernel("GPU-a", "evil\u{1b}[31m\nname", 2, 1_000_000_000),
            agent_signal("agent.cost_ratio", 0.002),
            agent_signal("agent.duty_ratio", 1.0),
            agent_signal("agent.device_bytes", 1e7),
            Record::Loss(Loss::new("agent", "dropped_by_cupti", 11).in_run(Some(RunId(1)))),
            Record::Loss(Loss::new("agent", "dropped_by_cupti", 1)),
            Record::Loss(Loss::new("agent", "ring_full", 5).in_run(Some(RunId(2)))),
            Record::Loss(Loss::new("nvml", "device_hung", 1)),
        ],
    )
    .await;
    commit(2, vec![agent_signal("agent.cost_ratio", 0.004)]).await;
    let reader = Reader::open(&path).await.unwrap();
    let all = kernels::load(&reader, 1, None, NOW_NS).await.unwrap();
    insta::assert_snapshot!("kernels", kernels::text(&all, 100));
    insta::assert_snapshot!("kernels-json", kernels::json(&all));
    let two = kernels::load(&reader, 1, Some(2), NOW_NS).await.unwrap();
    assert_eq!((two.kernels.len(), two.left_out), (2, 2));
    assert_eq!(two.total_ns, all.total_ns, "shares are of all");
    assert_eq!(two.kernels[..], all.kernels[..2]);
    let narrow = kernels::text(&two, 40);
    assert!(narrow.contains("2 of them are"), "{narrow}");
    let none = kernels::load(&reader, 2, None, NOW_NS).await.unwrap();
    insta::assert_snapshot!("kernels-none", kernels::text(&none, 100));
    let shown = plimsoll_reports::show::load(&reader, 2, NOW_NS).await.unwrap();
    let losses: Vec<(String, i64)> = shown
        .losses
        .into_iter()
        .map(|lost| (lost.reason, lost.count))
        .collect();
    // What the other run lost is not this one's; what was nobody's may be.
    assert_eq!(
        losses,
        [
            ("dropped_by_cupti".to_owned(), 1),
            ("ring_full".to_owned(), 5),
            ("device_hung".to_owned(), 1)
        ]
    );
    store.close().await.unwrap();
}
