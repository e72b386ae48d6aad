use plimsoll_trace::units::show_bytes;
use sqlx::Connection;

use super::*;
use crate::bench::Bench;
use crate::schema;

const SECOND: i64 = 1_000_000_000;
const KEEP: Keep = Keep {
    raw: Duration::from_secs(600),
    seconds: Duration::from_secs(600),
    history: Duration::from_secs(6_000),
    max_size_bytes: u64::MAX,
};

impl Bench {
    /// A sample of each kind each second.
    async fn samples(&mut self, secs: std::ops::Range<i64>) {
        for table in [
            "_device_raw (at_ns, device_id)",
            "_process_raw (at_ns, device_id, pid)",
            "_host_raw (at_ns)",
            "_engine_raw (at_ns, run_id, signal_id)",
        ] {
            let keys = ", 1".repeat(table.matches(',').count());
            self.run(&format!(
                "WITH RECURSIVE t(s) AS (SELECT {} UNION ALL SELECT s + 1 FROM t WHERE s + 1 < {})
                 INSERT INTO {table} SELECT s * 1000000000{keys} FROM t",
                secs.start, secs.end
            ))
            .await;
        }
    }

    /// Oldest second and number of rows of each kind of sample, which are all alike.
    async fn left(&mut self) -> (i64, i64) {
        let mut all = Vec::new();
        for table in ["_device_raw", "_process_raw", "_host_raw", "_engine_raw"] {
            let oldest = self
                .number(&format!(
                    "SELECT coalesce(min(at_ns), -1) / 1000000000 FROM {table}"
                ))
                .await;
            all.push((
                oldest,
                self.number(&format!("SELECT count(*) FROM {table}")).await,
            ));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }
}

#[tokio::test]
async fn what_is_too_old_goes_a_minute_at_a_time() {
    let mut bench = Bench::new().await;
    bench.samples(1_000..2_000).await;
    let now_ns = 1_730 * SECOND;
    // 1000 to 1129 is older than ten minutes.
    assert!(prune(&mut bench.connection, now_ns, &KEEP).await.expect("pruned"));
    assert_eq!(bench.left().await, (1_060, 940));
    assert!(prune(&mut bench.connection, now_ns, &KEEP).await.expect("pruned"));
    assert_eq!(bench.left().await, (1_120, 880));
    assert!(!prune(&mut bench.connection, now_ns, &KEEP).await.expect("pruned"));
    assert_eq!(bench.left().await, (1_130, 870));
    assert!(
        !prune(&mut bench.connection, now_ns, &KEEP)
            .await
            .expect("nothing to do")
    );
    assert_eq!(bench.left().await, (1_130, 870));
}

#[tokio::test]
async fn what_comes_once_a_second_is_kept_longer() {
    let mut bench = Bench::new().await;
    bench.samples(0..100).await;
    let keep = Keep {
        seconds: Duration::from_secs(6_000),
        ..KEEP
    };
    while prune(&mut bench.connection, 700 * SECOND, &keep)
        .await
        .expect("pruned")
    {}
    for (view, rows) in [
        ("device_raw", 0),
        ("process_raw", 0),
        ("host_raw", 100),
        ("engine_raw", 100),
    ] {
        assert_eq!(
            bench.number(&format!("SELECT count(*) FROM _{view}")).await,
            rows,
            "{view}"
        );
    }
}

#[tokio::test]
async fn a_gap_is_passed_in_one_step() {
    let mut bench = Bench::new().await;
    bench.samples(10..20).await;
    bench.samples(50_000..50_010).await;
    assert!(
        prune(&mut bench.connection, 60_000 * SECOND, &KEEP)
            .await
            .expect("pruned")
    );
    assert_eq!(bench.left().await, (50_000, 10));
}

#[tokio::test]
async fn history_is_kept_longer_and_the_unsettled_always() {
    let mut bench = Bench::new().await;
    for (id, secs, outcome) in [
        (1, 10, "kept"),
        (2, 10, "applying"),
        (3, 5_000, "kept"),
        (4, 20, "kept"),
    ] {
        let at_ns = secs * SECOND;
        bench.run(&format!(
            "INSERT INTO _decision VALUES ({id}, NULL, 'e', 'r', {at_ns}, 'act', 'apply', '{outcome}', 's', 1, 1, '', NULL);
             INSERT INTO _config_change VALUES ({id}, {id}, 'p', {at_ns}, '', '', '', 'kept');
             INSERT INTO _event VALUES ({id}, NULL, NULL, {at_ns}, 'xid', '', NULL);
             INSERT INTO _loss VALUES ({id}, 's', 'r', {at_ns}, 1, NULL)"
        ))
        .await;
    }
    bench
        .run("INSERT INTO _run VALUES (1, 'n', NULL, 'h', NULL, NULL, NULL, 1, 2, 0, 'ok', NULL, 'off')")
        .await;
    prune(&mut bench.connection, 6_100 * SECOND, &KEEP)
        .await
        .expect("pruned");
    // The newest number stays even if it is old, because the next follows from it.
    assert_eq!(bench.number("SELECT sum(1 << id) FROM decisions").await, 0b11100);
    assert_eq!(
        bench.number("SELECT sum(1 << id) FROM config_changes").await,
        0b11100
    );
    assert_eq!(bench.number("SELECT sum(1 << id) FROM events").await, 0b01000);
    assert_eq!(bench.number("SELECT count(*) FROM losses").await, 1);
    assert_eq!(bench.number("SELECT count(*) FROM runs").await, 1);
}

#[tokio::test]
async fn a_store_that_is_too_large_loses_its_oldest_samples_and_shrinks() {
    let mut bench = Bench::new().await;
    let path = bench.folder.path().join("t.db");
    bench.samples(0..8_000).await;
    bench.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let before = size_bytes(&path);
    let keep = Keep {
        max_size_bytes: before * 2 / 3,
        ..KEEP
    };
    let (mut rows, mut steps, mut shrunk) = (0, 0, 0);
    loop {
        match trim(&mut bench.connection, &path, &keep).await.expect("trimmed") {
            Trim::Done => break,
            Trim::Shrunk => shrunk += 1,
            Trim::Deleted(trimmed) => {
                rows += trimmed.rows;
                steps += 1;
                assert_eq!(trimmed.until_ns, steps * 60 * SECOND);
            }
        }
        assert!(steps + shrunk < 1_000, "it never ends");
    }
    let after = size_bytes(&path) + size_bytes(&log_of(&path));
    assert!(
        after <= keep.max_size_bytes,
        "{} of {}",
        show_bytes(after),
        show_bytes(before)
    );
    let (oldest, left) = bench.left().await;
    assert_eq!(
        (oldest, left),
        (steps * 60, 8_000 - steps * 60),
        "only the oldest went"
    );
    assert!(left > 2_000, "no more than needed: {left}");
    assert_eq!(rows, 4 * 60 * steps.cast_unsigned());
}

#[tokio::test]
async fn free_pages_go_before_samples() {
    let mut bench = Bench::new().await;
    let path = bench.folder.path().join("t.db");
    bench.samples(0..1_000).await;
    bench
        .run("CREATE TABLE large AS SELECT zeroblob(40000000) AS bytes; PRAGMA wal_checkpoint(TRUNCATE)")
        .await;
    let before = size_bytes(&path);
    bench.run("DROP TABLE large").await;
    let keep = Keep {
        max_size_bytes: before - 20_000_000,
        ..KEEP
    };
    let mut steps = 0;
    while trim(&mut bench.connection, &path, &keep).await.expect("trimmed") == Trim::Shrunk {
        steps += 1;
        assert!(steps < 100, "it never ends");
    }
    assert!(steps > 1, "more than one step frees");
    assert!(size_bytes(&path) <= keep.max_size_bytes);
    assert_eq!(bench.left().await, (0, 1_000), "no sample had to go");
}

#[tokio::test]
async fn nothing_is_deleted_while_a_reader_keeps_the_file_from_shrinking() {
    let mut bench = Bench::new().await;
    let path = bench.folder.path().join("t.db");
    bench.samples(0..1_000).await;
    let (_, mut reader) = schema::open_to_read(&path).await.expect("a reader");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM _device_raw")
        .execute(&mut reader)
        .await
        .expect("it reads");
    bench.samples(1_000..2_000).await;
    let keep = Keep {
        max_size_bytes: 100_000,
        ..KEEP
    };
    for _ in 0..3 {
        let step = trim(&mut bench.connection, &path, &keep).await;
        assert_eq!(step.expect("tried"), Trim::Done);
    }
    assert_eq!(bench.left().await, (0, 2_000));
    assert_eq!(
        bench.number("PRAGMA busy_timeout").await,
        100,
        "the writer is as patient as before"
    );
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("read");
    let step = trim(&mut bench.connection, &path, &keep).await.expect("trimmed");
    assert!(matches!(step, Trim::Deleted(_)), "{step:?}");
}

#[tokio::test]
async fn names_go_when_no_sample_has_them() {
    let mut bench = Bench::new().await;
    bench
        .run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT INTO _name SELECT i, 'name ' || i FROM n;
             INSERT INTO _process_raw (at_ns, device_id, pid, process_id, container_id) VALUES
                 (1, 1, 1, 10, 20), (2, 1, 1, 10, NULL), (3, 1, 1, NULL, NULL);
             INSERT INTO _engine_raw VALUES (1, 1, 30, NULL)",
        )
        .await;
    let pruned = prune_names(&mut bench.connection).await.expect("looked");
    assert!(!pruned, "few names are not worth a look at every sample");
    assert!(
        prune_names_beyond(&mut bench.connection, 99)
            .await
            .expect("pruned")
    );
    assert_eq!(bench.number("SELECT count(*) FROM _name").await, 3);
    assert_eq!(
        bench
            .number("SELECT count(*) FROM _name WHERE id IN (10, 20, 30)")
            .await,
        3
    );
    assert!(
        !prune_names_beyond(&mut bench.connection, 0)
            .await
            .expect("looked")
    );
}

