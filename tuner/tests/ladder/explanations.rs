//! What a person gets to read.

use plimsoll_tuner::{Outcome, explain};

use super::drive::{Drive, GIB, two_rungs};

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("it can be written")
}

#[test]
fn explanations_are_complete() {
    let mut drive = Drive::new(two_rungs());
    drive.run(1, Some(0.85));
    let transition = (0..11)
        .flat_map(|_| drive.tick(Some(0.93)))
        .next()
        .expect("quantize");
    insta::assert_snapshot!("taking", transition.explanation);
    insta::assert_snapshot!("taking_detail", pretty(&transition.detail));
    drive.state.on_outcome(
        "quantize",
        Outcome::Kept {
            effect_bytes: Some(7 * GIB),
        },
        drive.now,
    );
    drive.run(12, Some(0.45));
    let readings = drive.last.clone().expect("a tick");
    insta::assert_snapshot!(
        "why",
        pretty(&explain(&drive.ladder, &drive.state, &readings, drive.now))
    );
    let release = (0..100)
        .flat_map(|_| drive.tick(Some(0.40)))
        .next()
        .expect("a release");
    insta::assert_snapshot!("letting_go", release.explanation);
}
