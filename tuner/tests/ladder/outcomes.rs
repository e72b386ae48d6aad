//! What follows from outcomes, and from what a person does.

use plimsoll_tuner::Outcome;

use super::drive::{Drive, one_rung, two_rungs};

#[test]
fn a_rollback_quarantines_for_longer_each_time() {
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
    assert_eq!(tries, [10, 3_610, 10_810, 25_210]);
    assert_eq!(drive.phase(), "quarantined");
    assert!(
        drive.blocks(0)[0].starts_with("in quarantine after 4 rollback(s): "),
        "{:?}",
        drive.blocks(0)
    );
    drive.state.lift("quantize");
    assert_eq!(drive.tick(Some(0.95)).len(), 1);
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
