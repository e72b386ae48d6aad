//! When rungs are taken and let go.

use std::time::Duration;

use plimsoll_trace::Stamp;
use plimsoll_tuner::{LadderState, Outcome, evaluate};

use super::drive::{Drive, GIB, ladder, one_rung, readings, two_rungs};

#[test]
fn rungs_are_taken_in_order_and_let_go_from_the_top() {
    let mut drive = Drive::new(two_rungs());
    drive.run(5, Some(0.70));
    drive.run(5, Some(0.80));
    assert_eq!(drive.active(), ["checkpointing"]);
    drive.run(20, Some(0.92));
    assert_eq!(drive.active(), ["checkpointing", "quantize"]);
    // Both free 7 GiB of 24: 0.30 now means 0.51 without quantize, and 0.38 without checkpointing.
    drive.run(200, Some(0.30));
    assert_eq!(
        drive.logged(),
        [
            (6, "apply checkpointing"),
            (21, "apply quantize"),
            (81, "release quantize"),
            (102, "release checkpointing")
        ]
    );
    assert!(drive.active().is_empty());
}

#[test]
fn the_condition_must_hold_for_the_whole_time_and_a_dip_resets() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(10, Some(0.95));
    drive.run(1, Some(0.91));
    drive.run(10, Some(0.95));
    assert!(drive.log.is_empty(), "{:?}", drive.log);
    assert_eq!(drive.phase(), "pending");
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged(), [(22, "apply quantize")]);
}

#[test]
fn unknown_freezes_timers_and_neither_takes_nor_lets_go() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(10, Some(0.95));
    drive.run(100, None);
    assert!(drive.log.is_empty());
    assert_eq!(drive.phase(), "unknown");
    // 9 s were counted before; the step out of the unknown does not count.
    drive.run(2, Some(0.95));
    assert_eq!(drive.logged(), [(112, "apply quantize")]);

    drive.run(50, Some(0.30));
    drive.run(500, None);
    assert_eq!(drive.logged().len(), 1, "unknown never lets go");
    assert_eq!(drive.active(), ["quantize"]);
    assert_eq!(
        drive.blocks(0),
        ["its condition is unknown, which stops its timers"]
    );
}

#[test]
fn a_low_reading_because_of_the_rung_never_lets_it_go() {
    // The trap of two thresholds: quantizing frees 7 GiB, the reading falls to 63 %, well below the exit of 75 %.
    let mut drive = Drive::new(one_rung("act", "saves = '1GiB'"));
    for _ in 0..12 {
        for transition in drive.tick(Some(0.93)) {
            let kept = Outcome::Kept {
                effect_bytes: Some(7 * GIB),
            };
            drive.state.on_outcome(&transition.rule, kept, drive.now);
        }
    }
    drive.run(10_000, Some(0.63));
    assert_eq!(drive.logged(), [(11, "apply quantize")]);
    assert_eq!(
        drive.blocks(0),
        ["without its rung the pressure would be back, or near"]
    );
    // The learned effect counts, not `saves`: 0.45 + 7/24 is 74 %, and 30 s later it is let go.
    drive.run(32, Some(0.45));
    assert_eq!(
        drive.log.last().map(|(_, what)| what.as_str()),
        Some("release quantize")
    );
}

#[test]
fn hold_and_calm_are_both_waited_for() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(11, Some(0.95));
    drive.run(50, Some(0.30));
    assert_eq!(drive.blocks(0), ["a rung is held for a while: 10 s to go"]);
    // 0.60 + 5/24 is 81 %: not calm. It begins anew.
    drive.run(5, Some(0.60));
    drive.run(30, Some(0.30));
    assert_eq!(drive.blocks(0), ["the calm must last longer: 1.0 s to go"]);
    drive.run(1, Some(0.30));
    assert_eq!(drive.logged(), [(11, "apply quantize"), (97, "release quantize")]);
}

