//! Many rows, read one by one where SQLite finds them.

use std::{sync::mpsc, time::Duration};

use plimsoll_store::{Reader, Row, StoreError, Value};
use plimsoll_trace::{HostSample, Record};
use proptest::prelude::*;

use crate::Bench;

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0";

/// What a column is when it is asked for in every type.
type Seen = (Option<i64>, Option<f64>, Option<String>);

async fn seen(reader: &Reader, sql: &str, values: &[Value]) -> Result<Vec<Seen>, StoreError> {
    let look = |seen: &mut Vec<Seen>, row: &Row<'_>| {
        let text = row.text(0).map(std::borrow::Cow::into_owned);
        seen.push((row.int(0), row.real(0), text));
    };
    reader.scan(sql, values, Vec::new(), look).await
}

fn host(total: u64) -> Record {
    Record::Host(HostSample {
        memory_total_bytes: Some(total),
        ..HostSample::default()
    })
}

#[tokio::test]
async fn a_value_is_of_its_own_type_and_nothing_else() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let text = |text: &str| Some(text.to_owned());
    for (sql, wanted) in [
        ("SELECT NULL", (None, None, None)),
        ("SELECT 7", (Some(7), Some(7.0), None)),
        (
            "SELECT -9223372036854775808",
            (Some(i64::MIN), Some(i64::MIN as f64), None),
        ),
        ("SELECT 0.5", (None, Some(0.5), None)),
        ("SELECT 9e999", (None, Some(f64::INFINITY), None)),
        ("SELECT '12'", (None, None, text("12"))),
        ("SELECT ''", (None, None, text(""))),
        ("SELECT 'a' || char(0) || 'ä'; ", (None, None, text("a\0ä"))),
        ("SELECT CAST(x'41ff' AS TEXT)", (None, None, text("A\u{fffd}"))),
        ("SELECT x'3132'", (None, None, None)),
    ] {
        let rows = seen(&reader, sql, &[]).await.expect(sql);
        assert_eq!(rows, [wanted], "{sql}");
    }
    assert_eq!(seen(&reader, "SELECT 1 WHERE 0", &[]).await.expect("none"), []);
}

#[tokio::test]
async fn a_column_that_is_not_there_is_unknown() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let look = |seen: &mut Vec<bool>, row: &Row<'_>| {
        for column in [2, 3, usize::MAX] {
            seen.push(row.int(column).is_none() && row.real(column).is_none() && row.text(column).is_none());
        }
    };
    let sql = "SELECT 1, 2";
    let seen = reader.scan(sql, &[], Vec::new(), look).await.expect("a row");
    assert_eq!(seen, [true; 3]);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_reader_goes_on() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let mut said = String::new();
    for (sql, values) in [
        ("SELEC 1", vec![]),
        ("SELECT naame FROM runs", vec![]),
        ("", vec![]),
        ("-- nothing", vec![]),
        ("SELECT 1; SELECT 2", vec![]),
        ("SELECT 1 \0", vec![]),
        ("SELECT ?1, ?2", vec![Value::Integer(1)]),
        ("SELECT 1", vec![Value::Integer(1)]),
        ("DELETE FROM _run", vec![]),
        ("VACUUM INTO '/tmp/never.db'", vec![]),
        ("CREATE TEMP TABLE t (x)", vec![]),
        ("SELECT json('{') FROM columns", vec![]),
        ("SELECT abs(-9223372036854775807 - 1)", vec![]),
    ] {
        let error = seen(&reader, sql, &values).await.expect_err(sql);
        said += &format!("{}\n    {error}\n", sql.escape_debug());
    }
    insta::assert_snapshot!(said);
    assert_eq!(seen(&reader, "SELECT 1", &[]).await.expect("in order").len(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_ends() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let endless = seen(&reader, ENDLESS, &[]);
    tokio::time::timeout(Duration::from_millis(20), endless)
        .await
        .expect_err("it never ends");
    // Queries of one reader take turns: this one is answered when that one has ended.
    let next = tokio::time::timeout(Duration::from_secs(30), seen(&reader, "SELECT 1", &[]));
    assert_eq!(next.await.expect("in time").expect("in order").len(), 1);
}

#[tokio::test]
async fn a_panic_is_the_caller_s() {
    let bench = Bench::new().await;
    let reader = bench.reader().await;
    let other = reader.clone();
    let panics = tokio::spawn(async move {
        let look = |(): &mut (), _: &Row<'_>| panic!("of the caller");
        other.scan("SELECT 1", &[], (), look).await
    });
    assert!(panics.await.expect_err("it panics").is_panic());
    assert_eq!(seen(&reader, "SELECT 1", &[]).await.expect("in order").len(), 1);
}

#[tokio::test]
async fn rows_are_those_of_one_moment() {
    let bench = Bench::new().await;
    for second in 0..500 {
        bench.commit(second, vec![host(1)]).await;
    }
    let reader = bench.reader().await;
    let (at_a_row, first) = mpsc::channel();
    let (go_on, written) = mpsc::channel::<()>();
    let look = move |sum: &mut i64, row: &Row<'_>| {
        if *sum == 0 {
            at_a_row.send(()).expect("somebody waits");
            written.recv().expect("something is written");
        }
        *sum += row.int(0).unwrap_or(0);
    };
    let sql = "SELECT memory_total_bytes FROM host_samples ORDER BY at_ns";
    let scan = tokio::spawn({
        let reader = reader.clone();
        async move { reader.scan(sql, &[], 0, look).await }
    });
    tokio::task::spawn_blocking(move || first.recv())
        .await
        .expect("no panic")
        .expect("it reads");
    for second in 500..600 {
        bench.commit(second, vec![host(1_000)]).await;
    }
    go_on.send(()).expect("it waits");
    assert_eq!(scan.await.expect("no panic").expect("read"), 500);
    assert_eq!(seen(&reader, sql, &[]).await.expect("read").len(), 600);
}

#[tokio::test]
async fn a_database_that_is_cut_off_is_an_error() {
    let bench = Bench::new().await;
    for second in 0..2_000 {
        bench.store.writer().append(crate::batch(second, vec![host(1)]));
    }
    bench.commit(2_000, vec![host(1)]).await;
    let path = bench.path();
    bench.store.close().await.expect("closed");
    let reader = Reader::open(&path).await.expect("readable");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file");
    file.set_len(file.metadata().expect("known").len() / 2)
        .expect("cut off");
    let sql = "SELECT memory_total_bytes FROM host_samples";
    let error = seen(&reader, sql, &[]).await.expect_err("half is missing");
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_value_comes_back(number: i64, real: f64, text: String, bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (folder, rows) = runtime.block_on(async {
            let bench = Bench::new().await;
            let reader = bench.reader().await;
            let values = [Value::Integer(number), Value::Real(real), Value::from(text.as_str()), Value::Blob(bytes.clone())];
            let look = |seen: &mut Vec<_>, row: &Row<'_>| {
                seen.push((row.int(0), row.real(1), row.text(2).map(String::from), row.int(3), row.text(4).map(String::from)));
            };
            let sql = "SELECT ?1, ?2, ?3, length(?4), ?5";
            let values = [&values[..], &[Value::Null]].concat();
            let rows = reader.scan(sql, &values, Vec::new(), look).await.expect("a row");
            (bench.folder, rows)
        });
        drop(folder);
        let length = i64::try_from(bytes.len()).expect("short");
        // SQLite knows no NaN.
        let real = (!real.is_nan()).then_some(real);
        prop_assert_eq!(rows, [(Some(number), real, Some(text), Some(length), None)]);
    }
}
