//! What a store refuses to open, and that it leaves such a file as it is.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use plimsoll_store::{Reader, Store, StoreError, StoreOptions};
use plimsoll_trace::{Event, EventKind, Record, RunId};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Bench, batch};

/// Both ways of opening fail alike, and the file is untouched.
async fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).expect("readable");
    let error = Store::open(StoreOptions::new(path)).await.expect_err("refused");
    let reader = Reader::open(path).await.expect_err("refused");
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&reader),
        "{error} / {reader}"
    );
    assert!(
        fs::read(path).expect("readable") == before,
        "the file was changed"
    );
    error
}

async fn whole_store(path: &Path) {
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    let event = Record::Event(Event::new(EventKind::Xid, "x".repeat(100_000)));
    store
        .writer()
        .commit(batch(1, vec![event]))
        .await
        .expect("stored");
    store.close().await.expect("closed");
}

async fn sql(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("open");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("valid");
    connection.close().await.expect("closed");
}

#[tokio::test]
async fn what_is_no_database_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    for bytes in [
        b"x".to_vec(),
        b"just some notes\n".repeat(1000),
        vec![0; 8192],
        vec![0xff; 100],
    ] {
        fs::write(&path, &bytes).expect("written");
        let error = refused(&path).await;
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{} bytes: {error:?}",
            bytes.len()
        );
        assert!(error.to_string().contains("left as it is"), "{error}");
    }
}

#[tokio::test]
async fn a_truncated_store_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    whole_store(&path).await;
    let bytes = fs::read(&path).expect("readable");
    for length in [50, 100, 512, 4096, 8192, bytes.len() / 2, bytes.len() - 4096] {
        fs::write(&path, &bytes[..length]).expect("written");
        let error = refused(&path).await;
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{length} bytes: {error:?}"
        );
    }
    fs::write(&path, bytes).expect("written");
    whole_store(&path).await;
}

#[tokio::test]
async fn a_newer_store_is_left_to_a_newer_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    whole_store(&path).await;
    sql(
        &path,
        "INSERT INTO _sqlx_migrations VALUES (9000, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)",
    )
    .await;
    let error = refused(&path).await;
    assert!(
        matches!(error, StoreError::Newer { found: 9000, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("schema version 9000") && error.to_string().contains("up to 10"),
        "{error}"
    );
}

#[tokio::test]
async fn another_programs_database_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    sql(&path, "CREATE TABLE theirs (x)").await;
    assert!(matches!(refused(&path).await, StoreError::Foreign { .. }));
}

#[tokio::test]
async fn one_writer_at_a_time_by_any_name() {
    let bench = Bench::new().await;
    let link = bench.folder.path().join("link.db");
    std::os::unix::fs::symlink(bench.path(), &link).expect("linked");
    for path in [bench.path(), link] {
        let error = Store::open(StoreOptions::new(path)).await.expect_err("locked");
        assert!(
            matches!(error, StoreError::Locked { pid, .. } if pid == Some(std::process::id())),
            "{error:?}"
        );
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }
    let path = bench.path();
    bench.store.close().await.expect("closed");
    let store = Store::open(StoreOptions::new(path)).await.expect("free again");
    store.close().await.expect("closed");
}

#[tokio::test]
async fn numbers_go_on_where_they_ended() {
    let bench = Bench::new().await;
    let path = bench.path();
    let id = bench.store.writer().next_run_id();
    let run = plimsoll_trace::RunStart {
        id,
        name: "x".into(),
        engine: None,
        host: "h".into(),
        pid: None,
        process_key: None,
        command: None,
        trace_tier: plimsoll_trace::TraceTier::Off,
    };
    bench.commit(1, vec![Record::RunStart(run)]).await;
    bench.store.close().await.expect("closed");
    let store = Store::open(StoreOptions::new(path)).await.expect("a store");
    assert_eq!(store.writer().next_run_id(), RunId(2));
}

#[tokio::test]
async fn a_new_store_is_for_its_owner_and_group() {
    let bench = Bench::new().await;
    let mode = fs::metadata(bench.path())
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[tokio::test]
async fn a_missing_folder_or_file_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no/t.db");
    let error = Store::open(StoreOptions::new(&path))
        .await
        .expect_err("no folder");
    assert!(matches!(error, StoreError::NoFolder { .. }), "{error:?}");
    assert!(matches!(
        Reader::open(&path).await.expect_err("no file"),
        StoreError::NotFound { .. }
    ));
    assert!(!folder.path().join("no").exists());
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.db");
    fs::write(&path, b"").expect("written");
    assert!(matches!(
        Reader::open(&path).await.expect_err("no store yet"),
        StoreError::Foreign { .. }
    ));
    whole_store(&path).await;
}
