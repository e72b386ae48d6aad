//! Other people's SQL: what it can do, what it cannot, and what it is told.

use std::{fs, time::Duration};

use plimsoll_store::{Limit, Limits, QueryError, Value};
use plimsoll_trace::{HostSample, Record};

use crate::Bench;

async fn ask(bench: &Bench, sql: &str) -> Result<plimsoll_store::Answer, QueryError> {
    bench.reader().await.console(sql, &Limits::default()).await
}

#[tokio::test]
async fn reading_works() {
    let bench = Bench::new().await;
    bench
        .commit(
            1,
            vec![Record::Host(HostSample {
                memory_total_bytes: Some(7),
                ..HostSample::default()
            })],
        )
        .await;
    for (sql, columns, first) in [
        (
            "SELECT memory_total_bytes, swap_used_bytes FROM host_samples",
            2,
            Value::Integer(7),
        ),
        (
            "  ; SELECT 1 AS a, 2 AS a; -- done\n/* really */ ;",
            2,
            Value::Integer(1),
        ),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10) SELECT sum(i) FROM n",
            1,
            Value::Integer(55),
        ),
        ("VALUES ('ä'), (x'00ff')", 1, Value::from("ä")),
        ("SELECT x'00ff'", 1, Value::Blob(vec![0, 255])),
        ("SELECT CAST(x'41ff' AS TEXT)", 1, Value::from("A\u{fffd}")),
        ("SELECT 9e999", 1, Value::Real(f64::INFINITY)),
        ("SELECT ?1", 1, Value::Null),
        ("SELECT sqrt(4.0), percentile(1, 50)", 2, Value::Real(2.0)),
        (
            "SELECT json_extract('{\"a\": [1, 2.5]}', '$.a[1]')",
            1,
            Value::Real(2.5),
        ),
        ("PRAGMA table_info(runs)", 6, Value::Integer(0)),
        ("PRAGMA main.table_xinfo('runs')", 7, Value::Integer(0)),
        (
            "SELECT name FROM pragma_table_info('losses')",
            1,
            Value::from("source"),
        ),
        ("PRAGMA database_list", 3, Value::Integer(0)),
        (
            "SELECT type FROM sqlite_master WHERE name = 'runs'",
            1,
            Value::from("view"),
        ),
        ("EXPLAIN SELECT 1", 8, Value::Integer(0)),
    ] {
        let answer = ask(&bench, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer.columns.len(), columns, "{sql}");
        assert_eq!(answer.rows[0][0], first, "{sql}");
        assert_eq!(answer.truncated, None);
    }
    let empty = ask(&bench, "SELECT id, name FROM runs").await.expect("no rows");
    assert_eq!(
        (empty.columns, empty.rows),
        (vec!["id".to_owned(), "name".to_owned()], vec![])
    );
}

