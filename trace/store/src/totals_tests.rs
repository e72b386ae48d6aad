use std::time::Duration;

use super::*;
use crate::bench::Bench;

const DAY: i64 = 86_400_000_000_000;
const KEEP: Keep = Keep {
    raw: Duration::from_secs(86_400),
    seconds: Duration::from_secs(14 * 86_400),
    history: Duration::from_secs(400 * 86_400),
    max_size_bytes: u64::MAX,
};

impl Bench {
    /// A run with so many kernels: the n-th took n ns in one launch, and they have names of their own.
    async fn traced(&mut self, run: i64, ended_ns: Option<i64>, kernels: i64) {
        let ended = ended_ns.map_or("NULL".to_owned(), |at_ns| at_ns.to_string());
        self.run(&format!(
            "INSERT INTO _run VALUES ({run}, 'n', NULL, 'h', NULL, NULL, NULL, 1, {ended}, 0, 'ok', NULL, 'graph');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {kernels})
             INSERT INTO _kernel_name SELECT {run} * 10000 + i, 'run {run} kernel ' || i, 'kernel ' || i FROM n;
             INSERT INTO _kernel SELECT id, {run}, 1, id, 1, id % 10000, id % 10000, id % 10000 FROM _kernel_name
                 WHERE id / 10000 = {run};
             INSERT INTO _kernel_bucket SELECT id, id % 7, 1 FROM _kernel WHERE run_id = {run};
             INSERT INTO _copy VALUES ({run}, 1, 'htod', 1, 1, 1)"
        ))
        .await;
    }

    /// Whatever becomes of names, this stays: launches, time, shortest, longest, and launches in buckets.
    async fn sums(&mut self, run: i64) -> (i64, i64, i64, i64, i64) {
        sqlx::query_as(
            "SELECT sum(count), sum(total_ns), min(min_ns), max(max_ns),
                 (SELECT sum(b.count) FROM _kernel_bucket AS b JOIN _kernel AS k ON k.id = b.kernel_id WHERE k.run_id = ?1)
             FROM _kernel WHERE run_id = ?1",
        )
        .bind(run)
        .fetch_one(&mut self.connection)
        .await
        .expect("sums")
    }

    async fn prune(&mut self, now_ns: i64) {
        for _ in 0..100 {
            if !prune(&mut self.connection, now_ns, &KEEP).await.expect("pruned") {
                return;
            }
        }
        panic!("it never ends");
    }
}

#[tokio::test]
async fn rare_kernels_of_an_old_run_become_one_and_no_sum_changes() {
    let mut bench = Bench::new().await;
    bench.traced(1, Some(DAY), 3_000).await;
    bench.traced(2, Some(20 * DAY), 3_000).await;
    bench.traced(3, None, 3_000).await;
    let before = bench.sums(1).await;
    assert_eq!(before, (3_000, 3_000 * 3_001 / 2, 1, 3_000, 3_000));
    bench.prune(16 * DAY).await;
    assert_eq!(bench.sums(1).await, before);
    let names = "SELECT count(*) FROM kernels WHERE run_id = ";
    assert_eq!(bench.number(&format!("{names}1")).await, KERNELS + 1);
    assert_eq!(
        bench
            .number("SELECT total_ns FROM kernels WHERE run_id = 1 AND name = '(other kernels)'")
            .await,
        2_500 * 2_501 / 2,
        "those that took least time"
    );
    assert_eq!(bench.number(&format!("{names}2")).await, 3_000, "it ended lately");
    assert_eq!(bench.number(&format!("{names}3")).await, 3_000, "it goes on");
    assert_eq!(
        bench.number("SELECT count(*) FROM _kernel_name").await,
        6_000 + KERNELS + 1
    );
    // More that came late joins what is there.
    bench
        .run(
            "INSERT INTO _kernel_name VALUES (90001, 'late', 'late');
             INSERT INTO _kernel VALUES (90001, 1, 1, 90001, 5, 0, 0, 0);
             INSERT INTO _kernel_bucket VALUES (90001, 3, 5)",
        )
        .await;
    bench.prune(16 * DAY).await;
    assert_eq!(bench.sums(1).await, (3_005, before.1, 0, 3_000, 3_005));
    assert_eq!(bench.number(&format!("{names}1")).await, KERNELS + 1);
}

#[tokio::test]
async fn sums_of_what_nobody_can_mean_can_be_queried() {
    let mut bench = Bench::new().await;
    bench.traced(1, Some(DAY), KERNELS + 10).await;
    bench
        .run(
            "UPDATE _kernel SET count = 1 << 54, total_ns = 1 << 54;
             UPDATE _kernel_bucket SET count = 9223372036854775807",
        )
        .await;
    bench.prune(16 * DAY).await;
    let others = "SELECT total_ns FROM kernels WHERE name = '(other kernels)'";
    assert_eq!(bench.number(others).await, MOST_IN_ALL);
    // More of the same joins it.
    bench
        .run(
            "INSERT INTO _kernel_name VALUES (90001, 'late', 'late');
             INSERT INTO _kernel VALUES (90001, 1, 1, 90001, 1 << 54, 1 << 53, 1, 1);
             INSERT INTO _kernel_bucket VALUES (90001, 3, 9223372036854775807)",
        )
        .await;
    bench.prune(16 * DAY).await;
    assert_eq!(bench.number("SELECT count(*) FROM kernels").await, KERNELS + 1);
    for sql in [
        "SELECT sum(count) FROM kernels",
        "SELECT sum(total_ns) FROM kernels",
        "SELECT sum(p50_ns + p99_ns) FROM kernels",
        "SELECT count(*) FROM _kernel WHERE typeof(count) = 'integer' AND typeof(total_ns) = 'integer'",
    ] {
        assert!(bench.number(sql).await > KERNELS, "{sql}");
    }
}

#[tokio::test]
async fn totals_go_with_history_and_their_names_with_them() {
    let mut bench = Bench::new().await;
    bench.traced(1, Some(DAY), 5).await;
    bench.traced(2, Some(3 * DAY), 5).await;
    bench.traced(3, None, 5).await;
    bench.prune(402 * DAY).await;
    for table in ["_kernel", "_copy"] {
        assert_eq!(
            bench
                .number(&format!("SELECT sum(DISTINCT run_id) FROM {table}"))
                .await,
            5,
            "{table}: only the first run's went"
        );
    }
    assert_eq!(bench.number("SELECT count(*) FROM _kernel_bucket").await, 10);
    assert_eq!(bench.number("SELECT count(*) FROM _kernel_name").await, 10);
    assert_eq!(bench.number("SELECT count(*) FROM runs").await, 3);
}

#[tokio::test]
async fn towards_the_limit_names_go_before_totals_and_the_oldest_first() {
    let mut bench = Bench::new().await;
    bench.traced(1, Some(DAY), KERNELS + 10).await;
    bench.traced(2, Some(2 * DAY), 5).await;
    bench.traced(3, Some(9 * DAY), 5).await;
    let mut steps = Vec::new();
    while let Some((_, until_ns)) = trim(&mut bench.connection, 5 * DAY).await.expect("trimmed") {
        let runs = bench.number("SELECT count(DISTINCT run_id) FROM _kernel").await;
        steps.push((until_ns / DAY, runs));
        assert!(steps.len() < 10, "it never ends");
    }
    // Two foldings, because the first of the others takes a place; then the first run, then the second.
    assert_eq!(steps, [(5, 3), (5, 3), (1, 2), (2, 1)]);
    assert_eq!(bench.number("SELECT count(*) FROM _kernel_name").await, 5);
}