#[test]
fn without_an_estimate_nothing_is_let_go_by_itself() {
    let mut drive = Drive::new(one_rung("act", ""));
    for _ in 0..11 {
        for transition in drive.tick(Some(0.95)) {
            assert_eq!(transition.expected_effect_bytes, None);
            drive
                .state
                .on_outcome(&transition.rule, Outcome::Kept { effect_bytes: None }, drive.now);
        }
    }
    drive.run(10_000, Some(0.01));
    assert_eq!(drive.active(), ["quantize"]);
    assert_eq!(
        drive.blocks(0),
        ["what its rung frees is unknown, so nothing says what letting go would do"]
    );
}

#[test]
fn a_signal_that_is_not_memory_is_never_let_go_by_itself() {
    let mut drive = Drive::new(ladder(
        "[[rule]]\nname = 'kv'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\nsaves = '1GiB'\nfor = 0\nhold = 0\ncalm = 0\n\
         when = { signal = 'engine.requests_waiting', enter = 4, exit = 0 }",
    ));
    drive.run(1, Some(9.0));
    drive.run(1_000, Some(0.0));
    assert_eq!(drive.logged(), [(1, "apply kv")]);
    assert_eq!(
        drive.blocks(0),
        ["what letting go would do to its signals is unknown: a person lets go"]
    );
}

#[test]
fn low_free_memory_mirrors_high_use() {
    let mut drive = Drive::new(ladder(
        "[[rule]]\nname = 'kv'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\nsaves = 1000\nfor = 0\nhold = 0\ncalm = '5s'\n\
         when = { signal = 'vram.free_bytes', enter = 800, exit = 2000 }",
    ));
    drive.run(1, Some(801.0));
    drive.run(1, Some(800.0));
    // 2999 free would be 1999 without the rung.
    drive.run(100, Some(2999.0));
    assert_eq!(drive.active(), ["kv"]);
    drive.run(6, Some(3000.0));
    assert_eq!(drive.logged(), [(2, "apply kv"), (108, "release kv")]);
}

#[test]
fn a_jump_takes_the_cheap_rung_first_only_if_it_is_known_to_suffice() {
    // 93 % less 2 GiB of 24 is 85 %: below the line of quantize, so checkpointing alone.
    let mut rules = two_rungs();
    rules.rules[0].held_for = Duration::from_secs(3_600);
    let mut drive = Drive::new(rules.clone());
    drive.run(11, Some(0.93));
    assert_eq!(drive.logged(), [(11, "apply checkpointing")]);

    // 99 % less 2 GiB is 91 %, which suffices; at 100.5 % it does not, so both at once.
    let mut drive = Drive::new(rules.clone());
    let mut transitions = Vec::new();
    for _ in 0..11 {
        transitions.extend(drive.tick(Some(1.005)));
    }
    let both = &transitions[0];
    assert_eq!(
        (both.rule.as_str(), both.rungs.clone()),
        ("quantize", vec!["checkpointing".into(), "quantize".into()])
    );
    assert_eq!(both.expected_effect_bytes, Some(7 * GIB));
    drive.state.on_outcome(
        "quantize",
        Outcome::Kept {
            effect_bytes: Some(7 * GIB),
        },
        drive.now,
    );
    assert_eq!(drive.active(), ["checkpointing", "quantize"]);

    // What a rung frees is unknown: it may suffice, and comes first.
    rules.rules[0].saves_bytes = None;
    let mut drive = Drive::new(rules);
    drive.run(11, Some(1.005));
    assert_eq!(drive.logged(), [(11, "apply checkpointing")]);
}

#[test]
fn one_transition_at_a_time_and_windows_go_on_meanwhile() {
    let mut drive = Drive::new(two_rungs());
    for _ in 0..30 {
        drive.tick(Some(0.95));
    }
    assert_eq!(drive.logged(), [(1, "apply checkpointing")]);
    assert_eq!(
        drive.blocks(1),
        ["a transition is being carried out: that of 'checkpointing'"]
    );
    drive
        .state
        .on_outcome("checkpointing", Outcome::Applied, drive.now);
    assert_eq!(drive.phase(), "verifying");
    drive.state.on_outcome(
        "checkpointing",
        Outcome::Kept {
            effect_bytes: Some(GIB),
        },
        drive.now,
    );
    // Its condition held all the while, so the next rung comes with the first reading after the change.
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged()[1], (31, "apply quantize"));
}

