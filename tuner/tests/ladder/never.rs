//! What no course of events may bring about.

use std::time::Duration;

use plimsoll_trace::{Stamp, Verdict};
use plimsoll_tuner::{Ladder, LadderState, Outcome, evaluate};
use proptest::prelude::*;

use super::drive::{GIB, ladder, readings};

const USABLE_GIB: f64 = 24.0;

fn two_rungs(mode: &str) -> Ladder {
    ladder(&format!(
        r#"
        [[rule]]
        name = "cap"
        engine = "engine"
        mode = "{mode}"
        when = {{ signal = "vram.used_ratio", enter = 0.80, exit = 0.65 }}
        set = {{ cap = 1 }}
        for = 0
        hold = "10s"
        calm = "5s"

        [[rule]]
        name = "quantize"
        engine = "engine"
        mode = "{mode}"
        when = {{ any = [ {{ signal = "vram.used_ratio", enter = 0.92, exit = 0.75 }},
                          {{ signal = "vram.used_ratio", stat = "mean", window = "10s", enter = 0.9, exit = 0.7 }} ] }}
        set = {{ q = 1 }}
        saves = "1GiB"
        for = "3s"
        hold = "10s"
        calm = "5s"
        "#
    ))
}

/// What a rung frees in the small world of these tests.
fn frees_gib(rule: &str) -> f64 {
    if rule == "quantize" { 7.0 } else { 2.0 }
}

/// Stretches of a steady demand, in GiB, each some seconds long.
fn demand() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec((4.0..24.0_f64, 1_usize..60), 1..30).prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(level, secs)| vec![level; secs])
            .collect()
    })
}

/// Seconds with a value, or without one, and now and then a long gap or an outcome that is not the expected one.
fn course() -> impl Strategy<Value = Vec<(Option<f64>, u64, u8)>> {
    let value = prop_oneof![4 => (0.3..1.0_f64).prop_map(Some), 1 => Just(None)];
    proptest::collection::vec(
        (value, prop_oneof![9 => 1_u64..3, 1 => 1_u64..5_000], 0_u8..8),
        1..200,
    )
}

fn outcome(choice: u8) -> Option<Outcome> {
    Some(match choice {
        0 => return None,
        1 => Outcome::Applied,
        2 => Outcome::RolledBack,
        3 => Outcome::Refused,
        4 => Outcome::Interrupted,
        5 => Outcome::Kept { effect_bytes: None },
        _ => Outcome::Kept {
            effect_bytes: Some(3 << 30),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// With the demand as it is, letting go never brings the use above `exit`, so the rung is not needed again at once:
    /// the flapping of two thresholds cannot occur.
    #[test]
    fn what_is_let_go_is_not_needed(demand in demand()) {
        let ladder = two_rungs("act");
        let mut state = LadderState::default();
        let mut now = Stamp::at_secs(1);
        for demand_gib in demand {
            let freed_gib: f64 = state.active(&ladder).map(|rule| frees_gib(&rule.name)).sum();
            let used = (demand_gib - freed_gib) / USABLE_GIB;
            let done = evaluate(&ladder, &state, &readings(&ladder, Some(used), now), now);
            state = done.state;
            for transition in done.transitions {
                let taken: f64 = transition.detail["taken"]
                    .as_array().into_iter().flatten().filter_map(|name| name.as_str()).map(frees_gib).sum();
                if transition.verdict == Verdict::Release {
                    let rule = ladder.rule(&transition.rule).expect("a rule of this ladder");
                    let after = used + frees_gib(&rule.name) / USABLE_GIB;
                    prop_assert!(rule.when.clauses().iter().all(|clause| after <= clause.exit + 1e-9), "{after}");
                }
                #[expect(clippy::cast_possible_truncation, reason = "a few GiB")]
                let effect_bytes = Some((taken * GIB as f64) as i64);
                state.on_outcome(&transition.rule, Outcome::Kept { effect_bytes }, now);
            }
            now = now.plus(Duration::from_secs(1));
        }
    }

    /// The same arguments give the same answer, and a state that went through the store is the same state.
    #[test]
    fn decisions_can_be_replayed(course in course(), mode in prop_oneof!["observe", "advise", "act"]) {
        let ladder = two_rungs(&mode);
        let mut now = Stamp::at_secs(1);
        let mut state = LadderState::default();
        for (value, secs, choice) in course {
            now = now.plus(Duration::from_secs(secs));
            let readings = readings(&ladder, value, now);
            let stored = serde_json::to_string(&state).expect("it can be written");
            let restored: LadderState = serde_json::from_str(&stored).expect("it can be read");
            let done = evaluate(&ladder, &state, &readings, now);
            prop_assert_eq!(&done, &evaluate(&ladder, &restored, &readings, now));
            state = done.state;
            if let Some(((rule, _), outcome)) = state.clone().under_way().zip(outcome(choice)) {
                state.on_outcome(rule, outcome, now);
            }
        }
    }

    /// At most one transition is carried out at a time, what is unknown moves nothing, and rows are rare.
    #[test]
    fn one_at_a_time_and_nothing_on_unknown(course in course(), mode in prop_oneof!["observe", "advise", "act"]) {
        let ladder = two_rungs(&mode);
        let mut now = Stamp::at_secs(1);
        let mut state = LadderState::default();
        for (value, secs, choice) in course {
            now = now.plus(Duration::from_secs(secs));
            let busy = state.under_way().is_some();
            let active: Vec<String> = state.active(&ladder).map(|rule| rule.name.clone()).collect();
            let done = evaluate(&ladder, &state, &readings(&ladder, value, now), now);
            if value.is_none() || (busy && mode == "act") {
                prop_assert!(done.transitions.is_empty());
            }
            prop_assert!(mode != "act" || done.transitions.len() <= 1);
            let still: Vec<String> = done.state.active(&ladder).map(|rule| rule.name.clone()).collect();
            prop_assert_eq!(active, still, "only an outcome takes a rung or lets it go");
            state = done.state;
            if let Some(((rule, _), outcome)) = state.clone().under_way().zip(outcome(choice)) {
                state.on_outcome(rule, outcome, now);
            }
        }
    }
}