#[tokio::test]
async fn nothing_is_trimmed_that_would_not_help() {
    let mut bench = Bench::new().await;
    let path = bench.folder.path().join("t.db");
    let keep = Keep {
        max_size_bytes: 1,
        ..KEEP
    };
    assert_eq!(
        trim(&mut bench.connection, &path, &keep)
            .await
            .expect("nothing to do"),
        Trim::Done
    );
    bench.connection.close().await.expect("closed");
}

#[tokio::test]
async fn traced_work_is_forgotten_piece_by_piece_and_its_totals_stay() {
    let mut bench = Bench::new().await;
    for table in [
        "_kernel_window (start_ns, kernel_id, pid, end_ns, count, total_ns, min_ns, max_ns)",
        "_kernel_span (start_ns, kernel_id, pid, stream, end_ns)",
        "_copy_window (start_ns, run_id, device_id, direction, pid, end_ns, count, bytes, total_ns)",
        "_allocation (at_ns, device_id, pid, operation, kind, address)",
        "_allocator_raw (at_ns, pid, device_id, level, source)",
        "_kernel_minute (start_ns, kernel_id, pid, first_ns, end_ns, count, total_ns, min_ns, max_ns)",
    ] {
        let values = ", 1".repeat(table.matches(',').count());
        for second in [1, 2_000] {
            bench
                .run(&format!("INSERT INTO {table} SELECT {}{values}", second * SECOND))
                .await;
        }
    }
    bench
        .run("INSERT INTO _kernel VALUES (1, 1, 1, 1, 9, 9, 1, 1); INSERT INTO _kernel_bucket VALUES (1, 1, 9)")
        .await;
    while prune(&mut bench.connection, 2_100 * SECOND, &KEEP)
        .await
        .expect("pruned")
    {}
    for table in [
        "_kernel_window",
        "_kernel_span",
        "_copy_window",
        "_allocation",
        "_allocator_raw",
        "_kernel",
        "_kernel_bucket",
    ] {
        assert_eq!(
            bench.number(&format!("SELECT count(*) FROM {table}")).await,
            1,
            "{table}"
        );
    }
}

