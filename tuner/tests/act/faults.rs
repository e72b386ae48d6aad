//! Engines that refuse, hang, lie, babble or die; journals that fail; defects of our own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use plimsoll_trace::{ChangeOutcome, DecisionOutcome};
use plimsoll_tuner::Reload;
use plimsoll_tuner::act::{self, Ended};

use super::engine::{Fault, When};
use super::world::{Daemon, PERSON, RULES, World, file_values};

/// Takes the first rung on an engine with these faults.
fn take(faults: &[Fault]) -> (World, Daemon, act::Report) {
    let world = World::new();
    world.engine.faults(faults);
    let mut daemon = Daemon::start(&world.paths, world.book());
    let report = daemon.act(0.85).expect("an action");
    daemon.check(&format!("{faults:?}"));
    (world, daemon, report)
}

#[test]
fn what_does_not_work_is_taken_back() {
    for fault in [
        Fault::Refuses,
        Fault::Sickens,
        Fault::Lies,
        Fault::Hangs,
        Fault::Redirects,
        Fault::Babbles,
    ] {
        let (world, mut daemon, report) = take(&[fault]);
        let rows = daemon.book.rows();
        let said = &rows.last().explanation;
        assert_eq!(report.ended, Ended::RolledBack, "{fault:?}: {said}");
        assert_eq!(rows.last().outcome, DecisionOutcome::RolledBack);
        assert_eq!(rows.changes[&1].outcome, ChangeOutcome::RolledBack);
        assert_eq!(world.text(), PERSON, "{fault:?}");
        assert_eq!(
            world.engine.applied(),
            file_values(&world.file()),
            "{fault:?}: {said}"
        );
        assert!(
            rows.events
                .iter()
                .any(|event| event.starts_with("rolled_back") && event.contains("rests for 10 min")),
            "{:?}",
            rows.events
        );
        assert!(
            !rows.events.iter().any(|event| event.starts_with("quarantine")),
            "once is none: {:?}",
            rows.events
        );
        assert!(said.ends_with(" The rule rests for 10 min."), "{said}");
        assert!(
            !rows.events.iter().any(|event| event.contains("human_edit")),
            "{:?}",
            rows.events
        );
        // Not at once again, whatever the pressure.
        assert!(daemon.act(0.85).is_none(), "{fault:?}");
    }
}

#[test]
fn an_engine_that_refuses_every_reload_is_still_on_the_former_values() {
    let (world, _daemon, report) = take(&[Fault::Refuses; 20]);
    assert_eq!(report.ended, Ended::RolledBack, "{:?}", report.records);
    assert_eq!(world.text(), PERSON);
}

#[test]
fn an_engine_that_dies_stops_all_acting() {
    let (world, mut daemon, report) = take(&[Fault::Dies]);
    assert_eq!(report.ended, Ended::Failed);
    assert_eq!(world.text(), PERSON, "the file is as it was all the same");
    let rows = daemon.book.rows();
    assert!(
        rows.events
            .iter()
            .any(|event| event.starts_with("engine_unhealthy")),
        "{:?}",
        rows.events
    );
    assert!(daemon.act(0.95).is_none(), "no other rung either");
}

#[test]
fn a_command_is_run_once_each_way() {
    let world = World::new();
    let ran = world.folder.join("ran");
    let mut spec = world.spec();
    let script = format!("echo run >> {}; exit 1", ran.display());
    spec.reload = Reload::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
    // So that nobody can tell that it still serves its former values.
    spec.applied = None;
    let mut daemon = Daemon::start_with(&world.paths, world.book(), spec, RULES);
    let report = daemon.act(0.85).expect("an action");
    assert_eq!(report.ended, Ended::Failed, "{:?}", report.records);
    assert_eq!(std::fs::read_to_string(ran).unwrap(), "run\nrun\n");
    assert_eq!(world.text(), PERSON);
}

#[test]
fn a_failing_second_rung_leaves_the_first() {
    let world = World::new();
    let mut daemon = Daemon::start(&world.paths, world.book());
    daemon.act(0.85).expect("the first");
    let first = world.text();
    assert!(first.contains("int8"), "{first}");
    world.engine.faults(&[Fault::Sickens]);
    assert_eq!(daemon.act(0.95).expect("the second").ended, Ended::RolledBack);
    assert_eq!(world.text(), first);
    assert_eq!(world.engine.applied(), file_values(&world.file()));
    daemon.release_all();
    assert_eq!(world.text(), PERSON);
}

