//! What an engine's limits allow, what its rules answer to its death, and engines whose memory is taken once.

use std::time::Duration;

use plimsoll_trace::{DecisionId, RunId, Stamp, Verdict};
use plimsoll_tuner::signals::Reading;
use plimsoll_tuner::{Engine, EngineSpec, Host, HostLimits, Limits, Outcome, Readings, Reload, evaluate};

use super::drive::{Drive, ladder, readings};

const RESTART: &str = "[[rule]]\nname = 'quantize'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\ncost = 'restart'\n\
     for = '10s'\nhold = '60s'\ncalm = '30s'\nsaves = '5GiB'\n\
     when = { signal = 'vram.used_ratio', enter = 0.92, exit = 0.75 }\n";

#[test]
fn a_rung_that_was_let_go_rests_and_restarts_are_counted() {
    let mut drive = Drive::new(ladder(RESTART));
    drive.run(11, Some(0.95));
    drive.run(61, Some(0.30));
    assert_eq!(drive.logged(), [(11, "apply quantize"), (71, "release quantize")]);
    // The pressure is back at once. First the rung rests; then two restarts within the hour are spent.
    drive.run(300, Some(0.95));
    assert_eq!(
        drive.blocks(0),
        [
            "let go a short while ago: 4 min 59 s to go",
            "2 restarts within the hour are spent: 53 min 59 s to go"
        ]
    );
    drive.run(3_238, Some(0.95));
    assert_eq!(drive.log.len(), 2);
    drive.run(1, Some(0.95));
    assert_eq!(drive.log.last(), Some(&(3_611, "apply quantize".into())));
}

#[test]
fn a_release_is_a_restart_too() {
    let limits = Limits {
        restarts_per_hour: 1,
        ..Limits::default()
    };
    let mut drive = Drive::new(ladder(RESTART).within(limits));
    drive.run(11, Some(0.95));
    drive.run(3_599, Some(0.30));
    assert_eq!(drive.logged(), [(11, "apply quantize")]);
    assert!(
        drive.blocks(0)[0].starts_with("1 restarts within the hour are spent"),
        "{:?}",
        drive.blocks(0)
    );
    drive.run(1, Some(0.30));
    assert_eq!(drive.log.last(), Some(&(3_611, "release quantize".into())));
}

#[test]
fn a_rollback_is_two_restarts() {
    let mut drive = Drive::new(ladder(RESTART));
    for _ in 0..11 {
        drive.tick(Some(0.95));
    }
    drive.state.on_outcome("quantize", Outcome::Applied, drive.now);
    drive.state.on_outcome("quantize", Outcome::RolledBack, drive.now);
    drive.state.lift("quantize");
    drive.run(100, Some(0.95));
    assert_eq!(drive.log.len(), 1);
    assert!(
        drive.blocks(0)[0].starts_with("2 restarts within the hour are spent"),
        "{:?}",
        drive.blocks(0)
    );
}

fn spec(name: &str, reload: Reload) -> EngineSpec {
    EngineSpec {
        name: name.to_owned(),
        config: None,
        reload,
        health: None,
        applied: None,
        guards: Default::default(),
    }
}

#[test]
fn a_restart_waits_after_any_change_of_the_engine() {
    // A person's edit, of whatever key.
    let mut drive = Drive::new(ladder(RESTART));
    drive.run(5, Some(0.95));
    drive.state.suspend(&drive.ladder, &[], drive.now);
    drive.run(59, Some(0.95));
    assert_eq!(drive.logged(), []);
    assert_eq!(
        drive.blocks(0),
        ["the engine was changed a short while ago: 1.0 s to go"]
    );
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged(), [(65, "apply quantize")]);

    // Another process, as after a crash or a restart by hand.
    let mut engine = Engine::new(spec("e", Reload::None), ladder(RESTART), None);
    let mut took = Vec::new();
    for second in 1..100 {
        let now = Stamp::at_secs(second);
        let seen = readings(engine.ladder(), Some(0.95), now);
        let run = RunId(if second < 5 { 1 } else { 2 });
        let step = engine.tick(&seen, Some(run), now, || (DecisionId(second), second));
        took.extend(step.order.map(|_| second));
    }
    assert_eq!(took, [65]);

    // As long as the engine's limits say; a reload too, then.
    let limits = Limits {
        cooldown: Some(Duration::from_secs(20)),
        ..Limits::default()
    };
    let ladder = ladder(&RESTART.replace("'restart'", "'reload'")).within(limits);
    let mut drive = Drive::new(ladder);
    drive.run(1, Some(0.95));
    drive.state.suspend(&drive.ladder, &[], drive.now);
    drive.run(30, Some(0.95));
    assert_eq!(drive.logged(), [(21, "apply quantize")]);
}