#[tokio::test]
async fn single_kernels_go_before_weeks_of_other_samples_and_totals_in_between() {
    let mut bench = Bench::new().await;
    let path = bench.folder.path().join("t.db");
    bench.samples(0..1_000).await;
    // An hour later, and many.
    bench
        .run(
            "INSERT INTO _run VALUES (1, 'n', NULL, 'h', NULL, NULL, NULL, 1, 2, 0, 'ok', NULL, 'graph'),
                 (2, 'n', NULL, 'h', NULL, NULL, NULL, 1, NULL, NULL, 'running', NULL, 'graph');
             INSERT INTO _kernel_name VALUES (1, 'k', 'k');
             INSERT INTO _kernel VALUES (1, 1, 1, 1, 9, 9, 1, 1), (2, 2, 1, 1, 9, 9, 1, 1);
             WITH RECURSIVE t(s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM t WHERE s + 1 < 20000)
             INSERT INTO _kernel_window SELECT (4600 + s / 50) * 1000000000, 2, s % 50, 1, 1, 1, 1, 1 FROM t;
             WITH RECURSIVE t(s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM t WHERE s + 1 < 20000)
             INSERT INTO _kernel_minute SELECT (4620 + s / 4000 * 60) * 1000000000, 2, s % 4000, 1, 1, 1, 1, 1, 1 FROM t;
             PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .await;
    let keep = Keep {
        max_size_bytes: size_bytes(&path) - 400_000,
        ..KEEP
    };
    let mut gone = Vec::new();
    let mut to = async |bench: &mut Bench, keep: &Keep| {
        for _ in 0..1_000 {
            match trim(&mut bench.connection, &path, keep).await.expect("trimmed") {
                Trim::Done => return,
                Trim::Shrunk => {}
                Trim::Deleted(trimmed) => gone.push(trimmed.what),
            }
        }
        panic!("it never ends");
    };
    to(&mut bench, &keep).await;
    assert_eq!(bench.left().await, (0, 1_000), "no other sample had to go");
    let windows = bench.number("SELECT count(*) FROM kernel_windows").await;
    assert!((1..20_000).contains(&windows), "{windows}");
    assert_eq!(bench.number("SELECT count(*) FROM kernel_minutes").await, 20_000);
    let keep = Keep {
        max_size_bytes: size_bytes(&path) - 400_000,
        ..KEEP
    };
    to(&mut bench, &keep).await;
    assert_eq!(bench.left().await, (0, 1_000), "no other sample had to go");
    assert_eq!(bench.number("SELECT count(*) FROM kernel_windows").await, 0);
    let minutes = bench.number("SELECT count(*) FROM kernel_minutes").await;
    assert!((1..20_000).contains(&minutes), "{minutes}");

    to(
        &mut bench,
        &Keep {
            max_size_bytes: 1,
            ..KEEP
        },
    )
    .await;
    gone.dedup();
    // The run ended within the first minute of samples.
    let rest = [Gone::Samples, Gone::Totals, Gone::Samples];
    assert_eq!(gone, [[Gone::Traced, Gone::Minutes].as_slice(), &rest].concat());
    assert_eq!(
        bench.number("SELECT sum(run_id) FROM _kernel").await,
        2,
        "the run that goes on"
    );
}
