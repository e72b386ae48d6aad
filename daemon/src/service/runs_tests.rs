use plimsoll_collectors::Exit;
use plimsoll_trace::{DeviceSample, Loss, ProcessSample};

use super::*;

#[test]
fn outcomes_follow_status_and_fullness() {
    let hint = Some(ExitHint::HostOutOfMemory);
    assert_eq!(outcome(Some(0), None, Some(0.99)), RunOutcome::Ok);
    assert_eq!(outcome(Some(143), None, Some(0.99)), RunOutcome::Killed);
    assert_eq!(outcome(Some(1), None, Some(0.97)), RunOutcome::OutOfMemory);
    assert_eq!(outcome(Some(139), None, Some(0.5)), RunOutcome::Failed);
    assert_eq!(outcome(Some(1), None, None), RunOutcome::Failed);
    assert_eq!(outcome(None, None, Some(0.99)), RunOutcome::Lost);
    assert_eq!(outcome(None, None, Some(0.4)), RunOutcome::Lost);
    assert_eq!(outcome(None, hint, Some(0.99)), RunOutcome::Killed);
}

fn samples(at: i64, devices: &[&str], held: &[(&str, u32)], list_failed: bool) -> Batch {
    let device = |name: &&str| Record::Device(DeviceSample::unknown((*name).into()));
    let process = |&(device, pid): &(&str, u32)| {
        Record::Process(ProcessSample {
            device: device.into(),
            pid,
            run: None,
            used_bytes: None,
            sm_busy_ratio: None,
            process: None,
            container: None,
        })
    };
    let mut records: Vec<Record> = devices.iter().map(device).collect();
    records.extend(held.iter().map(process));
    records.extend(list_failed.then(|| Record::Loss(Loss::new("nvml", LIST_FAILED, 1))));
    Batch {
        at: Stamp::at_secs(at),
        records,
    }
}

fn new_runs() -> Runs {
    Runs::new("h".into(), "boot".into(), Vec::new())
}

#[test]
fn a_run_leaves_a_device_but_not_its_last() {
    let mut runs = new_runs();
    runs.follow(&table(1, Some((7, 1)), None), || RunId(1));
    let devices = |runs: &Runs| {
        let mut devices = runs.devices(RunId(1));
        devices.sort();
        devices
            .iter()
            .map(|device| device.to_string())
            .collect::<Vec<_>>()
    };
    runs.label(&mut samples(1, &["a", "b"], &[("a", 7), ("b", 7)], false));
    assert_eq!(devices(&runs), ["a", "b"]);
    // Not read, or not listed, is no leave.
    for at in 2..100 {
        runs.label(&mut samples(at, &["a"], &[("a", 7)], false));
        runs.label(&mut samples(at, &["b"], &[], true));
    }
    assert_eq!(devices(&runs), ["a", "b"]);
    runs.label(&mut samples(100, &["a", "b"], &[("a", 7)], false));
    runs.label(&mut samples(159, &["a", "b"], &[("a", 7)], false));
    assert_eq!(devices(&runs), ["a", "b"]);
    runs.label(&mut samples(160, &["a", "b"], &[("a", 7)], false));
    assert_eq!(devices(&runs), ["a"]);
    runs.label(&mut samples(200, &["a", "b"], &[], false));
    runs.label(&mut samples(300, &["a", "b"], &[], false));
    assert_eq!(devices(&runs), ["a"]);
}

#[test]
fn an_engine_that_was_started_as_a_command_is_an_engine() {
    let mut runs = new_runs();
    let command = RunStart {
        id: RunId(1),
        name: "serve".into(),
        engine: None,
        host: "h".into(),
        pid: Some(6),
        process_key: None,
        command: None,
        trace_tier: TraceTier::Off,
    };
    runs.begin_command(command);
    let mut now = table(1, Some((7, 1)), None);
    now.engines.push(EngineProcesses {
        engine: watch_name(RunId(1)),
        root: None,
        command: None,
        pids: vec![6, 7],
    });
    runs.follow(&now, || RunId(2));
    let mut batch = samples(1, &["a"], &[("a", 6), ("a", 7)], false);
    runs.label(&mut batch);
    let owners = batch.records.iter().filter_map(|record| match record {
        Record::Process(sample) => Some(sample.run),
        _ => None,
    });
    assert_eq!(owners.collect::<Vec<_>>(), [Some(RunId(1)), Some(RunId(2))]);
}

