use sqlx::AssertSqlSafe;

use super::*;

/// A store as a program of that version left it.
async fn old_store(path: &Path, version: i64, sql: &str) {
    create(path).expect("a file");
    let mut connection = connect(path, &read_write(path)).await.expect("open");
    MIGRATIONS
        .run_direct(Some(version), &mut connection, false)
        .await
        .expect("an old schema");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .expect("old rows");
    connection.close().await.expect("closed");
}

#[tokio::test]
async fn a_store_before_minutes_is_upgraded_whatever_is_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    // The second run has what nobody can mean: totals that are fractions already, and windows that cannot be added up.
    let sql = "
        INSERT INTO _kernel_name VALUES (1, 'a', 'a'), (2, 'b', 'b');
        INSERT INTO _kernel VALUES (1, 1, 1, 1, 5, 50, 1, 20),
            (2, 2, 1, 2, 9.3e18, 9.3e18, 1, 20), (3, 2, 1, 1, 9223372036854775807, 9223372036854775807, 1, 20);
        INSERT INTO _kernel_bucket VALUES (1, 4, 5), (2, 4, 9223372036854775807), (2, 5, 9.3e18),
            (3, 4, 9223372036854775807), (3, 5, 9223372036854775807);
        INSERT INTO _copy VALUES (1, 1, 'htod', 1, 2, 3), (2, 1, 'htod', 1, 9223372036854775807, 9.3e18);
        INSERT INTO _kernel_window VALUES (60000000001, 1, 7, 60000000009, 2, 20, 1, 15),
            (60000000010, 1, 7, 60000000019, 3, 30, 2, 20), (120000000000, 1, 7, 120000000001, 1, 1, 1, 1);
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 599)
        INSERT INTO _kernel_window SELECT i, 2, 7, i + 1, 1 << 54, 1 << 54, 1, 20 FROM n";
    old_store(&path, 3, sql).await;
    let (_, mut connection) = open(&path).await.expect("upgraded");
    let mut shown = async |sql: &str| -> Vec<(i64, i64, i64)> {
        sqlx::query_as(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .expect(sql)
    };
    const MOST: i64 = 1 << 56;
    assert_eq!(
        shown("SELECT start_ns / 60000000000, count, total_ns FROM kernel_minutes ORDER BY start_ns").await,
        [(0, MOST, MOST), (1, 5, 50), (2, 1, 1)]
    );
    assert_eq!(
        shown("SELECT run_id, count, total_ns FROM kernels ORDER BY run_id").await,
        [(1, 5, 50), (2, MOST, MOST), (2, MOST, MOST)]
    );
    assert_eq!(
        shown("SELECT sum(count), sum(total_ns), sum(p50_ns + p99_ns) > 0 FROM kernels").await,
        [(2 * MOST + 5, 2 * MOST + 50, 1)]
    );
    assert_eq!(
        shown("SELECT sum(count), sum(bytes), sum(total_ns) FROM copies").await,
        [(2, MOST + 2, MOST + 3)]
    );
}
