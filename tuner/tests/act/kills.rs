//! A daemon that is killed (SIGKILL) at every step, and the next one that finds the rows.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_trace::{ChangeOutcome, DecisionOutcome};
use plimsoll_tuner::guard::Quality;
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::engine::{Fault, When};
use super::world::{Daemon, PERSON, Paths, RULES, World, file_values};

const FOLDER: &str = "TEST_ACT_FOLDER";
const PORT: &str = "TEST_ACT_PORT";
const RATIO: &str = "TEST_ACT_RATIO";
/// "3 Before": killed at the fourth commit before it is durable.
const KILL: &str = "TEST_ACT_KILL";

#[test]
#[ignore = "runs as a child of the other tests, which kill it"]
fn a_daemon_that_is_killed() {
    let var = |name| std::env::var(name).unwrap();
    let paths = Paths {
        folder: var(FOLDER).into(),
        port: var(PORT).parse().unwrap(),
    };
    let kill = var(KILL);
    let book = paths.book().with_hook(move |number, when| {
        if format!("{number} {when:?}") == kill {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        Ok(())
    });
    let mut spec = paths.spec();
    let mut rules = RULES.to_owned();
    if let Ok(script) = std::env::var(QUALITY) {
        spec.guards.quality = Some(Quality {
            command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
            timeout: Duration::from_secs(60),
        });
        // Before a restart the answers are looked at, too.
        rules = rules.replace("mode =", "cost = \"restart\"\nmode =");
    }
    let mut daemon = Daemon::start_with(&paths, book, spec, &rules);
    match var(RATIO).as_str() {
        REVERT => drop(daemon.revert_last()),
        ratio => drop(daemon.act(ratio.parse().unwrap())),
    }
}

/// What the daemon does, in place of a reading for its rules: a person takes the last decision back.
const REVERT: &str = "revert";
/// The quality command, a shell's.
const QUALITY: &str = "TEST_ACT_QUALITY";

/// Where the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    Commit(usize, When),
    Request(usize, When),
}

/// Runs a daemon in a process of its own, killed at `point`; says whether it came that far.
fn killed(world: &World, ratio: impl ToString, point: Point) -> bool {
    killed_with(world, &ratio.to_string(), point, None)
}

fn killed_with(world: &World, ratio: &str, point: Point, quality: Option<&str>) -> bool {
    let kill = match point {
        Point::Commit(number, when) => format!("{number} {when:?}"),
        Point::Request(..) => String::new(),
    };
    let child: Arc<Mutex<Option<Child>>> = Arc::default();
    if let Point::Request(number, when) = point {
        let child = Arc::clone(&child);
        world.engine.on_request(move |at, moment| {
            if (at, moment) == (number, when) {
                // Started under the same lock, so it is there.
                let child = child.lock().unwrap();
                let pid = i32::try_from(child.as_ref().unwrap().id()).unwrap();
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        });
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "kills::a_daemon_that_is_killed",
        "--ignored",
        "--nocapture",
    ]);
    command
        .env(FOLDER, &world.folder)
        .env(PORT, world.port.to_string());
    command.env(RATIO, ratio).env(KILL, kill);
    command.envs(quality.map(|script| (QUALITY, script)));
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    {
        let mut child = child.lock().unwrap();
        *child = Some(command.spawn().unwrap());
    }
    let status = wait(&child);
    world.engine.no_hook();
    let was_killed = status.signal() == Some(9);
    assert!(was_killed || status.success(), "{point:?}: {status}");
    was_killed
}

