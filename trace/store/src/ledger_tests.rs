use plimsoll_trace::{Event, EventKind, HostSample, KernelWindow, ProcessSample, RunId, Traced};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::*;
use crate::schema;

const SECOND: i64 = 1_000_000_000;

struct Bench {
    _folder: TempDir,
    ledger: Ledger,
}

impl Bench {
    async fn new(capacity: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (options, connection) = schema::open(&folder.path().join("t.db")).await.expect("a store");
        Self {
            _folder: folder,
            ledger: Ledger::new(options, connection, capacity),
        }
    }

    fn accept(&mut self, at_secs: i64, record: Record, ticket: Option<u64>) {
        let item = Item {
            at_ns: at_secs * SECOND,
            record,
            ticket,
        };
        self.ledger.accept(VecDeque::from([item]), 0);
    }

    async fn run(&mut self, sql: &str) {
        let connection = self.ledger.connection().expect("in order");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(connection)
            .await
            .expect("valid");
    }

    async fn number(&mut self, sql: &str) -> i64 {
        let connection = self.ledger.connection().expect("in order");
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(connection)
            .await
            .expect("a number")
    }

    /// No page more than now: SQLite answers as on a full disk.
    async fn fill_the_disk(&mut self) {
        let pages = self.number("PRAGMA page_count").await;
        self.run(&format!("PRAGMA max_page_count = {pages}")).await;
    }
}

fn event(text: &str) -> Record {
    Record::Event(Event::new(EventKind::Xid, text))
}

/// An event that needs pages of its own.
fn large(text: &str) -> Record {
    event(&text.repeat(20_000))
}

fn process(used: u64) -> Record {
    Record::Process(ProcessSample {
        device: "GPU-1".into(),
        pid: 7,
        run: Some(RunId(1)),
        used_bytes: Some(used),
        sm_busy_ratio: None,
        process: Some("engine".into()),
        container: None,
    })
}

#[tokio::test]
async fn a_full_disk_costs_nothing_that_there_is_room_for() {
    let mut bench = Bench::new(1000).await;
    bench.accept(1, event("before"), None);
    bench.ledger.commit().await.expect("stored");
    bench.fill_the_disk().await;
    for second in 2..6 {
        bench.accept(second, large("x"), None);
        bench.accept(second, process(5), None);
        let error = bench.ledger.commit().await.expect_err("the disk is full");
        assert_eq!(error.to_string(), "storing records failed");
    }
    // Reading goes on, and nothing is half there.
    assert_eq!(bench.number("SELECT count(*) FROM events").await, 1);
    bench.run("PRAGMA max_page_count = 1000000").await;
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT count(*) FROM events").await, 5);
    assert_eq!(
        bench
            .number("SELECT count(*) FROM process_samples WHERE process = 'engine'")
            .await,
        1
    );
    assert_eq!(bench.number("SELECT count(*) FROM losses").await, 0);
    // And once more, so that no failure leaves anything behind in the connection.
    bench.fill_the_disk().await;
    bench.accept(9, large("y"), None);
    bench.ledger.commit().await.expect_err("the disk is full");
    bench.run("PRAGMA max_page_count = 1000000").await;
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT count(*) FROM events").await, 6);
}

#[tokio::test]
async fn what_there_is_no_room_for_is_counted_and_the_least_of_it_goes_first() {
    let mut bench = Bench::new(10).await;
    bench.fill_the_disk().await;
    for second in 0..10 {
        bench.accept(second, large("x"), None);
        bench.accept(second, Record::Host(HostSample::default()), None);
        bench.accept(second, process(5), None);
        bench.ledger.commit().await.expect_err("the disk is full");
        assert!(bench.ledger.pending.len() <= 10);
    }
    bench.run("PRAGMA max_page_count = 1000000").await;
    bench.accept(60, process(5), None);
    bench.ledger.commit().await.expect("stored");
    let events = bench.number("SELECT count(*) FROM events").await;
    let hosts = bench.number("SELECT count(*) FROM host_samples").await;
    let lost = bench
        .number("SELECT count FROM losses WHERE source = 'store' AND reason = 'not_stored'")
        .await;
    assert!(events >= 8, "{events}");
    assert_eq!(hosts, 0);
    // The unchanged sample of a process is stored again, because its row was among what was dropped.
    assert_eq!(
        bench.number("SELECT at_ns FROM process_samples").await,
        60 * SECOND
    );
    // Every event and host sample, and the rows of the process: one, and another after each time rows were dropped.
    assert!(
        (20 - events..=29 - events).contains(&lost),
        "{lost} lost, {events} kept"
    );
}

