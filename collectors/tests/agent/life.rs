//! Processes that die, and daemons that are restarted.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use plimsoll_collectors::{AgentReport, lineage};
use plimsoll_trace::wire::Frame;
use plimsoll_trace::{EventKind, Record, RunId};

use crate::world::{FakeAgent, Ring, World, kernels, own, send};

const SOCKET: &str = "PLIMSOLL_TEST_SOCKET";

/// Not a test of its own: the process that [`what_was_written_before_a_sigkill_is_read`] kills.
#[test]
fn helper_that_writes_until_it_is_killed() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    use std::os::fd::AsFd;
    let stream = UnixStream::connect(socket).unwrap();
    let ring = Ring::sealed();
    let mut writer = plimsoll_trace::wire::ring::Writer::create(ring.words).unwrap();
    send(&stream, &ring.hello().to_bytes(), &[ring.descriptor.as_fd()]);
    let mut agent_buffer = Vec::new();
    for _ in 0..1_000 {
        let kind = kernels(0, 1, 9).encode(&mut agent_buffer);
        assert!(writer.append(kind, &agent_buffer));
    }
    println!("written");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_was_written_before_a_sigkill_is_read() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "life::helper_that_writes_until_it_is_killed",
        "--exact",
        "--nocapture",
    ]);
    let mut child = child.env(SOCKET, &path).stdout(Stdio::piped()).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("written") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0,
            "it died early"
        );
    }
    let mut peer = own();
    peer.pid = Some(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    // Only now is it looked at.
    world.desk().take(stream, peer);
    world.desk().bind(world.arrived(1)[0], RunId(1));
    world.wait("the end", |reports| {
        reports
            .iter()
            .any(|report| matches!(report, AgentReport::Left(_)))
            .then_some(())
    });
    assert_eq!(world.total("(unnamed kernel 0)"), (1_000, 9_000));
    assert_eq!(world.lost("unfinished"), 1);
    let told = world.records().into_iter().any(|record| {
        matches!(record, Record::Event(event) if event.kind == EventKind::AgentDegraded
            && event.run == Some(RunId(1)) && event.message.contains("ended without a last word"))
    });
    assert!(told, "{:?}", world.records());
}

#[test]
fn a_last_word_makes_the_end_a_good_one() {
    let world = World::new();
    let mut agent = world.agent(1);
    agent.introduce(&["k"]);
    agent.tell(&kernels(0, 3, 10));
    agent.tell(&Frame::Finished);
    drop(agent);
    world.wait("the end", |reports| {
        reports
            .iter()
            .any(|report| matches!(report, AgentReport::Left(_)))
            .then_some(())
    });
    assert_eq!((world.total("k"), world.lost("unfinished")), ((3, 30), 0));
}

#[test]
fn another_daemon_goes_on_where_the_last_one_read() {
    let first = World::new();
    let mut agent = first.agent(1);
    agent.introduce(&["k"]);
    agent.tell(&kernels(0, 3, 10));
    first.flush();
    assert_eq!(first.total("k"), (3, 30));
    drop(first);
    // Nobody listens.
    agent.tell(&kernels(0, 4, 10));
    let second = World::new();
    agent.reconnect(&second.desk());
    second.desk().bind(second.arrived(1)[0], RunId(1));
    // As an agent does after each connection.
    agent.introduce(&["k"]);
    second.flush();
    assert_eq!(second.total("k"), (4, 40));
}

#[test]
fn an_arrival_says_whose_child_it_is() {
    let world = World::new();
    let _agent = FakeAgent::connect(&world.desk());
    let arrival = world.wait("an arrival", |reports| {
        reports.iter().find_map(|report| match report {
            AgentReport::Arrived(arrival) => Some(arrival.clone()),
            _ => None,
        })
    });
    let own = std::process::id();
    assert_eq!(arrival.pid, Some(own));
    assert_eq!(arrival.lineage, lineage(own));
    assert_eq!(arrival.root, arrival.lineage.first().copied());
    let exe = std::env::current_exe().unwrap();
    assert_eq!(arrival.executable.as_deref(), exe.to_str());
}

#[test]
fn what_a_killed_daemon_took_and_did_not_store_is_counted_by_the_next() {
    let first = World::new();
    first.stored.store(0, Ordering::Relaxed);
    let mut agent = first.agent(1);
    agent.introduce(&["k"]);
    for _ in 0..10 {
        agent.tell(&kernels(0, 1, 1));
    }
    first.flush();
    assert_eq!(first.total("k"), (10, 10));
    drop(first);

    for (launches, unconfirmed) in [(3, 10), (5, 0), (7, 0)] {
        let next = World::new();
        agent.reconnect(&next.desk());
        let id = next.arrived(1)[0];
        agent.introduce(&["k"]);
        next.desk().bind(id, RunId(1));
        agent.tell(&kernels(0, launches, 1));
        next.flush();
        assert_eq!(
            (next.total("k").0, next.lost("unconfirmed")),
            (launches, unconfirmed)
        );
    }
}

#[test]
fn what_nobody_takes_in_is_not_confirmed_and_nothing_more_is_read() {
    let first = World::new();
    let mut agent = first.agent(1);
    agent.introduce(&["k"]);
    agent.tell(&kernels(0, 1, 1));
    first.flush();
    first.takes.store(false, Ordering::Relaxed);
    // Read, and not taken in.
    agent.tell(&kernels(0, 1, 1));
    first.flush();
    // Not read any more.
    agent.tell(&kernels(0, 5, 1));
    first.flush();
    drop(first);

    let next = World::new();
    agent.reconnect(&next.desk());
    let id = next.arrived(1)[0];
    next.desk().bind(id, RunId(1));
    agent.introduce(&["k"]);
    next.flush();
    let (read, lost) = (next.total("k").0, next.lost("unconfirmed"));
    assert!(read >= 5 && read + lost == 6, "{read} are read, {lost} are lost");
}