/// Waits for the end without holding the lock that the hook needs.
fn wait(child: &Mutex<Option<Child>>) -> std::process::ExitStatus {
    loop {
        if let Some(status) = child.lock().unwrap().as_mut().unwrap().try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

const WHEN: [When; 2] = [When::Before, When::After];

/// Calls `at` for each point that a daemon comes to; says how many there were.
fn each_point(mut at: impl FnMut(Point) -> bool) -> usize {
    let mut points = 0;
    for make in [Point::Commit as fn(usize, When) -> Point, Point::Request] {
        for number in 0.. {
            // Past the last one, it lives.
            if !WHEN
                .map(|when| at(make(number, when)))
                .into_iter()
                .any(|killed| killed)
            {
                break;
            }
            points += 1;
        }
    }
    points
}

/// After whatever kill: nothing open, the file as before or as planned, the engine on it, and the way back is there.
fn check_after(world: &World, point: Point, before: &str, planned: &str) {
    world.engine.no_faults();
    let mut next = Daemon::start(&world.paths, world.book());
    let what = format!("{point:?}");
    next.check(&what);
    let rows = next.book.rows();
    let text = world.text();
    assert!(text == before || text == planned, "{what}: {text}");
    if let Some((decision, change)) = rows.decisions.values().next_back().and_then(|last| {
        let change = rows.changes.values().find(|change| change.decision == last.id)?;
        Some((last, change))
    }) {
        let kept = decision.outcome == DecisionOutcome::Kept;
        assert_eq!(
            &text,
            if kept { &change.after } else { &change.before },
            "{what}: {decision:?}"
        );
        assert_eq!(change.outcome == ChangeOutcome::Kept, kept, "{what}: {change:?}");
    }
    assert_eq!(
        world.engine.applied(),
        file_values(&world.file()),
        "{what}: {:?}",
        rows.decisions
    );
    assert!(
        !rows.events.iter().any(|event| event.contains("human_edit")),
        "{what}: {:?}",
        rows.events
    );

    next.release_all();
    assert_eq!(
        world.text(),
        PERSON,
        "{what}: the last release gives the file back"
    );
    assert_eq!(world.engine.applied(), file_values(&world.file()), "{what}");
    next.check(&what);
}

/// Prepares a world, kills the next action everywhere, and looks at what comes after.
fn everywhere(prepare: impl Fn(&World), faults: &[Fault], ratio: impl ToString) {
    let ratio = &ratio.to_string();
    // What it comes to when nobody kills it.
    let world = World::new();
    prepare(&world);
    let before = world.text();
    world.engine.faults(faults);
    let mut daemon = Daemon::start(&world.paths, world.book());
    match ratio.as_str() {
        REVERT => Some(daemon.revert_last()),
        ratio => daemon.act(ratio.parse().unwrap()),
    }
    .expect("an action");
    let planned = world.text();
    let points = each_point(|point| {
        let world = World::new();
        prepare(&world);
        world.engine.faults(faults);
        let was_killed = killed(&world, ratio, point);
        if was_killed {
            check_after(&world, point, &before, &planned);
        }
        was_killed
    });
    assert!(
        points >= 6,
        "two steps, the outcome, and three calls at least: {points}"
    );
}

/// Takes so many rungs, undisturbed.
fn taken(count: usize) -> impl Fn(&World) {
    move |world| {
        let mut daemon = Daemon::start(&world.paths, world.book());
        for _ in 0..count {
            daemon.act(0.95).expect("an action");
        }
        assert_eq!(daemon.book.rows().decisions.len(), count);
    }
}

#[test]
fn while_the_first_rung_is_taken() {
    everywhere(taken(0), &[], 0.95);
}

#[test]
fn while_the_second_rung_is_taken() {
    everywhere(taken(1), &[], 0.95);
}

#[test]
fn while_the_second_rung_is_let_go() {
    everywhere(taken(2), &[], 0.05);
}

#[test]
fn while_the_last_rung_is_let_go() {
    everywhere(taken(1), &[], 0.05);
}

#[test]
fn while_a_change_is_taken_back() {
    everywhere(taken(1), &[Fault::Refuses], 0.95);
    everywhere(taken(0), &[Fault::Refuses], 0.95);
}

#[test]
fn while_a_person_takes_a_decision_back() {
    everywhere(taken(1), &[], REVERT);
    everywhere(taken(1), &[Fault::Refuses], REVERT);
}

/// The command that judges the answers ends the daemon that waits for it: before anything is written, and after.
#[test]
fn while_the_answers_are_judged() {
    let mut came = Vec::new();
    for count in [0, 1] {
        for kill_at in 1..=3 {
            let world = World::new();
            taken(count)(&world);
            let before = world.text();
            let script = format!(
                "echo run >> {0}; [ $(wc -l < {0}) = {kill_at} ] && kill -9 $PPID; echo '{{\"score\": 1}}'",
                world.folder.join("runs").display()
            );
            let point = Point::Commit(usize::MAX, When::Before);
            let was_killed = killed_with(&world, "0.95", point, Some(&script));
            if !was_killed {
                assert_eq!(kill_at, 3, "it is judged before and after");
                continue;
            }
            let planned = world.text();
            came.push(planned == before);
            check_after(&world, point, &before, &planned);
        }
    }
    assert_eq!(
        came,
        [true, false, true, false],
        "nothing written yet, and written"
    );
}

#[test]
fn what_cannot_be_read_is_resolved_when_it_can() {
    let world = World::new();
    let point = Point::Request(1, When::Before);
    assert!(killed(&world, 0.95, point));
    let (planned, away) = (world.text(), world.folder.join("away"));
    std::fs::rename(world.file(), &away).unwrap();
    {
        let mut next = Daemon::start(&world.paths, world.book());
        let decision = next.book.rows().last().clone();
        assert_eq!(decision.outcome, DecisionOutcome::Applying, "{decision:?}");
        assert!(decision.detail["unreadable"].is_string(), "{decision:?}");
        std::fs::rename(&away, world.file()).unwrap();
        assert_eq!(next.engine.file_changed(next.now), [], "it is no person's edit");
        assert!(next.act(0.95).is_none(), "and no rule acts before it is resolved");
    }
    check_after(&world, point, PERSON, &planned);
}

/// The daemon that puts things in order is killed as well.
#[test]
fn while_a_former_kill_is_resolved() {
    for first in [
        Point::Request(1, When::Before),
        Point::Request(1, When::After),
        Point::Commit(2, When::After),
    ] {
        let mut planned = None;
        let points = each_point(|point| {
            let world = World::new();
            taken(1)(&world);
            let before = world.text();
            assert!(killed(&world, 0.95, first));
            let planned = planned.get_or_insert_with(|| world.text());
            let was_killed = killed(&world, 0.75, point);
            if was_killed {
                check_after(&world, point, &before, planned);
            }
            was_killed
        });
        assert!(points >= 1);
    }
}