#[test]
fn readings_from_before_a_change_say_nothing_after_it() {
    let mut drive = Drive::new(two_rungs());
    for _ in 0..30 {
        drive.tick(Some(0.95));
    }
    let stale = drive.last.clone().expect("a tick");
    drive.state.on_outcome(
        "checkpointing",
        Outcome::Kept {
            effect_bytes: Some(GIB),
        },
        drive.now,
    );
    let later = drive.now.plus(Duration::from_secs(1));
    assert!(
        evaluate(&drive.ladder, &drive.state, &stale, later)
            .transitions
            .is_empty()
    );
}

#[test]
fn a_window_that_reaches_back_before_a_change_says_nothing_after_it() {
    let mut drive = Drive::new(ladder(
        "[[rule]]\nname = 'now'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\nfor = 0\n\
         when = { signal = 'vram.used_ratio', enter = 0.8 }\n\
         [[rule]]\nname = 'mean'\nengine = 'e'\nmode = 'act'\nset = { b = 1 }\nfor = 0\n\
         when = { signal = 'vram.used_ratio', stat = 'mean', window = '30s', enter = 0.9 }",
    ));
    drive.run(1, Some(0.85));
    drive.run(29, Some(0.95));
    assert_eq!(drive.logged(), [(1, "apply now")]);
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged()[1..], [(31, "apply mean")]);
}

#[test]
fn nothing_is_let_go_while_another_rule_is_about_to_act() {
    let mut drive = Drive::new(ladder(
        "[[rule]]\nname = 'memory'\nengine = 'e'\nmode = 'act'\nset = { a = 1 }\nsaves = '1GiB'\nfor = 0\nhold = 0\ncalm = '5s'\n\
         when = { signal = 'vram.used_ratio', enter = 0.8 }\n\
         [[rule]]\nname = 'idle'\nengine = 'e'\nmode = 'act'\nset = { b = 1 }\nfor = '60s'\n\
         when = { signal = 'gpu.busy_ratio', enter = 0.3, exit = 0.5 }",
    ));
    drive.run(1, Some(0.9));
    // Every signal reads 0.1: memory is calm, and the GPU idles.
    drive.run(60, Some(0.1));
    assert_eq!(drive.logged(), [(1, "apply memory")]);
    drive.run(1, Some(0.1));
    assert_eq!(drive.logged()[1..], [(62, "apply idle")]);
}

#[test]
fn a_rung_needed_again_soon_is_held_twice_as_long() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(11, Some(0.95));
    drive.run(60, Some(0.30));
    assert_eq!(drive.log.last(), Some(&(71, "release quantize".into())));
    drive.run(11, Some(0.95));
    drive.run(119, Some(0.30));
    assert_eq!(drive.active(), ["quantize"]);
    drive.run(1, Some(0.30));
    assert_eq!(drive.log.last(), Some(&(202, "release quantize".into())));
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let steps: Vec<f64> = (0..400).map(|i| if i % 200 < 60 { 0.95 } else { 0.30 }).collect();
    let run = |step_secs: i64| {
        let ladder = two_rungs();
        let mut state = LadderState::default();
        let mut log = Vec::new();
        for (i, value) in (0_i64..).zip(&steps) {
            let mut now = Stamp::at_secs(i);
            if i > 30 {
                now.unix_ns += step_secs * 1_000_000_000;
            }
            let done = evaluate(&ladder, &state, &readings(&ladder, Some(*value), now), now);
            state = done.state;
            for transition in done.transitions {
                log.push((i, transition.rule.clone(), transition.verdict));
                let kept = Outcome::Kept {
                    effect_bytes: transition.expected_effect_bytes,
                };
                state.on_outcome(&transition.rule, kept, now);
            }
        }
        log
    };
    assert!(run(0).len() >= 4);
    assert_eq!(run(0), run(86_400));
    assert_eq!(run(0), run(-86_400));
}
