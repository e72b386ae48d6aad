//! A person who edits the file at every step of an action. What they wrote is never lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_tuner::act;

use super::engine::{Fault, When};
use super::world::{Daemon, PERSON, Paths, World};

/// The moments of an action at which others can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Commit(usize, When),
    Request(usize, When),
    /// Between the action's end and the daemon's look at it.
    Ended,
}

/// Carries out the next action with `edit` at `moment`; says whether it came to that moment.
fn edited_at(world: &World, daemon: &mut Daemon, ratio: f64, moment: Moment, edit: fn(&Paths)) -> bool {
    let order = (0..10).find_map(|_| daemon.tick(ratio)).expect("an order");
    let done = Arc::new(Mutex::new(false));
    let once = {
        let (paths, done) = (world.paths.clone(), Arc::clone(&done));
        move |now: Moment| {
            let mut done = done.lock().unwrap();
            if now == moment && !*done {
                *done = true;
                edit(&paths);
            }
        }
    };
    let at = once.clone();
    world
        .engine
        .on_request(move |number, when| at(Moment::Request(number, when)));
    let at = once.clone();
    let journal = world.book().with_hook(move |number, when| {
        at(Moment::Commit(number, when));
        Ok(())
    });
    let report = act::carry_out(order, &daemon.live, &journal);
    world.engine.no_hook();
    world.engine.no_faults();
    once(Moment::Ended);
    daemon.finished(&report);
    let came = done.lock().unwrap();
    *came
}

fn each_moment(mut at: impl FnMut(Moment) -> bool) {
    assert!(at(Moment::Ended));
    for make in [Moment::Commit as fn(usize, When) -> Moment, Moment::Request] {
        for number in 0.. {
            if ![When::Before, When::After]
                .map(|when| at(make(number, when)))
                .into_iter()
                .any(|came| came)
            {
                break;
            }
        }
    }
}

/// An edit at each moment of taking and letting go, with an engine that is well and one that is not; then `check`
/// looks at the world when all has settled.
fn everywhere(edit: fn(&Paths), check: impl Fn(&World, &mut Daemon, &str)) {
    with_faults(&[&[], &[Fault::Refuses]], edit, check);
}

fn with_faults(faults: &[&[Fault]], edit: fn(&Paths), check: impl Fn(&World, &mut Daemon, &str)) {
    for faults in faults {
        for (taken, ratio) in [(0, 0.85), (1, 0.95), (2, 0.05), (1, 0.05)] {
            each_moment(|moment| {
                let world = World::new();
                let mut daemon = Daemon::start(&world.paths, world.book());
                for _ in 0..taken {
                    daemon.act(0.95).expect("a rung");
                }
                world.engine.faults(faults);
                let came = edited_at(&world, &mut daemon, ratio, moment, edit);
                if came {
                    let what = format!("{faults:?}, {taken} taken, {ratio}, {moment:?}");
                    let records = daemon.engine.file_changed(daemon.now);
                    daemon.store(records);
                    daemon.check(&what);
                    check(&world, &mut daemon, &what);
                }
                came
            });
        }
    }
}

/// Lets go of whatever is taken, also after a failure.
fn let_go(daemon: &mut Daemon) {
    let record = daemon.engine.resume_all();
    daemon.store(vec![record]);
    daemon.release_all();
}

#[test]
fn a_line_of_theirs_stays_and_ours_goes() {
    let add = |paths: &Paths| paths.save(&(paths.text() + "theirs: 1   # mine\n"));
    everywhere(add, |world, daemon, what| {
        assert!(
            world.text().contains("theirs: 1   # mine\n"),
            "{what}: {}",
            world.text()
        );
        let_go(daemon);
        assert_eq!(
            world.text(),
            PERSON.to_owned() + "theirs: 1   # mine\n",
            "{what}: {:?}",
            daemon
                .book
                .rows()
                .decisions
                .values()
                .map(|it| &it.explanation)
                .collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_whole_text_of_theirs_stays_as_it_is() {
    // From an editor that was opened long before.
    let save = |paths: &Paths| paths.save("quantization: int4 # mine\nbatch: 7\n");
    everywhere(save, |world, daemon, what| {
        assert_eq!(world.text(), "quantization: int4 # mine\nbatch: 7\n", "{what}");
        // Their keys are not touched again, whatever the pressure.
        daemon.now = daemon.now.plus(Duration::from_secs(90_000));
        daemon.act(0.95);
        assert_eq!(world.text(), "quantization: int4 # mine\nbatch: 7\n", "{what}");
    });
}

#[test]
fn a_key_of_ours_that_they_change_is_theirs() {
    let change = |paths: &Paths| {
        let text = paths.text();
        let line = text
            .lines()
            .find(|line| line.starts_with("quantization"))
            .unwrap();
        paths.save(&text.replace(line, "quantization: int4  # mine"));
    };
    let expected = PERSON.replace("quantization: 'none'   # weights", "quantization: int4  # mine");
    everywhere(change, |world, daemon, what| {
        assert!(
            world.text().contains("quantization: int4  # mine\n"),
            "{what}: {}",
            world.text()
        );
        let events = daemon.book.rows().events;
        assert!(
            events.iter().any(|event| event.contains("human_edit")),
            "{what}: {events:?}"
        );
        // The other rung is let go around it.
        let record = daemon.engine.resume_all();
        daemon.store(vec![record]);
        daemon.release_all();
        assert_eq!(world.text(), expected, "{what}");
    });
}

#[test]
fn a_slow_editor_is_waited_for() {
    // It empties the file and fills it a moment later.
    let save = |paths: &Paths| {
        let text = paths.text() + "theirs: 1\n";
        let file = std::fs::File::create(paths.file()).unwrap();
        std::thread::spawn(move || {
            use std::io::Write;

            let mut file = file;
            std::thread::sleep(Duration::from_millis(200));
            file.write_all(text.as_bytes()).unwrap();
        });
    };
    with_faults(&[&[]], save, |world, daemon, what| {
        while world.text().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let records = daemon.engine.file_changed(daemon.now);
        daemon.store(records);
        let_go(daemon);
        assert_eq!(
            world.text(),
            PERSON.to_owned() + "theirs: 1\n",
            "{what}: {:?}",
            daemon
                .book
                .rows()
                .decisions
                .values()
                .map(|it| &it.explanation)
                .collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_text_that_is_not_valid_for_a_while_is_waited_for() {
    let world = World::new();
    let mut daemon = Daemon::start(&world.paths, world.book());
    daemon.act(0.85).expect("a rung");
    let taken = world.text();
    world.save(&(taken.clone() + "theirs: [1,\n"));
    assert_eq!(daemon.engine.file_changed(daemon.now), []);
    let refused = daemon.act(0.05).expect("a release");
    assert_eq!(refused.ended, act::Ended::Refused);
    // Also by a daemon that starts meanwhile.
    drop(daemon);
    let mut daemon = Daemon::start(&world.paths, world.book());
    world.save(&(taken + "theirs: [1]\n"));
    let records = daemon.engine.file_changed(daemon.now);
    assert!(!records.is_empty());
    daemon.store(records);
    daemon.release_all();
    assert_eq!(world.text(), PERSON.to_owned() + "theirs: [1]\n");
}
