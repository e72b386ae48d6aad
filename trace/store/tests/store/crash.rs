//! kill -9: what was acknowledged is there, and the file is whole.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use plimsoll_store::{Reader, Store, StoreOptions, Value};
use plimsoll_trace::{Event, EventKind, HostSample, Record};

use crate::{batch, rows};

const STORE: &str = "PLIMSOLL_TEST_STORE";

/// Not a test: the process that is killed. It writes for ever and says after each commit what is durable.
#[tokio::test]
#[ignore = "run by the test below"]
async fn victim() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    let writer = store.writer();
    for number in 1.. {
        writer.append(batch(number, vec![Record::Host(HostSample::default())]));
        let event = Event::new(EventKind::Xid, number.to_string());
        writer
            .commit(batch(number, vec![Record::Event(event)]))
            .await
            .expect("stored");
        println!("durable {number}");
        std::io::stdout().flush().expect("somebody listens");
    }
}

#[tokio::test]
async fn no_acknowledged_record_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    let mut before = 0;
    for round in 1..=5 {
        let mut victim = Command::new(std::env::current_exe().expect("this program"))
            .args(["crash::victim", "--exact", "--ignored", "--nocapture"])
            .env(STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut durable = 0_i64;
        let mut read = |until: i64| {
            while durable < until {
                let Some(Ok(line)) = lines.next() else { break };
                // The test harness prints the test's name in front of the first line.
                if let Some((_, number)) = line.split_once("durable ") {
                    durable = number.parse().expect("a number");
                }
            }
            durable
        };
        assert_eq!(read(round * 7), round * 7);
        victim.kill().expect("killed");
        victim.wait().expect("gone");
        // What it said before it died and nobody had read yet counts as well.
        let durable = read(i64::MAX);
        let reader = Reader::open(&path).await.expect("readable");
        let events = rows(&reader, "SELECT count(*) FROM events").await;
        let [Value::Integer(events)] = events[0][..] else {
            panic!("{events:?}")
        };
        assert!(
            events >= before + durable,
            "{durable} were acknowledged, {} are there",
            events - before
        );
        // A sample that was handed over before an acknowledged commit went with it.
        let hosts = rows(&reader, "SELECT max(at_ns) / 1000000000 FROM host_samples").await;
        assert!(
            matches!(hosts[0][..], [Value::Integer(last)] if last >= durable),
            "{hosts:?}"
        );
        assert_eq!(
            rows(&reader, "PRAGMA integrity_check").await,
            [[Value::from("ok")]]
        );
        before = events;
    }
}