#[test]
fn what_the_other_engines_of_the_host_cost_counts() {
    let limits = HostLimits {
        restarts_per_hour: 1,
        ..HostLimits::default()
    };
    let mut engines = ["a", "b"].map(|name| Engine::new(spec(name, Reload::None), ladder(RESTART), None));
    let mut took = Vec::new();
    let mut ids = 0;
    for second in 1..4_000 {
        let now = Stamp::at_secs(second);
        for index in 0..2 {
            let others = engines[1 - index].spent();
            let mut seen = readings(engines[index].ladder(), Some(0.95), now);
            seen.set_host(Host {
                limits: limits.clone(),
                others,
            });
            let next = || {
                ids += 1;
                (DecisionId(ids), ids)
            };
            let engine = &mut engines[index];
            if let Some(order) = engine.tick(&seen, None, now, next).order {
                // In the very tick in which the first begins, the second must know.
                took.push((second, index));
                drop(order);
            }
            if index == 1 && second == 11 {
                let said = &engine.explain(&seen, now)[0].blocks[0].text;
                assert!(
                    said.starts_with("1 restarts on this host within the hour are spent"),
                    "{said}"
                );
            }
        }
    }
    assert_eq!(took, [(11, 0), (3_611, 1)]);
}

#[test]
fn rungs_that_cost_too_much_quality_together_are_not_taken() {
    let rule = |name: &str, loss: &str| {
        format!(
            "[[rule]]\nname = '{name}'\nengine = 'e'\nmode = 'act'\nset = {{ {name} = 1 }}\nfor = 0\nsaves = '1MiB'\n\
             quality_loss = '{loss}'\nwhen = {{ signal = 'vram.used_ratio', enter = 0.9 }}\n"
        )
    };
    let mut drive = Drive::new(ladder(
        &[rule("a", "2%"), rule("b", "2%"), rule("c", "1%")].concat(),
    ));
    drive.run(10, Some(0.95));
    assert_eq!(drive.active(), ["a", "c"]);
    assert_eq!(
        drive.blocks(1)[0],
        "with it answers would be worse by 5 % in all, and the limit is 3 %"
    );
}

#[test]
fn an_engine_that_ran_out_of_memory_comes_back_one_rung_lower() {
    let hot = "[[rule]]\nname = 'limits'\nengine = 'e'\nmode = 'act'\nset = { b = 1 }\ncost = 'hot'\n\
               when = { signal = 'vram.used_ratio', enter = 0.99 }\n";
    let mut drive = Drive::new(ladder(&[hot, RESTART].concat()));
    drive.run(5, Some(0.5));
    drive.state.ran_out_of_memory(drive.now);
    let transition = drive.tick(Some(0.1)).pop().expect("an answer");
    assert_eq!(
        (transition.rule.as_str(), transition.verdict),
        ("limits", Verdict::Apply)
    );
    assert!(
        transition
            .explanation
            .starts_with("The engine ran out of memory; it comes back with 'limits'."),
        "{}",
        transition.explanation
    );
    drive
        .state
        .on_outcome("limits", Outcome::Kept { effect_bytes: None }, drive.now);
    drive.run(60, Some(0.1));
    assert_eq!(drive.active(), ["limits"]);
    drive.state.ran_out_of_memory(drive.now);
    drive.run(1, Some(0.1));
    assert_eq!(drive.active(), ["limits", "quantize"]);
    // Nothing is left to take, and an answer that could not be given for a minute is not given later.
    drive.state.ran_out_of_memory(drive.now);
    drive.run(1, Some(0.1));
    assert_eq!(drive.log.len(), 2);
}

#[test]
fn a_death_is_not_answered_while_a_person_has_paused_the_engine() {
    let mut drive = Drive::new(ladder(RESTART));
    drive.run(1, Some(0.5));
    drive.state.pause(drive.now);
    drive.state.ran_out_of_memory(drive.now);
    drive.run(120, Some(0.1));
    drive.state.resume();
    drive.run(1, Some(0.1));
    assert_eq!(drive.log, []);
}

