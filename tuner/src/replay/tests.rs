//! A daemon in miniature records; the replay finds each decision again, whatever was read and whatever came of actions.

use plimsoll_trace::{DecisionOutcome, DeviceId, DeviceSample, HostSample, Record};
use proptest::prelude::*;

use super::*;
use crate::rule::tests::rule;

const GIB: u64 = 1 << 30;

fn ladder(enter: f64) -> Ladder {
    let rung = |name: &str, mode: &str, enter: f64, rest: &str| {
        rule(&format!(
            "name='{name}'\nengine='e'\nmode='{mode}'\nfor='3s'\nhold='10s'\ncalm='5s'\nset={{{name}=1}}
             when={{signal='vram.used_ratio',enter={enter},exit={}{rest}}}\nsaves='2GiB'",
            enter - 0.15
        ))
        .unwrap()
    };
    let rules = vec![
        rung("watching", "observe", enter - 0.1, ""),
        rung("first", "act", enter, ""),
        rung("second", "act", enter + 0.08, ",stat='mean',window='5s'"),
    ];
    let source = crate::rule::Source::new(&enter.to_string());
    Ladder::new("e", rules).unwrap().written(source)
}

/// What is recorded at one second.
struct Second {
    mark: Option<Mark>,
    batches: Vec<Batch>,
}

/// Evaluates as a daemon does, with an action that ends some seconds after it began.
fn record(ladder: &Ladder, readings: &[(u64, bool)]) -> (Vec<Second>, Vec<Past>) {
    record_beside(&|_| Host::default(), ladder, readings)
}

/// The same, on a host where other engines have cost something by each second.
fn record_beside(
    others: &dyn Fn(usize) -> Host,
    ladder: &Ladder,
    readings: &[(u64, bool)],
) -> (Vec<Second>, Vec<Past>) {
    let view = EngineView {
        devices: vec![DeviceId::from("GPU-a")],
        run: None,
    };
    let (mut signals, mut intake) = (Signals::new(Duration::from_secs(1)), Intake::default());
    signals.watch([ladder]);
    let (mut state, mut left) = (LadderState::default(), None);
    let (mut seconds, mut past): (Vec<Second>, Vec<Past>) = (Vec::new(), Vec::new());
    for (second, (used_gib, works)) in readings.iter().enumerate() {
        let now = Stamp::recorded(1_800_000_000_000_000_000 + i64::try_from(second).unwrap() * 1_000_000_000);
        let ends = state
            .under_way
            .as_ref()
            .filter(|it| now.since(it.since).as_secs() >= 3);
        if let Some(rule) = ends.map(|it| it.rule.clone()) {
            let effect_bytes = i64::try_from(*used_gib << 27).ok();
            let outcome = if *works {
                Outcome::Kept { effect_bytes }
            } else {
                Outcome::Refused
            };
            state.on_outcome(&rule, outcome, now.plus(Duration::from_millis(1)));
        }
        let host = others(second);
        let mark = (left.as_ref() != Some(&(state.clone(), host.clone()))).then(|| Mark {
            at_ns: now.unix_ns,
            kind: if left.is_none() {
                MarkKind::Start
            } else {
                MarkKind::Change
            },
            rules_hash: Some(ladder.source.hash().to_string()),
            max_age: Duration::from_secs(10),
            view: view.clone(),
            state: Some(state.clone()),
            host: host.clone(),
        });
        let device = Record::Device(DeviceSample {
            used_bytes: Some(used_gib * GIB),
            total_bytes: Some(24 * GIB),
            ..DeviceSample::unknown("GPU-a".into())
        });
        let batches = [device, Record::Host(HostSample::default())].map(|record| Batch {
            at: now,
            records: vec![record],
        });
        for batch in &batches {
            if !intake.take(&mut signals, batch) {
                continue;
            }
            let mut readings = signals.readings(ladder, &view, now);
            readings.set_host(host.clone());
            let evaluation = evaluate(ladder, &state, &readings, now);
            state = evaluation.state;
            past.extend(
                evaluation
                    .transitions
                    .iter()
                    .map(|made| Past {
                        id: i64::try_from(past.len()).unwrap() + 1,
                        at_ns: now.unix_ns,
                        rule: made.rule.clone(),
                        verdict: made.verdict,
                        mode: made.mode,
                        outcome: DecisionOutcome::Kept,
                        rungs: Some(made.rungs.clone()),
                    })
                    .collect::<Vec<_>>(),
            );
        }
        left = Some((state.clone(), host));
        seconds.push(Second {
            mark,
            batches: batches.into(),
        });
    }
    (seconds, past)
}

