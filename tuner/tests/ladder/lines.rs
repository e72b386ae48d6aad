//! Emergency lines, and what falls by itself.

use std::time::Duration;

use plimsoll_trace::{Batch, DeviceSample, Record, Stamp};
use plimsoll_tuner::{EngineView, Ladder, LadderState, Outcome, Signals, evaluate, explain};

use super::drive::{Drive, ladder, readings};

/// A rule on the memory in use, of a cost.
fn rule(name: &str, cost: &str, lines: &str, rest: &str) -> String {
    format!(
        "[[rule]]\nname = '{name}'\nengine = 'e'\nmode = 'act'\ncost = '{cost}'\nset = {{ {name} = 1 }}\n{rest}\n\
         when = {{ signal = 'vram.used_ratio', {lines} }}\n"
    )
}

#[test]
fn beyond_its_emergency_line_a_rule_takes_hot_rungs_at_once() {
    let lines = "enter = 0.8, exit = 0.6, emergency = 0.96";
    let mut drive = Drive::new(ladder(
        &[
            rule("weights", "restart", "enter = 0.9", ""),
            rule("cap", "hot", "enter = 0.99", "for = '1m'"),
            rule("cache", "restart", lines, ""),
        ]
        .concat(),
    ));
    drive.run(20, Some(0.95));
    assert_eq!(drive.logged(), []);
    let transition = drive.tick(Some(0.97)).pop().expect("at once");
    assert_eq!(
        (transition.rule.as_str(), transition.threshold),
        ("cap", Some(0.96))
    );
    assert_eq!(
        transition.explanation,
        "vram.used_ratio is 97 %, at or above the emergency line 96 %; 'cap' is hot and does not wait. How much this frees is not known yet."
    );
    drive
        .state
        .on_outcome("cap", Outcome::Kept { effect_bytes: None }, drive.now);
    // No other is hot: the rest waits for a minute, and for one after each change.
    drive.run(38, Some(0.97));
    assert_eq!(drive.log.len(), 1);
    drive.run(90, Some(0.97));
    let later = [(81, "apply weights"), (141, "apply cache")];
    assert_eq!(drive.logged()[1..], later);
}

#[test]
fn an_emergency_respects_quality_and_quarantine() {
    let lines = "enter = 0.8, exit = 0.6, emergency = 0.96";
    let mut drive = Drive::new(ladder(&rule(
        "cap",
        "hot",
        lines,
        "for = '1m'\nquality_loss = '4%'",
    )));
    drive.run(30, Some(0.97));
    assert_eq!(drive.logged(), []);
    let mut drive = Drive::new(ladder(&rule("cap", "hot", lines, "for = '1m'")));
    let transition = drive.tick(Some(0.97)).pop().expect("at once");
    drive
        .state
        .on_outcome(&transition.rule, Outcome::RolledBack, drive.now);
    drive.run(300, Some(0.97));
    assert_eq!(drive.log.len(), 1);
    // What is unknown is no emergency.
    let mut drive = Drive::new(ladder(&rule("cap", "hot", lines, "for = '1m'")));
    drive.run(30, None);
    assert_eq!(drive.logged(), []);
}

#[test]
fn observing_and_advising_show_the_same_haste() {
    for mode in ["observe", "advise"] {
        let hot = rule("cap", "hot", "enter = 0.8, emergency = 0.96", "for = '1m'");
        let cold = rule("cache", "restart", "enter = 0.8, emergency = 0.96", "");
        let ladder = ladder(&(hot + &cold).replace("'act'", &format!("'{mode}'")));
        let mut drive = Drive::new(ladder);
        drive.run(2, Some(0.97));
        assert_eq!(drive.logged(), [(1, "apply cap")], "{mode}");
    }
}

/// What the rules see of a device of 100 bytes in use as given, a second apart.
fn watch(ladder: &Ladder, used: impl IntoIterator<Item = u64>) -> (Vec<usize>, String) {
    let mut signals = Signals::new(Duration::from_secs(1));
    signals.watch([ladder]);
    let view = EngineView {
        devices: vec!["a".into()],
        run: None,
    };
    let (mut state, mut took, mut said) = (LadderState::default(), Vec::new(), String::new());
    for (second, used) in used.into_iter().enumerate() {
        let now = Stamp::at_secs(i64::try_from(second).expect("small"));
        let mut sample = DeviceSample::unknown("a".into());
        (sample.used_bytes, sample.total_bytes, sample.reserved_bytes) = (Some(used), Some(100), Some(0));
        signals.update(&Batch {
            at: now,
            records: vec![Record::Device(sample)],
        });
        let seen = signals.readings(ladder, &view, now);
        let done = evaluate(ladder, &state, &seen, now);
        took.extend(done.transitions.iter().map(|_| second));
        state = done.state;
        said = explain(ladder, &state, &seen, now)[0].clauses[0].text.clone();
    }
    (took, said)
}

#[test]
fn what_falls_by_itself_is_left_alone() {
    let lines = "enter = 0.5, exit = 0.3";
    let falling = || (0..20).map(|_| 95).chain((0..20).map(|second| 95 - 4 * second));
    let plain = ladder(&rule("cap", "reload", lines, "for = '23s'"));
    assert_eq!(watch(&plain, falling()).0, [23]);
    for careful in [
        rule(
            "cap",
            "reload",
            &format!("{lines}, unless_falling = true"),
            "for = '23s'",
        ),
        rule("cap", "reload", lines, "for = '23s'\nunless_falling = true"),
    ] {
        let careful = ladder(&careful);
        // At 23 s it is still within 15 % of what it was.
        assert_eq!(watch(&careful, falling()).0, [23]);
        let (took, said) = watch(&careful, (0..20).map(|_| 95).chain((0..20).map(|_| 60)));
        assert_eq!(took, [29], "after the fall is over");
        assert!(!said.contains("by itself"), "{said}");
        let (took, said) = watch(&careful, (0..20).map(|_| 95).chain((0..4).map(|_| 60)));
        assert!(took.is_empty(), "{took:?}");
        assert_eq!(
            said,
            "vram.used_ratio is 60 %, and it falls by itself, to 77.9 % of what it was five seconds before (takes at or above 50 %, lets go at or below 30 %)"
        );
    }
}

#[test]
fn whether_it_falls_is_no_reason_while_unknown() {
    let ladder = ladder(&rule(
        "cap",
        "reload",
        "enter = 0.5, unless_falling = true",
        "for = 0",
    ));
    let mut drive = Drive::new(ladder);
    // The driver's readings say nothing of the change.
    drive.run(1, Some(0.95));
    assert_eq!(drive.logged(), [(1, "apply cap")]);
    assert_eq!(readings(&drive.ladder, None, drive.now).forecast(), None);
}