#[test]
fn one_death_is_no_reason_for_a_restart() {
    let mut drive = Drive::new(ladder(RESTART));
    drive.run(1, Some(0.5));
    for deaths in 0..2 {
        drive.state.ran_out_of_memory(drive.now);
        drive.run(1_900, Some(0.1));
        assert_eq!(drive.log.len(), 0, "{deaths}");
    }
    drive.state.ran_out_of_memory(drive.now);
    drive.run(60, Some(0.1));
    drive.state.ran_out_of_memory(drive.now);
    drive.run(1, Some(0.1));
    assert_eq!(drive.active(), ["quantize"]);
}

/// An engine that takes its memory once: its rungs make the KV cache larger.
#[test]
fn the_kv_cache_is_projected_with_what_waits() {
    let rung = |name: &str, capacity: f64| {
        format!(
            "[[rule]]\nname = '{name}'\nengine = 'e'\nmode = 'act'\nset = {{ {name} = 1 }}\nfor = 0\nhold = '10s'\ncalm = '10s'\n\
             capacity = {capacity}\nwhen = {{ signal = 'engine.kv_used_ratio', enter = 0.9, exit = 0.7 }}\n"
        )
    };
    let ladder = ladder(&[rung("half", 1.5), rung("quarter", 2.0)].concat());
    let see = |value: f64, (running, waiting): (f64, f64), at: i64| -> Readings {
        let mut seen = readings(&ladder, Some(value), Stamp::at_secs(at));
        seen.set_load(running, waiting);
        seen
    };
    // As many wait as run: they need twice what there is, and the first rung gives one and a half times as much.
    let mut drive = Drive::new(ladder.clone());
    let now = Stamp::at_secs(1_000);
    let evaluation = evaluate(&ladder, &drive.state, &see(1.0, (10.0, 10.0), 1_000), now);
    let transition = &evaluation.transitions[0];
    assert_eq!(transition.rungs, ["half", "quarter"]);
    assert_eq!(transition.projection, Some(2.0 / 3.0));
    drive.state = evaluation.state;
    drive
        .state
        .on_outcome("quarter", Outcome::Kept { effect_bytes: None }, now);
    // 30 % of the large cache are 60 % of the smaller one: that may go. 30 % there are 45 % of the first: that as well.
    let mut log = Vec::new();
    for at in 1_001..1_060 {
        let now = Stamp::at_secs(at);
        let evaluation = evaluate(&ladder, &drive.state, &see(0.3, (10.0, 0.0), at), now);
        drive.state = evaluation.state;
        for transition in evaluation.transitions {
            log.push((at, transition.rule.clone()));
            drive
                .state
                .on_outcome(&transition.rule, Outcome::Kept { effect_bytes: None }, now);
        }
    }
    assert_eq!(log, [(1_011, "quarter".to_owned()), (1_022, "half".to_owned())]);
}

#[test]
fn a_full_cache_after_release_keeps_the_rung() {
    let ladder = ladder(
        "[[rule]]\nname = 'half'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\nfor = 0\nhold = 0\ncalm = '5s'\ncapacity = 2.0\n\
         when = { all = [ { signal = 'engine.kv_used_ratio', enter = 0.9, exit = 0.7 },\n\
                          { signal = 'engine.requests_waiting', enter = 4, exit = 1 } ] }\n",
    );
    let mut drive = Drive::new(ladder.clone());
    let mut at = Stamp::at_secs(1_000);
    let mut go = |kv: f64, waiting: f64, drive: &mut Drive| -> usize {
        at = at.plus(Duration::from_secs(1));
        let mut seen = Readings::unknown(Duration::from_secs(10));
        for clause in ladder.rules[0].when.clauses() {
            let value = if &*clause.probe.signal == "engine.kv_used_ratio" {
                kv
            } else {
                waiting
            };
            seen.insert(clause.probe.clone(), Reading { value, at });
        }
        seen.set_load(10.0, waiting);
        let evaluation = evaluate(&ladder, &drive.state, &seen, at);
        drive.state = evaluation.state;
        let count = evaluation.transitions.len();
        for transition in evaluation.transitions {
            drive
                .state
                .on_outcome(&transition.rule, Outcome::Kept { effect_bytes: None }, at);
        }
        count
    };
    assert_eq!(go(1.0, 5.0, &mut drive), 1);
    // Nobody waits any more, because of the rung: that is no reason to let go of it while it would be full without.
    assert_eq!((0..100).map(|_| go(0.5, 0.0, &mut drive)).sum::<usize>(), 0);
    assert_eq!((0..10).map(|_| go(0.3, 0.0, &mut drive)).sum::<usize>(), 1);
}
