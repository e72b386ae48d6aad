//! Every kind of record comes back through the public views as it went in.

use plimsoll_store::{Reader, Value};
use plimsoll_trace::{
    ChangeOutcome, ConfigChange, Decision, DecisionId, DecisionOutcome, DeviceInfo, DeviceSample, EngineMemo,
    EngineSample, Event, EventKind, HostSample, Loss, MemoryVersion, Mode, ProcessSample, Record, RunEnd,
    RunId, RunOutcome, RunStart, TraceTier, Verdict,
};
use serde_json::json;

use crate::{Bench, batch, rows};

const SECOND: i64 = 1_000_000_000;

fn text(text: &str) -> Value {
    Value::from(text)
}

fn run_start(id: RunId) -> RunStart {
    RunStart {
        id,
        name: "chat".into(),
        engine: Some("chat".into()),
        host: "böx".into(),
        pid: Some(u32::MAX),
        process_key: Some("boot/7".into()),
        command: Some("serve --x 'a b'".into()),
        trace_tier: TraceTier::Graph,
    }
}

fn decision(id: DecisionId) -> Decision {
    Decision {
        id,
        run: Some(RunId(1)),
        engine: "chat".into(),
        rule: "quantize".into(),
        at_ns: 3 * SECOND,
        mode: Mode::Act,
        verdict: Verdict::Apply,
        outcome: DecisionOutcome::Applying,
        signal: "vram.used_ratio".into(),
        value: Some(0.925_000_000_1),
        threshold: Some(0.92),
        explanation: "It's full: 92.5 % ≥ 92 %.".into(),
        detail: json!({"b": 1, "a": [null, 0.1]}),
    }
}

fn change(id: i64) -> ConfigChange {
    ConfigChange {
        id,
        decision: DecisionId(1),
        path: "/etc/x y/server.yaml".into(),
        at_ns: 3 * SECOND,
        before: "# comment\r\nquantization: none\n\0é".into(),
        after: "# comment\r\nquantization: int8\n\0é".into(),
        diff: "-none\n+int8\n".into(),
        outcome: ChangeOutcome::Written,
    }
}

async fn row(reader: &Reader, sql: &str) -> Vec<Value> {
    let mut rows = rows(reader, sql).await;
    assert_eq!(rows.len(), 1, "{sql}");
    rows.remove(0)
}

