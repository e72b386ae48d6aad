//! The host collector against the real host.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use plimsoll_collectors::{Collector, Host};
use plimsoll_trace::{Batch, HostSample, Record, Stamp};

const PATIENCE: Duration = Duration::from_secs(60);

fn host_of(batch: &Batch) -> &HostSample {
    match batch.records.as_slice() {
        [Record::Host(sample)] => sample,
        other => panic!("one host sample expected: {other:?}"),
    }
}

#[test]
fn answers_one_tick_a_second_with_its_stamp() {
    let (send, batches) = mpsc::channel();
    let mut host =
        Host::spawn(Arc::new(move |batch| send.send(batch).expect("test listens"))).expect("spawn");
    assert_eq!(host.name(), "host");
    let start = Stamp::at_secs(100);
    host.tick(start);
    let first = batches.recv_timeout(PATIENCE).expect("first");
    assert_eq!(first.at, start);
    assert_eq!(host_of(&first).cpu_busy_ratio, None, "no baseline yet");
    assert!(host_of(&first).memory_total_bytes > Some(0));

    for tenth in 1..=10 {
        host.tick(start.plus(Duration::from_millis(100) * tenth));
    }
    let second = batches.recv_timeout(PATIENCE).expect("second");
    assert_eq!(
        second.at,
        start.plus(Duration::from_millis(900)),
        "none before a second has passed"
    );
    let ratio = host_of(&second).cpu_busy_ratio;
    assert!(
        ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)),
        "{ratio:?}"
    );
    drop(host);
    assert!(
        batches.recv().is_err(),
        "nothing else was delivered and the thread is gone"
    );
}

#[test]
fn a_busy_collector_counts_the_ticks_it_missed() {
    let (send, batches) = mpsc::channel();
    let (entered, in_delivery) = mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().expect("gate");
    let deliver = {
        let gate = Arc::clone(&gate);
        move |batch: Batch| {
            entered.send(()).expect("test listens");
            drop(gate.lock());
            send.send(batch).expect("test listens");
        }
    };
    let mut host = Host::spawn(Arc::new(deliver)).expect("spawn");
    host.tick(Stamp::at_secs(1));
    in_delivery
        .recv_timeout(PATIENCE)
        .expect("it delivers, and is stuck there");
    // One tick waits in the queue, two are lost.
    for secs in 2..=4 {
        host.tick(Stamp::at_secs(secs));
    }
    drop(held);
    for secs in 1..=2 {
        assert_eq!(
            batches.recv_timeout(PATIENCE).expect("batch").at,
            Stamp::at_secs(secs)
        );
    }
    host.tick(Stamp::at_secs(5));
    let batch = batches.recv_timeout(PATIENCE).expect("batch");
    assert_eq!(batch.at, Stamp::at_secs(5));
    match batch.records.as_slice() {
        [Record::Host(_), Record::Loss(loss)] => {
            assert_eq!(
                (loss.source.as_ref(), loss.reason.as_ref(), loss.count),
                ("host", "collector_busy", 2)
            );
        }
        other => panic!("a sample and a loss expected: {other:?}"),
    }
}
