use plimsoll_trace::{EngineSample, Loss, ProcessSample, RunEnd, RunOutcome};

use super::*;
use crate::rule::tests::rule;

fn ladder(signals: &[&str]) -> Ladder {
    let rules = signals.iter().map(|signal| {
            rule(&format!(
                "name = '{signal}'\nengine = 'e'\nwhen = {{ signal = '{signal}', enter = 1, exit = 0 }}\nset = {{ a = 1 }}"
            ))
            .unwrap()
        });
    Ladder::new("e", rules.collect()).unwrap()
}

fn sample(device: &str, used: Option<u64>) -> Record {
    let mut sample = DeviceSample::unknown(device.into());
    (sample.used_bytes, sample.total_bytes, sample.reserved_bytes) = (used, Some(110), Some(10));
    sample.free_bytes = used.map(|used| 100 - used);
    Record::Device(sample)
}

fn process(device: &str, pid: u32, used: Option<u64>) -> Record {
    Record::Process(ProcessSample {
        device: device.into(),
        pid,
        run: Some(RunId(7)),
        used_bytes: used,
        sm_busy_ratio: None,
        process: None,
        container: None,
    })
}

fn value(signals: &Signals, signal: &str, now: i64) -> Option<f64> {
    let view = EngineView {
        devices: vec!["a".into(), "b".into()],
        run: Some(RunId(7)),
    };
    let ladder = ladder(&[signal]);
    let readings = signals.readings(&ladder, &view, Stamp::at_secs(now));
    readings
        .get(&ladder.rules[0].when.clauses()[0].probe)
        .map(|reading| reading.value)
}

fn feed(signals: &mut Signals, at: i64, records: Vec<Record>) {
    signals.update(&Batch {
        at: Stamp::at_secs(at),
        records,
    });
}

