//! What follows from outcomes, and from what a person does.

use plimsoll_tuner::Outcome;

use super::drive::{Drive, one_rung, two_rungs};

#[test]
fn a_second_rollback_quarantines_and_each_further_one_for_longer() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    let mut tries = Vec::new();
    for second in 0..30_000 {
        for transition in drive.tick(Some(0.95)) {
            tries.push(second);
            drive
                .state
                .on_outcome(&transition.rule, Outcome::RolledBack, drive.now);
        }
    }
    // Ten minutes after the first, then one, two, four hours.
    assert_eq!(tries, [10, 610, 4_210, 11_410, 25_810]);
    assert_eq!(drive.phase(), "quarantined");
    assert!(
        drive.blocks(0)[0].starts_with("in quarantine after 5 failures within a day: "),
        "{:?}",
        drive.blocks(0)
    );
    drive.state.lift("quantize");
    assert_eq!(drive.tick(Some(0.95)).len(), 1);
}

/// The rule is tried `at` this second, and that is taken back.
fn roll_back_at(drive: &mut Drive, at: i64) {
    while drive.now.mono_ns < (1_000 + at) * 1_000_000_000 {
        drive.tick(Some(0.3));
    }
    let transition = (0..20)
        .flat_map(|_| drive.tick(Some(0.95)))
        .next()
        .expect("a try");
    drive
        .state
        .on_outcome(&transition.rule, Outcome::RolledBack, drive.now);
    drive.run(1, Some(0.95));
}

#[test]
fn a_rollback_that_stands_alone_is_no_quarantine() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    roll_back_at(&mut drive, 0);
    assert_eq!(drive.phase(), "rolled_back");
    assert_eq!(
        drive.blocks(0)[0],
        "taken back a short while ago: 9 min 59 s to go"
    );
    // A day later the first is forgotten; ten minutes after that the second is not.
    roll_back_at(&mut drive, 86_400);
    assert_eq!(drive.phase(), "rolled_back");
    roll_back_at(&mut drive, 87_200);
    assert_eq!(drive.phase(), "quarantined");
    assert_eq!(
        drive.blocks(0)[0],
        "in quarantine after 2 failures within a day: 59 min 59 s to go"
    );
}

#[test]
fn a_quarantine_outlives_the_daemon() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    roll_back_at(&mut drive, 0);
    roll_back_at(&mut drive, 700);
    let stored = serde_json::to_string(&drive.state).expect("it can be written");
    drive.state = serde_json::from_str(&stored).expect("and read");
    drive.run(3_000, Some(0.95));
    assert_eq!(drive.phase(), "quarantined");
    assert_eq!(drive.log.len(), 2);
    drive.run(700, Some(0.95));
    assert_eq!(drive.log.len(), 3);
}

#[test]
fn dying_soon_after_a_rung_was_taken_counts_against_it() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(11, Some(0.95));
    assert_eq!(drive.active(), ["quantize"]);
    drive.run(100, Some(0.8));
    drive.state.ran_out_of_memory(drive.now);
    drive.run(100, Some(0.8));
    assert_eq!(drive.blocks(0).len(), 1, "no more than once");
    drive.state.ran_out_of_memory(drive.now);
    drive.run(1, Some(0.8));
    assert_eq!(
        drive.blocks(0)[0],
        "in quarantine after 2 failures within a day: 59 min 59 s to go"
    );
    // Long after it was taken, it is not the rung's fault.
    drive.state.lift("quantize");
    drive.run(600, Some(0.8));
    for _ in 0..2 {
        drive.state.ran_out_of_memory(drive.now);
        drive.run(1, Some(0.8));
    }
    assert!(
        !drive.blocks(0)[0].contains("quarantine"),
        "{:?}",
        drive.blocks(0)
    );
}

#[test]
fn a_refusal_is_not_tried_again_on_every_tick() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    let mut tries = Vec::new();
    for second in 0..2_000 {
        for transition in drive.tick(Some(0.95)) {
            tries.push(second);
            drive
                .state
                .on_outcome(&transition.rule, Outcome::Refused, drive.now);
        }
    }
    assert_eq!(tries, [10, 310, 910]);
    assert_eq!(drive.phase(), "gated");
}

#[test]
fn a_failed_rollback_stops_the_engines_ladder_until_a_person_resumes() {
    let mut drive = Drive::new(two_rungs());
    let transition = drive.tick(Some(0.85)).remove(0);
    drive
        .state
        .on_outcome(&transition.rule, Outcome::Failed, drive.now);
    drive.run(5_000, Some(0.95));
    assert_eq!(drive.log.len(), 1);
    drive.state.resume();
    drive.run(1, Some(0.95));
    assert!(drive.log.len() > 1);
}

#[test]
fn a_pause_stops_acting_and_nothing_else() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.state.pause(drive.now);
    drive.run(100, Some(0.95));
    assert!(drive.log.is_empty());
    assert_eq!(drive.blocks(0), ["acting on this engine is paused"]);
    drive.state.resume();
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged(), [(101, "apply quantize")]);
}

#[test]
fn a_persons_edit_suspends_the_rules_that_set_the_same_keys() {
    let mut drive = Drive::new(two_rungs());
    drive.run(1, Some(0.85));
    let keys = ["model".parse().expect("a path")];
    assert_eq!(drive.state.suspend(&drive.ladder, &keys, drive.now), ["quantize"]);
    drive.run(100, Some(0.95));
    assert_eq!(drive.logged(), [(1, "apply checkpointing")]);
    assert_eq!(drive.active(), ["checkpointing"]);
    assert_eq!(
        drive.blocks(1),
        ["a person changed model.quantization in the engine's file"]
    );
    let keys = ["gradient_checkpointing".parse().expect("a path")];
    drive.state.suspend(&drive.ladder, &keys, drive.now);
    assert!(
        drive.active().is_empty(),
        "what a rung had set is the person's now"
    );
    drive.state.resume();
    drive.run(1, Some(0.95));
    drive.run(1, Some(0.95));
    assert_eq!(drive.active(), ["checkpointing", "quantize"]);
}

#[test]
fn one_rule_alone_is_given_its_keys_back() {
    let mut drive = Drive::new(two_rungs());
    let keys = ["model", "gradient_checkpointing"].map(|key| key.parse().expect("a path"));
    drive.state.suspend(&drive.ladder, &keys, drive.now);
    drive.run(100, Some(0.95));
    assert_eq!(drive.logged(), []);
    drive.state.lift("quantize");
    drive.run(2, Some(0.95));
    assert_eq!(drive.active(), ["quantize"], "and no other");
}
