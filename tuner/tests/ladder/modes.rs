//! Rules that may not act by themselves.

use std::time::Duration;

use super::drive::{Drive, one_rung};

#[test]
fn observe_records_once_and_again_after_the_pressure_was_over() {
    let mut drive = Drive::new(one_rung("observe", "saves = '5GiB'"));
    drive.run(500, Some(0.95));
    assert_eq!(drive.logged(), [(11, "apply quantize")]);
    assert_eq!(drive.phase(), "observed");
    assert!(drive.active().is_empty(), "nothing was changed");
    drive.run(500, Some(0.80));
    assert_eq!(drive.log.len(), 1, "above exit");
    drive.run(100, Some(0.75));
    drive.run(100, Some(0.95));
    assert_eq!(
        drive.logged(),
        [
            (11, "apply quantize"),
            (1031, "release quantize"),
            (1111, "apply quantize")
        ]
    );
}

#[test]
fn a_proposal_is_made_once_and_waits_for_a_person() {
    let mut drive = Drive::new(one_rung("advise", "saves = '5GiB'"));
    drive.run(500, Some(0.95));
    assert_eq!(drive.logged(), [(11, "apply quantize")]);
    assert_eq!(drive.phase(), "proposed");
    drive.run(500, Some(0.95));
    assert_eq!(drive.log.len(), 1);
}

#[test]
fn the_release_of_a_rung_is_proposed_once_and_withdrawn_with_its_reason() {
    let mut drive = Drive::new(one_rung("act", "saves = '5GiB'"));
    drive.run(11, Some(0.95));
    assert_eq!(drive.active(), ["quantize"]);
    // It may not act any more, and holds a rung.
    drive.ladder = one_rung("advise", "saves = '5GiB'");
    drive.run(500, Some(0.30));
    drive.run(10, Some(0.70));
    assert_eq!(drive.withdrawn, ["The pressure would come back."]);
    drive.run(500, Some(0.30));
    assert_eq!(
        drive.logged(),
        [
            (11, "apply quantize"),
            (71, "release quantize"),
            (552, "release quantize")
        ]
    );
    assert_eq!(drive.active(), ["quantize"], "nothing was changed");
}

#[test]
fn a_proposal_is_withdrawn_when_the_pressure_is_over_or_nobody_came() {
    let mut drive = Drive::new(one_rung("advise", ""));
    drive.run(20, Some(0.95));
    drive.run(1, Some(0.80));
    assert_eq!(drive.phase(), "proposed");
    drive.run(1, Some(0.75));
    assert_eq!(drive.withdrawn, ["The pressure is over."]);
    assert_eq!(drive.phase(), "idle");
    drive.run(20, Some(0.95));
    assert_eq!(drive.phase(), "proposed");
    drive.now = drive.now.plus(Duration::from_secs(86_400));
    drive.run(1_000, Some(0.95));
    assert_eq!(drive.withdrawn[1..], ["Nobody applied it for a day."]);
    assert_eq!(
        drive.log.len(),
        2,
        "it does not repeat itself while the pressure lasts"
    );
}