fn play(mut replay: Replay, seconds: &[Second]) -> Log {
    for second in seconds {
        second.mark.iter().for_each(|mark| replay.mark(mark));
        second.batches.iter().for_each(|batch| replay.batch(batch));
    }
    replay.finish()
}

fn readings() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let stretch = (10..24_u64, 1..20_usize, any::<bool>());
    prop::collection::vec(stretch, 1..12).prop_map(|stretches| {
        let each = |(used, length, works)| std::iter::repeat_n((used, works), length);
        stretches.into_iter().flat_map(each).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_decision_is_found_again(readings in readings()) {
        let ladder = ladder(0.8);
        let (seconds, past) = record(&ladder, &readings);
        let sets = [(ladder.source.hash().to_string(), ladder.clone())].into();
        let log = play(Replay::new(ladder, false, sets, past.clone()), &seconds);
        prop_assert_eq!(&log.exact_until, &None);
        prop_assert!(log.missing.is_empty());
        let found: Vec<Option<i64>> = log.decisions.iter().map(|made| made.recorded).collect();
        let all: Vec<Option<i64>> = past.iter().map(|past| Some(past.id)).collect();
        prop_assert_eq!(found, all);
    }

    #[test]
    fn other_rules_are_exact_until_an_action_differs(readings in readings(), enter in 0.6..0.91_f64) {
        let recorded = ladder(0.8);
        let (seconds, past) = record(&recorded, &readings);
        let sets = [(recorded.source.hash().to_string(), recorded)].into();
        let log = play(Replay::new(ladder(enter), false, sets, past.clone()), &seconds);
        for made in &log.decisions {
            let is_after = log.exact_until.as_ref().is_some_and(|until| made.at_ns >= until.at_ns);
            prop_assert_eq!(made.estimate, is_after);
        }
        // An action that one side has alone ends the exact part.
        let acts = |mode: Mode| mode == Mode::Act;
        let alone = log.decisions.iter().any(|made| acts(made.mode) && !made.estimate && made.recorded.is_none());
        prop_assert!(!alone);
        if log.exact_until.is_none() {
            let kept = past.iter().filter(|past| acts(past.mode)).count();
            let found = log.decisions.iter().filter(|made| acts(made.mode)).count();
            prop_assert_eq!(kept, found);
        }
    }
}

#[test]
fn what_other_engines_had_cost_is_part_of_a_recording() {
    let (ladder, second) = (ladder(0.8), 1_000_000_000);
    // Until the 30th second another engine has spent the host's time without service.
    let host = |at: usize| {
        let mut host = Host::default();
        if at < 30 {
            let away = host.limits.downtime_per_hour;
            let began = Stamp::recorded(1_800_000_000_000_000_000 - second);
            host.others.add(crate::rule::Cost::Reload, away, began);
        }
        host
    };
    let (seconds, past) = record_beside(&host, &ladder, &[(20, true); 60]);
    let first = past
        .iter()
        .find(|past| past.mode == Mode::Act)
        .expect("an action");
    assert_eq!(first.at_ns, 1_800_000_000_000_000_000 + 30 * second, "held back");
    let sets = [(ladder.source.hash().to_string(), ladder.clone())].into();
    let log = play(Replay::new(ladder, false, sets, past.clone()), &seconds);
    assert_eq!((log.exact_until, log.missing.len()), (None, 0));
    assert_eq!(log.decisions.len(), past.len());
}

#[test]
fn a_mark_gives_back_what_it_noted_of_the_host() {
    use crate::{Engine, EngineSpec, Reload};

    let spec = EngineSpec {
        name: "e".to_owned(),
        config: None,
        reload: Reload::None,
        health: None,
        applied: None,
        guards: crate::guard::Guards::default(),
    };
    let mut readings = Readings::unknown(Duration::from_secs(10));
    let mut host = Host::default();
    host.others.add(
        crate::rule::Cost::Restart,
        Duration::from_secs(40),
        Stamp::recorded(7),
    );
    readings.set_host(host.clone());
    let mut engine = Engine::new(spec, ladder(0.8), None);
    let step = engine.tick(&readings, None, Stamp::recorded(8), || {
        unreachable!("nothing is decided")
    });
    let marks = step.records.iter().filter_map(|record| match record {
        Record::LadderMark(mark) => Some(Mark::new(mark).unwrap().host),
        _ => None,
    });
    assert_eq!(marks.collect::<Vec<_>>(), [host]);
}