#[tokio::test]
async fn what_somebody_waits_for_is_stored_now_or_never() {
    let mut bench = Bench::new(100).await;
    bench.fill_the_disk().await;
    bench.accept(1, large("kept"), None);
    bench.accept(1, event("awaited"), Some(1));
    bench.ledger.commit().await.expect_err("the disk is full");
    bench.run("PRAGMA max_page_count = 1000000").await;
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT count(*) FROM events").await, 1);
    assert_eq!(
        bench
            .number("SELECT count(*) FROM events WHERE message = 'awaited'")
            .await,
        0
    );
}

#[tokio::test]
async fn somebody_elses_lock_is_waited_out() {
    let mut bench = Bench::new(100).await;
    let mut other = SqliteConnection::connect_with(&bench.ledger.options)
        .await
        .expect("open");
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .expect("locked");
    bench.accept(1, event("one"), None);
    bench.ledger.commit().await.expect_err("it is busy");
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut other)
        .await
        .expect("unlocked");
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    let mut bench = Bench::new(100).await;
    bench
        .run("DROP VIEW events; ALTER TABLE _event RENAME TO _gone")
        .await;
    bench.accept(1, event("one"), None);
    bench.ledger.commit().await.expect_err("there is no such table");
    assert!(bench.ledger.connection().is_none());
    let mut other = SqliteConnection::connect_with(&bench.ledger.options)
        .await
        .expect("open");
    sqlx::raw_sql("ALTER TABLE _gone RENAME TO _event")
        .execute(&mut other)
        .await
        .expect("renamed");
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT count(*) FROM _event").await, 1);
}

#[tokio::test]
async fn a_peak_waits_for_the_start_of_its_run() {
    let mut bench = Bench::new(100).await;
    bench.accept(1, process(5), None);
    bench.ledger.commit().await.expect("stored");
    let run = plimsoll_trace::RunStart {
        id: RunId(1),
        name: "x".into(),
        engine: None,
        host: "h".into(),
        pid: None,
        process_key: None,
        command: None,
        trace_tier: plimsoll_trace::TraceTier::Off,
    };
    bench.accept(2, Record::RunStart(run.clone()), None);
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT peak_used_bytes FROM runs").await, 5);
    // The peak is that of all processes at one instant, and it never falls.
    bench.accept(3, process(3), None);
    bench.accept(4, Record::RunStart(run), None);
    bench.ledger.commit().await.expect("stored");
    assert_eq!(bench.number("SELECT peak_used_bytes FROM runs").await, 5);
    assert_eq!(bench.number("SELECT started_ns FROM runs").await, 2 * SECOND);
}

#[tokio::test]
async fn a_name_that_was_deleted_gets_a_number_again() {
    let mut bench = Bench::new(100).await;
    bench.accept(1, process(5), None);
    bench.ledger.commit().await.expect("stored");
    bench.run("DELETE FROM _process_raw; DELETE FROM _name").await;
    bench.ledger.forget_names();
    bench.accept(2, process(6), None);
    bench.ledger.commit().await.expect("stored");
    assert_eq!(
        bench
            .number("SELECT count(*) FROM process_samples WHERE process = 'engine'")
            .await,
        1
    );
}

#[tokio::test]
async fn numbers_of_kernels_that_went_are_not_used_again() {
    let mut bench = Bench::new(1_000).await;
    let kernel = |run, name: &str| {
        Record::Traced(Traced {
            pid: 1,
            run: Some(RunId(run)),
            device: None,
            work: Work::Kernels(KernelWindow {
                name: name.into(),
                start_ns: run,
                end_ns: run + 1,
                count: 1,
                total_ns: 1,
                min_ns: 1,
                max_ns: 1,
                buckets: vec![(1, 1)],
            }),
        })
    };
    bench.accept(1, kernel(1, "old"), None);
    bench.ledger.commit().await.expect("stored");
    // As when totals of old runs go.
    bench.run("DELETE FROM _kernel; DELETE FROM _kernel_name").await;
    bench.ledger.forget_names();
    bench.accept(2, kernel(2, "new"), None);
    bench.accept(2, kernel(1, "old"), None);
    bench.ledger.commit().await.expect("stored");
    let right = "SELECT count(*) FROM kernels WHERE (run_id, name, count) IN ((1, 'old', 1), (2, 'new', 1))";
    assert_eq!(bench.number(right).await, 2);
}