#[test]
fn allocators_of_several_processes_are_one_of_the_run() {
    let mut signals = Signals::new(Duration::from_secs(1));
    let ladder = ladder(&[
        "allocator.reserved_bytes",
        "allocator.stuck_ratio",
        "kernel.busy_ratio",
    ]);
    signals.watch([&ladder]);
    let view = EngineView {
        devices: Vec::new(),
        run: Some(RunId(7)),
    };
    let sample = |reserved, stuck| {
        let mut sample = AllocatorSample::unknown(Level::PyTorch, "pytorch");
        (sample.reserved_bytes, sample.inactive_split_bytes) = (reserved, stuck);
        Work::Allocator(sample)
    };
    let mut tell = |secs, pid, work| {
        let traced = plimsoll_trace::Traced {
            pid,
            run: Some(RunId(7)),
            device: None,
            work,
        };
        let batch = Batch {
            at: Stamp::at_secs(secs),
            records: vec![Record::Traced(traced)],
        };
        signals.update(&batch);
        let readings = signals.readings(&ladder, &view, Stamp::at_secs(secs));
        let clauses = ladder.rules.iter().flat_map(|rule| rule.when.clauses());
        clauses
            .map(|clause| readings.get(&clause.probe).map(|reading| reading.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        tell(1, 1, sample(Some(100), Some(10))),
        [Some(100.0), Some(0.1), None]
    );
    assert_eq!(
        tell(2, 2, sample(Some(300), Some(90))),
        [Some(400.0), Some(0.3), None]
    );
    // Unknown is not zero.
    assert_eq!(tell(3, 1, sample(None, None)), [None, None, None]);
    let signal = Work::Signal {
        signal: "kernel.busy_ratio".into(),
        value: 0.5,
    };
    assert_eq!(tell(4, 1, signal), [None, None, Some(0.5)]);
    // A process that is silent for long holds nothing any more.
    assert_eq!(
        tell(60, 1, sample(Some(50), Some(0))),
        [Some(50.0), Some(0.0), None]
    );
}

#[test]
fn the_device_under_most_pressure_speaks() {
    let mut signals = Signals::new(Duration::from_secs(1));
    feed(
        &mut signals,
        1,
        vec![sample("a", Some(80)), sample("b", Some(30))],
    );
    assert_eq!(value(&signals, "vram.used_ratio", 1), Some(0.8));
    assert_eq!(value(&signals, "vram.free_bytes", 1), Some(20.0));
    assert_eq!(value(&signals, "vram.used_bytes", 1), Some(80.0));
    assert_eq!(value(&signals, "gpu.throttled", 1), None);
    feed(&mut signals, 2, vec![sample("a", Some(80)), sample("b", None)]);
    assert_eq!(
        value(&signals, "vram.used_ratio", 2),
        None,
        "b may be fuller than a"
    );
}

#[test]
fn values_age() {
    let mut signals = Signals::new(Duration::from_secs(1));
    feed(
        &mut signals,
        1,
        vec![sample("a", Some(80)), sample("b", Some(30))],
    );
    assert_eq!(value(&signals, "vram.used_bytes", 11), Some(80.0));
    assert_eq!(value(&signals, "vram.used_bytes", 12), None);
    let mut slow = Signals::new(Duration::from_secs(60));
    feed(&mut slow, 1, vec![sample("a", Some(80)), sample("b", Some(30))]);
    assert_eq!(value(&slow, "vram.used_bytes", 181), Some(80.0));
    slow.set_interval(Duration::from_secs(1));
    assert_eq!(value(&slow, "vram.used_bytes", 181), None);
}

#[test]
fn a_run_is_the_sum_of_its_processes() {
    let mut signals = Signals::new(Duration::from_secs(1));
    let both = || vec![sample("a", Some(80)), sample("b", Some(30))];
    feed(&mut signals, 1, both());
    assert_eq!(
        value(&signals, "run.vram_bytes", 1),
        None,
        "no process is not zero"
    );
    let list = |extra: Vec<Record>| both().into_iter().chain(extra).collect::<Vec<_>>();
    feed(
        &mut signals,
        2,
        list(vec![
            process("a", 1, Some(40)),
            process("b", 1, Some(2)),
            process("b", 2, Some(3)),
        ]),
    );
    assert_eq!(value(&signals, "run.vram_bytes", 2), Some(45.0));
    feed(
        &mut signals,
        3,
        list(vec![process("a", 1, Some(40)), process("b", 1, None)]),
    );
    assert_eq!(
        value(&signals, "run.vram_bytes", 3),
        None,
        "one unknown process makes the sum unknown"
    );
    feed(&mut signals, 4, list(vec![process("a", 1, Some(40))]));
    assert_eq!(
        value(&signals, "run.vram_bytes", 4),
        Some(40.0),
        "processes that are gone hold nothing"
    );
}

#[test]
fn a_device_that_does_not_list_its_processes_makes_the_sum_unknown() {
    let mut signals = Signals::new(Duration::from_secs(1));
    let both = |extra: Vec<Record>| {
        let devices = vec![sample("a", Some(80)), sample("b", Some(30))];
        devices.into_iter().chain(extra).collect::<Vec<_>>()
    };
    let (on_a, on_b) = (process("a", 1, Some(40)), process("b", 1, Some(2)));
    let failed = || Record::Loss(Loss::new("nvml", LIST_FAILED, 1));
    feed(&mut signals, 1, both(vec![on_a.clone(), on_b.clone()]));
    feed(&mut signals, 2, both(vec![on_a.clone(), failed()]));
    assert_eq!(value(&signals, "run.vram_bytes", 2), None, "not 40");
    // Then that device is lost altogether, and nothing more is known of it.
    feed(&mut signals, 3, vec![sample("a", Some(80)), on_a.clone()]);
    assert_eq!(value(&signals, "run.vram_bytes", 3), None);
    feed(&mut signals, 4, both(vec![on_a.clone(), on_b]));
    assert_eq!(value(&signals, "run.vram_bytes", 4), Some(42.0));
    // A run that held nothing on the device that fails is known all the same.
    feed(&mut signals, 5, both(vec![on_a.clone()]));
    feed(&mut signals, 6, both(vec![on_a, failed()]));
    assert_eq!(value(&signals, "run.vram_bytes", 6), Some(40.0));
}

#[test]
fn a_sum_is_as_old_as_its_oldest_part() {
    let mut signals = Signals::new(Duration::from_secs(1));
    let a = |used| vec![sample("a", Some(80)), process("a", 1, Some(used))];
    let b = vec![sample("b", Some(30)), process("b", 1, Some(2))];
    feed(&mut signals, 1, a(40).into_iter().chain(b.clone()).collect());
    for at in 2..=20 {
        feed(&mut signals, at, a(50));
    }
    assert_eq!(value(&signals, "run.vram_bytes", 11), Some(42.0), "of one moment");
    assert_eq!(
        value(&signals, "run.vram_bytes", 12),
        None,
        "what the lost device had says nothing about now"
    );
    feed(&mut signals, 21, a(50).into_iter().chain(b).collect());
    assert_eq!(value(&signals, "run.vram_bytes", 21), Some(52.0));
}

#[test]
fn engine_values_belong_to_a_run() {
    let mut signals = Signals::new(Duration::from_secs(1));
    let sample = EngineSample {
        run: RunId(7),
        signal: "engine.requests_waiting".into(),
        value: 4.0,
    };
    feed(&mut signals, 1, vec![Record::Engine(sample)]);
    assert_eq!(value(&signals, "engine.requests_waiting", 1), Some(4.0));
    let end = RunEnd {
        id: RunId(7),
        exit_code: None,
        outcome: RunOutcome::Lost,
    };
    feed(&mut signals, 2, vec![Record::RunEnd(end)]);
    assert_eq!(value(&signals, "engine.requests_waiting", 2), None);
}

#[test]
fn throttled_is_heat_or_power_only() {
    let mut signals = Signals::new(Duration::from_secs(1));
    for (reasons, expected) in [(0x01, 0.0), (0x20, 1.0)] {
        let records = ["a", "b"].map(|name| {
            let mut sample = DeviceSample::unknown(name.into());
            sample.throttle_reasons = Some(reasons);
            Record::Device(sample)
        });
        feed(&mut signals, reasons as i64, records.to_vec());
        assert_eq!(value(&signals, "gpu.throttled", reasons as i64), Some(expected));
    }
}

#[test]
fn what_others_hold_is_known_only_with_the_runs_own() {
    let mut signals = Signals::new(Duration::from_secs(1));
    feed(
        &mut signals,
        1,
        vec![
            sample("a", Some(60)),
            sample("b", Some(30)),
            process("a", 1, Some(25)),
            process("b", 2, Some(30)),
        ],
    );
    assert_eq!(value(&signals, "vram.others_bytes", 1), Some(35.0));
    // The driver does not say what one of the processes holds.
    feed(
        &mut signals,
        2,
        vec![
            sample("a", Some(60)),
            sample("b", Some(30)),
            process("a", 1, None),
            process("b", 2, Some(30)),
        ],
    );
    assert_eq!(value(&signals, "vram.others_bytes", 2), None);
    // The other device is none of the run's.
    feed(
        &mut signals,
        3,
        vec![
            sample("a", Some(60)),
            sample("b", Some(30)),
            process("a", 1, Some(60)),
        ],
    );
    assert_eq!(value(&signals, "vram.others_bytes", 3), Some(0.0));
}

#[test]
fn the_device_that_is_full_first_speaks_and_too_few_samples_say_nothing() {
    let mut signals = Signals::new(Duration::from_secs(1));
    for at in 0..10_i64 {
        // Of a hundred, a takes one a second and b two.
        let records = vec![
            sample("a", Some(50 + at.unsigned_abs())),
            sample("b", Some(10 + 2 * at.unsigned_abs())),
        ];
        feed(&mut signals, at, records);
        let seen = value(&signals, "vram.full_in_secs", at);
        assert_eq!(seen.is_some(), at >= 7, "{at}: {seen:?}");
    }
    let seen = value(&signals, "vram.full_in_secs", 9).unwrap();
    assert!((seen - 36.0).abs() < 1.0, "b is full in 36 s, a in 41: {seen}");
    let forecast = signals.forecast(&"b".into(), Stamp::at_secs(9)).unwrap();
    assert!(
        forecast
            .range_secs()
            .is_some_and(|(low, high)| low < 36.0 && 36.0 < high)
    );
    assert_eq!(signals.forecast(&"b".into(), Stamp::at_secs(60)), None, "too old");
    feed(&mut signals, 10, vec![sample("a", Some(60)), sample("b", None)]);
    assert_eq!(value(&signals, "vram.full_in_secs", 10), None, "b may be first");
}

#[test]
fn memory_at_rest_is_known_not_to_fill() {
    let mut signals = Signals::new(Duration::from_secs(1));
    for at in 0..10 {
        feed(
            &mut signals,
            at,
            vec![sample("a", Some(50)), sample("b", Some(90))],
        );
    }
    let seen = value(&signals, "vram.full_in_secs", 9);
    assert_eq!(seen, Some(crate::forecast::NOT_FILLING_SECS));
}
