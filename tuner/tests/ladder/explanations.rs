//! What a person gets to read.

use plimsoll_trace::Stamp;
use plimsoll_tuner::{Forecast, LadderState, NOT_FILLING_SECS, Outcome, Rise, evaluate, explain};

use super::drive::{Drive, GIB, ladder, readings, two_rungs};

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

/// A rule on when memory will be full, and readings in which `used` of 24 GiB rises by 100 MiB a second.
#[test]
fn an_estimate_is_shown_with_its_range_and_projected_on_the_room() {
    let ladder = ladder(
        r#"
        [[rule]]
        name = "quantize"
        engine = "engine"
        mode = "act"
        when = { signal = "vram.full_in_secs", enter = "1m", exit = "2m" }
        set = { a = 1 }
        saves = "6000MiB"
        for = 0
        "#,
    );
    let (room, rise) = (3_000.0 * 1_048_576.0, 100.0 * 1_048_576.0);
    let forecast = Forecast {
        room_bytes: room,
        rise: Some(Rise {
            per_sec: rise,
            give_or_take: rise / 2.0,
        }),
    };
    let mut seen = readings(&ladder, Some(forecast.full_in_secs()), Stamp::at_secs(100));
    seen.set_forecast(Some(forecast));
    let now = Stamp::at_secs(100);
    let done = evaluate(&ladder, &LadderState::default(), &seen, now);
    insta::assert_snapshot!(done.transitions[0].explanation, @"vram.full_in_secs is 30 s, at or below 1 min. Expected to free 5.9 GiB, which would make it 1 min 30 s.");
    let told = explain(&ladder, &done.state, &seen, now);
    insta::assert_snapshot!(told[0].clauses[0].text, @"vram.full_in_secs is about 30 s, 20 s to 1 min in four of five cases (takes at or below 1 min, lets go at or above 2 min)");
    // A trend from before a change says nothing about the time after it.
    let mut state = done.state;
    let effect_bytes = None;
    state.on_outcome("quantize", Outcome::Kept { effect_bytes }, Stamp::at_secs(95));
    assert_eq!(explain(&ladder, &state, &seen, now)[0].clauses[0].value, None);
    // Not filling is known, and is not unknown.
    let still = readings(&ladder, Some(NOT_FILLING_SECS), now);
    let told = explain(&ladder, &LadderState::default(), &still, now);
    insta::assert_snapshot!(told[0].clauses[0].text, @"vram.full_in_secs is not within a day (takes at or below 1 min, lets go at or above 2 min)");
}