#[tokio::test]
async fn samples() {
    let bench = Bench::new().await;
    let full = DeviceSample {
        device: "GPU-1".into(),
        memory_version: Some(MemoryVersion::V2),
        used_bytes: Some(73_728 << 20),
        free_bytes: Some((8 << 30) - 1),
        reserved_bytes: Some(1 << 30),
        total_bytes: Some(81 << 30),
        bar1_used_bytes: Some(1),
        gpu_busy_ratio: Some(0.37),
        memory_busy_ratio: Some(0.07),
        temperature_celsius: Some(61.0),
        power_watts: Some(312.345),
        sm_clock_mhz: Some(1980),
        memory_clock_mhz: Some(2619),
        throttle_reasons: Some(0x8000_0000_0000_0004),
        pcie_tx_bytes_per_sec: Some(12),
        pcie_rx_bytes_per_sec: Some(0),
    };
    let process = ProcessSample {
        device: "GPU-1".into(),
        pid: 4_294_967_295,
        run: Some(RunId(9)),
        used_bytes: Some(5),
        sm_busy_ratio: Some(0.01),
        process: Some("python3".into()),
        container: Some("c0ffee".into()),
    };
    let host = HostSample {
        cpu_busy_ratio: Some(1.0 / 3.0),
        memory_available_bytes: Some(7),
        memory_total_bytes: Some(9),
        swap_used_bytes: Some(0),
    };
    let engine = EngineSample {
        run: RunId(9),
        signal: "metric:x{a=\"1\"}".into(),
        value: 0.1 + 0.2,
    };
    bench
        .commit(
            1,
            vec![
                Record::Device(full),
                Record::Process(process),
                Record::Host(host),
                Record::Engine(engine),
                Record::DeviceInfo(DeviceInfo {
                    device: "GPU-1".into(),
                    name: Some("NVIDIA H200".into()),
                    driver: Some("570.1".into()),
                    total_bytes: Some(81 << 30),
                    parent: None,
                }),
            ],
        )
        .await;
    let reader = bench.reader().await;
    assert_eq!(
        row(&reader, "SELECT * FROM device_samples").await,
        [
            text("GPU-1"),
            Value::Integer(SECOND),
            Value::Integer(73_728 << 20),
            Value::Integer((8 << 30) - 1),
            Value::Integer(1 << 30),
            Value::Integer(81 << 30),
            Value::Real(0.9),
            Value::Real(0.37),
            Value::Real(0.07),
            Value::Real(61.0),
            Value::Real(312.345),
            Value::Integer(1980),
            Value::Integer(2619),
            Value::Integer(0x8000_0000_0000_0004_u64.cast_signed()),
            Value::Integer(1),
            Value::Integer(12),
            Value::Integer(0),
            Value::Integer(2),
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM process_samples").await,
        [
            Value::Integer(9),
            text("GPU-1"),
            Value::Integer(4_294_967_295),
            Value::Integer(SECOND),
            Value::Integer(5),
            Value::Real(0.01),
            text("python3"),
            text("c0ffee"),
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM host_samples").await,
        [
            Value::Integer(SECOND),
            Value::Real(1.0 / 3.0),
            Value::Integer(7),
            Value::Integer(9),
            Value::Integer(0)
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM engine_samples").await,
        [
            Value::Integer(9),
            Value::Integer(SECOND),
            text("metric:x{a=\"1\"}"),
            Value::Real(0.1 + 0.2)
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM devices").await,
        [
            text("GPU-1"),
            text("NVIDIA H200"),
            text("570.1"),
            Value::Integer(81 << 30),
            Value::Null
        ]
    );
    bench.store.close().await.expect("closed");
}

#[tokio::test]
async fn unknown_is_null() {
    let bench = Bench::new().await;
    bench
        .commit(
            1,
            vec![
                Record::Device(DeviceSample::unknown("GPU-1".into())),
                Record::Process(ProcessSample {
                    device: "GPU-1".into(),
                    pid: 1,
                    run: None,
                    used_bytes: None,
                    sm_busy_ratio: None,
                    process: None,
                    container: None,
                }),
                Record::Host(HostSample::default()),
                Record::Event(Event::new(EventKind::DriverMissing, "no driver")),
            ],
        )
        .await;
    let reader = bench.reader().await;
    for (view, known) in [
        ("device_samples", 2),
        ("process_samples", 3),
        ("host_samples", 1),
        ("devices", 1),
        ("events", 4),
    ] {
        let row = row(&reader, &format!("SELECT * FROM {view}")).await;
        let not_null = row.iter().filter(|value| **value != Value::Null).count();
        assert_eq!(not_null, known, "{view}: {row:?}");
    }
    // A later driver that knows less does not wipe out what an earlier one knew.
    let info = |name: Option<&str>, driver: &str| {
        Record::DeviceInfo(DeviceInfo {
            device: "GPU-1".into(),
            name: name.map(Into::into),
            driver: Some(driver.into()),
            total_bytes: None,
            parent: Some("GPU-0".into()),
        })
    };
    bench.commit(2, vec![info(Some("A"), "1"), info(None, "2")]).await;
    assert_eq!(
        row(&reader, "SELECT * FROM devices").await,
        [text("GPU-1"), text("A"), text("2"), Value::Null, text("GPU-0")]
    );
}

#[tokio::test]
async fn runs_events_and_losses() {
    let bench = Bench::new().await;
    let (writer, reader) = (bench.store.writer(), bench.reader().await);
    let (first, second) = (writer.next_run_id(), writer.next_run_id());
    assert_eq!((first, second), (RunId(1), RunId(2)));
    bench
        .commit(
            1,
            vec![
                Record::RunStart(run_start(first)),
                Record::RunStart(run_start(second)),
            ],
        )
        .await;
    let end = RunEnd {
        id: first,
        exit_code: Some(137),
        outcome: RunOutcome::OutOfMemory,
    };
    let event = Event::new(EventKind::Xid, "Xid 79: fell off the bus")
        .with_detail(json!({"xid": 79}))
        .on_device("GPU-7".into())
        .in_run(Some(first));
    bench
        .commit(
            2,
            vec![
                Record::RunEnd(end),
                Record::Event(event),
                Record::Loss(Loss::new("nvml", "device_hung", 3).in_run(Some(first))),
            ],
        )
        .await;
    assert_eq!(
        rows(&reader, "SELECT * FROM runs").await[0],
        [
            Value::Integer(1),
            text("chat"),
            text("chat"),
            text("böx"),
            Value::Integer(i64::from(u32::MAX)),
            text("serve --x 'a b'"),
            Value::Integer(SECOND),
            Value::Integer(2 * SECOND),
            Value::Integer(137),
            text("out_of_memory"),
            Value::Null,
            text("graph"),
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM events").await,
        [
            Value::Integer(1),
            Value::Integer(1),
            text("GPU-7"),
            Value::Integer(2 * SECOND),
            text("xid"),
            text("Xid 79: fell off the bus"),
            text("{\"xid\":79}"),
        ]
    );
    assert_eq!(
        row(&reader, "SELECT * FROM losses").await,
        [
            text("nvml"),
            text("device_hung"),
            Value::Integer(2 * SECOND),
            Value::Integer(3),
            Value::Integer(1)
        ]
    );
    let open = reader.open_runs().await.expect("readable");
    assert_eq!(open.len(), 1);
    assert_eq!((&open[0].run, open[0].started_ns), (&run_start(second), SECOND));
}

#[tokio::test]
async fn decisions_changes_and_memos() {
    let bench = Bench::new().await;
    let (writer, reader) = (bench.store.writer(), bench.reader().await);
    let id = writer.next_decision_id();
    let number = writer.next_change_id();
    let memo = |engine: &str, state: &str| {
        Record::EngineMemo(EngineMemo {
            engine: engine.into(),
            state: state.into(),
        })
    };
    bench
        .commit(
            3,
            vec![
                Record::Decision(decision(id)),
                Record::ConfigChange(change(number)),
                memo("b", "{}"),
                memo("a", "old"),
                memo("a", "new"),
            ],
        )
        .await;
    let memos = reader.memos().await.expect("readable");
    assert_eq!(
        memos
            .iter()
            .map(|memo| (memo.engine.as_str(), memo.state.as_str()))
            .collect::<Vec<_>>(),
        [("a", "new"), ("b", "{}")]
    );
    let unfinished = reader.unfinished().await.expect("readable");
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].decision, decision(id));
    assert_eq!(unfinished[0].changes, [change(number)]);
    assert_eq!(
        row(
            &reader,
            "SELECT hex(before_text), hex(after_text), diff, path, outcome FROM config_changes"
        )
        .await[..3],
        [
            text(&hex(&change(number).before)),
            text(&hex(&change(number).after)),
            text("-none\n+int8\n"),
        ]
    );

    // A later row of the same number replaces the outcome and the figures, and keeps run and times.
    let mut later = decision(id);
    (later.run, later.at_ns, later.outcome) = (None, 9 * SECOND, DecisionOutcome::Kept);
    (later.value, later.detail) = (None, serde_json::Value::Null);
    let mut kept = change(number);
    (kept.at_ns, kept.outcome) = (9 * SECOND, ChangeOutcome::Kept);
    bench
        .commit(9, vec![Record::Decision(later), Record::ConfigChange(kept)])
        .await;
    assert_eq!(
        row(&reader, "SELECT * FROM decisions").await,
        [
            Value::Integer(1),
            Value::Integer(1),
            text("chat"),
            text("quantize"),
            Value::Integer(3 * SECOND),
            text("act"),
            text("apply"),
            text("kept"),
            text("vram.used_ratio"),
            Value::Null,
            Value::Real(0.92),
            text("It's full: 92.5 % ≥ 92 %."),
            Value::Null,
        ]
    );
    assert_eq!(
        row(&reader, "SELECT at_ns, outcome FROM config_changes").await,
        [Value::Integer(3 * SECOND), text("kept")]
    );
    assert_eq!(reader.unfinished().await.expect("readable"), []);
    bench.store.close().await.expect("closed");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test]
async fn many_samples_of_every_block_size() {
    let bench = Bench::new().await;
    let writer = bench.store.writer();
    // 64 + 64 + 16 + 16 + 1 + 1 + 1 in one commit.
    let records = (0..163)
        .flat_map(|number| {
            let mut sample = DeviceSample::unknown(format!("GPU-{number}").into());
            sample.used_bytes = Some(number);
            let engine = EngineSample {
                run: RunId(1),
                signal: format!("metric:s{number}").into(),
                value: 1.0,
            };
            [Record::Device(sample), Record::Engine(engine)]
        })
        .collect();
    writer.append(batch(5, records));
    bench.store.close().await.expect("closing stores what came in");
    let reader = Reader::open(bench.folder.path().join("t.db"))
        .await
        .expect("readable without a writer");
    assert_eq!(
        rows(
            &reader,
            "SELECT count(*), sum(used_bytes), sum(device = 'GPU-' || used_bytes) FROM device_samples"
        )
        .await,
        [[Value::Integer(163), Value::Integer(163 * 81), Value::Integer(163)]]
    );
    assert_eq!(
        rows(&reader, "SELECT count(DISTINCT signal) FROM engine_samples").await,
        [[Value::Integer(163)]]
    );
}

#[tokio::test]
async fn urgent_records_do_not_wait_and_a_reader_sees_them_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = plimsoll_store::StoreOptions::new(folder.path().join("t.db"));
    options.commit_every = std::time::Duration::from_secs(3_600);
    let store = plimsoll_store::Store::open(options).await.expect("a store");
    let reader = Reader::open(folder.path().join("t.db")).await.expect("readable");
    let writer = store.writer();
    writer.append(batch(1, vec![Record::Host(HostSample::default())]));
    writer.append(batch(2, vec![Record::Event(Event::new(EventKind::Xid, "x"))]));
    while rows(&reader, "SELECT 1 FROM events").await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rows(&reader, "SELECT at_ns FROM host_samples").await,
        [[Value::Integer(SECOND)]]
    );
    // From a plain thread, while this thread drives the runtime.
    let from_thread = std::thread::spawn({
        let writer = store.writer();
        move || writer.commit_blocking(batch(3, vec![Record::Host(HostSample::default())]))
    });
    while !from_thread.is_finished() {
        tokio::task::yield_now().await;
    }
    from_thread.join().expect("no panic").expect("stored");
    assert_eq!(
        rows(&reader, "SELECT count(*) FROM host_samples").await,
        [[Value::Integer(2)]]
    );
    store.close().await.expect("closed");
    assert!(matches!(
        writer.commit(batch(4, Vec::new())).await,
        Err(plimsoll_store::StoreError::Closed)
    ));
}