/// A journal that fails at the commits that `fails` names, counted from the action's first.
fn with_failing_journal(
    faults: &[Fault],
    fails: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> (World, act::Report) {
    let world = World::new();
    world.engine.faults(faults);
    let mut daemon = Daemon::start(&world.paths, world.book());
    let order = (0..10).find_map(|_| daemon.tick(0.85)).expect("an order");
    let journal = world.book().with_hook(move |number, when| {
        if when == When::Before && fails(number) {
            return Err("the disk is full".to_owned());
        }
        Ok(())
    });
    let report = act::carry_out(order, &daemon.live, &journal);
    daemon.finished(&report);
    daemon.check("a failing journal");
    assert_eq!(world.engine.applied(), file_values(&world.file()));
    if report.ended == Ended::Kept {
        daemon.release_all();
    }
    assert_eq!(world.text(), PERSON);
    (world, report)
}

#[test]
fn nothing_is_done_without_a_row() {
    let (world, report) = with_failing_journal(&[], |number| number == 0);
    assert_eq!(report.ended, Ended::Refused);
    assert_eq!(
        world.engine.requests(),
        ["/health"],
        "the engine was asked whether it is well, and nothing else"
    );
    assert!(world.book().rows().changes.is_empty());
}

#[test]
fn what_serves_is_not_taken_back_for_want_of_a_row() {
    let (_, report) = with_failing_journal(&[], |number| number == 1);
    assert_eq!(report.ended, Ended::Kept);
}

#[test]
fn taking_back_goes_on_without_a_row() {
    let (world, report) = with_failing_journal(&[Fault::Sickens], |number| number >= 1);
    assert_eq!(report.ended, Ended::RolledBack);
    assert!(
        world
            .engine
            .requests()
            .iter()
            .filter(|path| *path == "/reload")
            .count()
            == 2
    );
}

#[test]
fn a_defect_is_undone_and_closed() {
    for faults in [&[][..], &[Fault::Sickens]] {
        for number in 0..3 {
            for when in [When::Before, When::After] {
                let world = World::new();
                if number > 0 {
                    world.engine.faults(faults);
                }
                let count = Arc::new(AtomicUsize::new(0));
                let mut daemon = Daemon::start(&world.paths, world.book());
                let order = (0..10).find_map(|_| daemon.tick(0.85)).expect("an order");
                let hits = Arc::clone(&count);
                let journal = world.book().with_hook(move |at, moment| {
                    if (at, moment) == (number, when) {
                        hits.fetch_add(1, Ordering::Relaxed);
                        panic!("of the test, at commit {at}");
                    }
                    Ok(())
                });
                let report = act::carry_out(order, &daemon.live, &journal);
                daemon.finished(&report);
                daemon.check("a panic");
                assert_eq!(world.engine.applied(), file_values(&world.file()));
                if count.load(Ordering::Relaxed) > 0 {
                    assert_eq!(
                        report.ended,
                        Ended::Interrupted,
                        "{number} {when:?}: {:?}",
                        report.records
                    );
                    assert_eq!(world.text(), PERSON);
                }
                // And the engine is looked at again, later.
                assert!(!daemon.engine.is_acting());
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_and_released_later() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    let mut daemon = Daemon::start(&world.paths, world.book());
    daemon.act(0.85).expect("a rung");
    let taken = world.text();
    let mode = |mode| std::fs::set_permissions(world.file(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o444);
    let refused = daemon.act(0.05).expect("a release");
    assert_eq!(refused.ended, Ended::Refused, "{:?}", refused.records);
    assert_eq!(world.text(), taken);
    std::fs::rename(world.file(), world.folder.join("away")).unwrap();
    daemon.now = daemon.now.plus(std::time::Duration::from_secs(90_000));
    let refused = daemon.act(0.05).expect("a release");
    assert_eq!(refused.ended, Ended::Refused, "{:?}", refused.records);
    std::fs::rename(world.folder.join("away"), world.file()).unwrap();
    mode(0o644);
    daemon.release_all();
    assert_eq!(world.text(), PERSON);
}

#[test]
fn a_file_that_cannot_be_put_back_is_put_back_with_the_next_change() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    world.engine.faults(&[Fault::Sickens]);
    let (file, count) = (world.file(), AtomicUsize::new(0));
    let journal = world.book().with_hook(move |_, when| {
        // Between the write and the way back, somebody makes the file read-only.
        if when == When::After && count.fetch_add(1, Ordering::Relaxed) == 1 {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
        }
        Ok(())
    });
    let mut daemon = Daemon::start(&world.paths, world.book());
    let order = (0..10).find_map(|_| daemon.tick(0.85)).expect("an order");
    let report = act::carry_out(order, &daemon.live, &journal);
    assert_eq!(report.ended, Ended::Failed);
    daemon.finished(&report);
    assert!(world.text().contains("int8"), "it is still ours");
    let events = daemon.book.rows().events;
    assert!(
        !events.iter().any(|event| event.contains("human_edit")),
        "{events:?}"
    );

    // The next daemon still knows whose text is under it.
    std::fs::set_permissions(world.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut next = Daemon::start(&world.paths, world.book());
    let record = next.engine.resume_all();
    next.store(vec![record]);
    next.now = next.now.plus(std::time::Duration::from_secs(90_000));
    assert_eq!(next.act(0.85).expect("once more").ended, Ended::Kept);
    next.release_all();
    assert_eq!(world.text(), PERSON);
}