#[tokio::test]
async fn nothing_but_reading_is_allowed() {
    let bench = Bench::new().await;
    let other = bench.folder.path().join("other.db");
    let copy = bench.folder.path().join("copy.db");
    let attach = format!("ATTACH '{}' AS o", other.display());
    let vacuum = format!("VACUUM INTO '{}'", copy.display());
    let mut said = String::new();
    for sql in [
        attach.as_str(),
        "ATTACH ':memory:' AS o",
        "DETACH main",
        vacuum.as_str(),
        "VACUUM",
        "PRAGMA query_only = 0",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode",
        "PRAGMA writable_schema = 1",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA user_version = 7",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA database_list(1)",
        "SELECT * FROM pragma_user_version",
        "CREATE TEMP TABLE t (x)",
        "CREATE TABLE t (x)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "CREATE TEMP TRIGGER t AFTER INSERT ON _run BEGIN SELECT 1; END",
        "ALTER TABLE _run RENAME TO r",
        "DROP VIEW runs",
        "DROP TABLE _run",
        "INSERT INTO _run (id) VALUES (1)",
        "WITH x AS (SELECT 1) INSERT INTO _loss SELECT * FROM x, x, x, x, x, x",
        "REPLACE INTO _engine_memo VALUES ('a', 'b')",
        "UPDATE _run SET name = ''",
        "DELETE FROM _run",
        "EXPLAIN DELETE FROM _run",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT s",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT 1; DELETE FROM _run",
        "SELECT 1; SELECT 2",
    ] {
        match ask(&bench, sql).await {
            Err(error @ QueryError::Forbidden(_)) => {
                let sql = sql.replace(&bench.folder.path().display().to_string(), "");
                said += &format!("{sql}\n    {error}\n");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert!(!other.exists() && !copy.exists());
    let mut files: Vec<_> = fs::read_dir(bench.folder.path())
        .expect("readable")
        .map(|file| file.expect("readable").file_name().into_string().expect("text"))
        .collect();
    files.sort();
    assert_eq!(files, ["t.db", "t.db-shm", "t.db-wal", "t.db.lock"]);
    insta::assert_snapshot!("forbidden", said);
}

#[tokio::test]
async fn what_is_wrong_is_shown() {
    let bench = Bench::new().await;
    let mut said = String::new();
    for sql in [
        "SELEC 1",
        "SELECT\n  id,\n  naame\nFROM runs",
        "SELECT * FROM rns",
        "SELECT * FROM main.rns WHERE 'rns' = 1",
        "SELECT foo(1)",
        "SELECT id FROM runs WHERE",
        "SELECT 'open",
        "SELECT 1; SELEC 2",
        "",
        " -- nothing\n;",
        "SELECT \0 1",
        "SELECT sum(id, 2) FROM runs",
    ] {
        match ask(&bench, sql).await {
            Err(error @ QueryError::Syntax { .. }) => said += &format!("syntax: {error}\n\n"),
            Err(error @ QueryError::UnknownName { .. }) => said += &format!("name: {error}\n\n"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    insta::assert_snapshot!("wrong", said);
    let failed = ask(&bench, "SELECT json('{') FROM columns").await;
    assert!(matches!(failed, Err(QueryError::Failed(_))), "{failed:?}");
    let failed = ask(&bench, "SELECT abs(-9223372036854775807 - 1)").await;
    assert!(matches!(failed, Err(QueryError::Failed(_))), "{failed:?}");
}

#[tokio::test]
async fn an_endless_query_is_stopped() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let time = Duration::from_millis(50);
    let limits = Limits {
        time,
        ..Limits::default()
    };
    for sql in [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0",
    ] {
        let error = reader.console(sql, &limits).await.expect_err("it never ends");
        assert!(
            matches!(error, QueryError::Limit(Limit::Time(limit)) if limit == time),
            "{error:?}"
        );
    }
    // One function call that cannot be interrupted is left to itself.
    let long = "SELECT instr(hex(zeroblob(400000)), hex(zeroblob(200000)) || '1')";
    let error = reader.console(long, &limits).await.expect_err("it takes seconds");
    assert!(matches!(error, QueryError::Limit(Limit::Time(_))), "{error:?}");
    assert_eq!(
        reader
            .console("SELECT 1", &limits)
            .await
            .expect("the next one works")
            .rows
            .len(),
        1
    );
}

#[tokio::test]
async fn a_large_answer_is_cut_and_it_is_said() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let many =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, zeroblob(1000) FROM n";
    let limits = Limits {
        rows: 10,
        ..Limits::default()
    };
    let answer = reader.console(many, &limits).await.expect("cut");
    assert_eq!((answer.rows.len(), answer.truncated), (10, Some(Limit::Rows(10))));
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let answer = reader.console(many, &limits).await.expect("cut");
    assert_eq!(answer.truncated, Some(Limit::Bytes(100_000)));
    assert!((50..100).contains(&answer.rows.len()), "{}", answer.rows.len());
    let exact = "SELECT column FROM columns LIMIT 10";
    let limits = Limits {
        rows: 10,
        ..Limits::default()
    };
    assert_eq!(
        reader.console(exact, &limits).await.expect("just fits").truncated,
        None
    );
    for sql in [
        "SELECT zeroblob(1000000000)",
        "SELECT length(randomblob(10000000))",
        "SELECT replace(hex(zeroblob(4000000)), '0', '0000')",
    ] {
        let error = reader
            .console(sql, &Limits::default())
            .await
            .expect_err("too large");
        assert!(
            matches!(error, QueryError::Limit(Limit::Length(_))),
            "{sql}: {error:?}"
        );
    }
}

#[tokio::test]
async fn one_row_is_bounded_too() {
    let bench = Bench::new().await;
    let row = |columns: usize, length: usize| {
        let value = format!("hex(zeroblob({}))", length / 2);
        format!("SELECT {}", vec![value; columns].join(", "))
    };
    // As many columns as the widest view with whole files has.
    let answer = ask(&bench, &row(8, (4 << 20) - 2))
        .await
        .expect("a few long texts");
    assert_eq!(answer.rows.len(), 1);
    let longest = ask(&bench, &row(1, (8 << 20) - 2))
        .await
        .expect("the longest text");
    assert_eq!(longest.rows.len(), 1);
    let error = ask(&bench, &row(128, 4 << 20))
        .await
        .expect_err("half a gigabyte");
    assert!(
        matches!(error, QueryError::Limit(Limit::Length(262_144))),
        "{error:?}"
    );
    assert!(ask(&bench, &row(129, 2)).await.is_err(), "too many columns");
}