fn table(at: i64, root: Option<(u32, u64)>, exit_code: Option<Option<i32>>) -> ProcessTable {
    let root = root.map(|(pid, started_ticks)| ProcessId { pid, started_ticks });
    let process = ProcessId {
        pid: 7,
        started_ticks: 1,
    };
    ProcessTable {
        at: Stamp::at_secs(at),
        engines: vec![EngineProcesses {
            engine: "e".into(),
            root,
            command: root.map(|_| "serve".to_owned()),
            pids: root.map(|root| root.pid).into_iter().collect(),
        }],
        exits: exit_code
            .map(|exit_code| Exit {
                engine: "e".into(),
                process,
                exit_code,
                hint: None,
            })
            .into_iter()
            .collect(),
    }
}

fn words(records: &[Record]) -> Vec<String> {
    let word = |record: &Record| match record {
        Record::RunStart(start) => format!("start {}", start.id),
        Record::RunEnd(end) => format!("end {} {}", end.id, end.outcome),
        Record::Event(event) => event.kind.to_string(),
        other => format!("{other:?}"),
    };
    records.iter().map(word).collect()
}

#[test]
fn a_restart_is_another_run() {
    let mut runs = Runs::new("h".into(), "boot".into(), Vec::new());
    let ids = std::cell::Cell::new(0);
    let next = || {
        ids.set(ids.get() + 1);
        RunId(ids.get())
    };
    assert_eq!(
        words(&runs.follow(&table(1, Some((7, 1)), None), next)),
        ["start 1", "process_start"]
    );
    assert!(runs.follow(&table(2, Some((7, 1)), None), next).is_empty());
    let records = runs.follow(&table(3, Some((7, 9)), Some(Some(1))), next);
    assert_eq!(
        words(&records),
        ["end 1 failed", "process_exit", "start 2", "process_start"]
    );
    let records = runs.follow(&table(4, None, None), next);
    assert_eq!(words(&records), ["end 2 lost", "process_exit"]);
}

#[test]
fn a_command_that_ended_is_no_engine() {
    let mut runs = Runs::new("h".into(), "b".into(), Vec::new());
    let mut late = table(1, Some((7, 1)), None);
    late.engines[0].engine = watch_name(RunId(3));
    assert!(runs.follow(&late, || RunId(9)).is_empty());
}

#[test]
fn a_run_survives_a_restart_of_the_daemon() {
    let open = |id, pid, key: &str| OpenRun {
        run: RunStart {
            id: RunId(id),
            name: "e".into(),
            engine: Some("e".into()),
            host: "h".into(),
            pid: Some(pid),
            process_key: Some(key.into()),
            command: Some("serve".into()),
            trace_tier: TraceTier::Off,
        },
        started_ns: 0,
    };
    let before = vec![open(4, 7, "boot/1"), open(3, 99, "boot/1")];
    let mut runs = Runs::new("h".into(), "boot".into(), before);
    let records = runs.follow(&table(1, Some((7, 1)), None), || RunId(9));
    assert_eq!(words(&records), ["end 3 lost"]);
    assert_eq!(runs.of_engine("e"), Some(RunId(4)));

    // The same pid and command, but another process: of another boot, or started later. Or it cannot be told.
    for (boot, key) in [("boot", "before/1"), ("boot", "boot/2"), ("", "/1")] {
        let mut runs = Runs::new("h".into(), boot.into(), vec![open(4, 7, key)]);
        let records = runs.follow(&table(1, Some((7, 1)), None), || RunId(9));
        assert_eq!(
            words(&records),
            ["start 9", "process_start", "end 4 lost"],
            "{key}"
        );
    }
}
