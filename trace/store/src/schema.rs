//! Opening the file: what it may be, how it is set up, and which version of the schema it has.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{StoreError, error::sqlite_code, retention::log_of};

/// Where the service keeps its store unless told otherwise. Its folder is created; no other is.
pub const DEFAULT_PATH: &str = "/var/lib/plimsoll/plimsoll.db";

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// 'PLIM', set by the first migration.
const APPLICATION_ID: i64 = 0x504C_494D;

/// SQLite's result codes for a file that it cannot make sense of.
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;
/// How long to wait for another connection's lock.
const BUSY: Duration = if cfg!(test) {
    Duration::from_millis(100)
} else {
    Duration::from_secs(5)
};

/// The path with its folder resolved, so that two names of one file have one lock.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path == Path::new(DEFAULT_PATH) {
        let created = fs::DirBuilder::new().recursive(true).mode(0o750).create(folder);
        created.map_err(io_error("creating the folder", folder))?;
    }
    let name = path.file_name().ok_or_else(|| StoreError::NotFound {
        path: path.to_owned(),
    })?;
    match folder.canonicalize() {
        Ok(folder) => Ok(folder.join(name)),
        Err(_) => Err(StoreError::NoFolder {
            folder: folder.to_owned(),
        }),
    }
}

/// Opens a store for writing: creates it, or refuses what is not one, or brings it up to date. The caller holds the
/// lock.
pub(crate) async fn open(path: &Path) -> Result<(SqliteConnectOptions, SqliteConnection), StoreError> {
    match size(path)? {
        None => create(path)?,
        // A database that was never written.
        Some(0) => {}
        // What is not empty is looked at without the right to write, so that whatever it is, it stays as it is.
        Some(_) => {
            let mut connection = connect(path, &read_only(path)).await?;
            let found = version(path, &mut connection).await?;
            connection
                .close()
                .await
                .map_err(StoreError::sql("closing the store"))?;
            if found > newest() {
                return Err(StoreError::Newer {
                    path: path.to_owned(),
                    found,
                    known: newest(),
                });
            }
        }
    }
    let options = read_write(path);
    let mut connection = connect(path, &options).await?;
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| StoreError::Migrate {
            path: path.to_owned(),
            source: Arc::new(source),
        })?;
    analyze(&mut connection)
        .await
        .map_err(StoreError::sql("analyzing the store"))?;
    Ok((options, connection))
}

/// Tells the planner how the tables are filled; without that it joins runs to samples the slow way round.
pub(crate) async fn analyze(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ANALYZE").execute(connection).await.map(drop)
}

/// Opens a store for reading, beside a writer or without one.
pub(crate) async fn open_to_read(
    path: &Path,
) -> Result<(SqliteConnectOptions, SqliteConnection), StoreError> {
    if size(path)?.is_none() {
        return Err(StoreError::NotFound {
            path: path.to_owned(),
        });
    }
    let mut options = read_only(path);
    let (connection, found) = match version_of(path, &options).await {
        // Beside a write-ahead log SQLite needs an index file, which somebody who may only read cannot create. When
        // there is no log there is no writer either, and the file alone is the whole database.
        Err(StoreError::Sql { source, .. }) if is_cannot_index(&source) && !log_of(path).exists() => {
            options = options.immutable(true);
            version_of(path, &options).await?
        }
        found => found?,
    };
    let known = newest();
    let path = path.to_owned();
    if found == known {
        return Ok((options, connection));
    }
    let closed = connection.close().await;
    tracing::trace!(?closed, "the store has another schema");
    Err(match found {
        0 => StoreError::Foreign { path },
        _ if found > known => StoreError::Newer { path, found, known },
        _ => StoreError::Older { path, found, known },
    })
}

async fn version_of(
    path: &Path,
    options: &SqliteConnectOptions,
) -> Result<(SqliteConnection, i64), StoreError> {
    let mut connection = connect(path, options).await?;
    let found = version(path, &mut connection).await?;
    Ok((connection, found))
}

/// The newest schema this program knows.
pub(crate) fn newest() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// The schema a database has; 0 for one that has none at all yet.
async fn version(path: &Path, connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let failed = |error| classify(path, "reading the schema", error);
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let foreign: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE tbl_name <> '_sqlx_migrations'")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
    match (id, foreign) {
        (APPLICATION_ID, _) => sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(connection)
            .await
            .map_err(failed),
        (0, 0) => Ok(0),
        _ => Err(StoreError::Foreign {
            path: path.to_owned(),
        }),
    }
}

/// The size of the file in bytes, if there is one. SQLite takes a file of one byte for an empty database, and would
/// overwrite it.
fn size(path: &Path) -> Result<Option<u64>, StoreError> {
    /// Of a database, which has one page at least.
    const SMALLEST: u64 = 512;
    match fs::metadata(path) {
        Ok(data) if (1..SMALLEST).contains(&data.len()) => Err(StoreError::Damaged {
            path: path.to_owned(),
            source: None,
        }),
        Ok(data) => Ok(Some(data.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading", path)(error)),
    }
}

/// Readable by the owner and the group from the first moment.
fn create(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
        .map(drop)
        .map_err(io_error("creating", path))
}

async fn connect(path: &Path, options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::connect_with(options)
        .await
        .map_err(|error| classify(path, "opening the store", error))
}

fn read_write(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Works at creation only: lets the file shrink when the limits are lowered.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // With NORMAL a power cut takes everything since the last checkpoint, which is minutes.
        .synchronous(SqliteSynchronous::Full)
        // The log shrinks back to this after a reader that held it open for long has gone.
        .pragma("journal_size_limit", "67108864")
        .pragma("cache_size", "-16000")
        .analysis_limit(400)
        // The writer's texts are long, some 200 KiB each when compiled, and few are in use at a time.
        .statement_cache_capacity(32)
        .busy_timeout(BUSY)
        .disable_statement_logging()
}

fn read_only(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .pragma("cache_size", "-16000")
        .busy_timeout(BUSY)
        .disable_statement_logging()
}

fn classify(path: &Path, doing: &'static str, error: sqlx::Error) -> StoreError {
    match sqlite_code(&error) {
        Some(CORRUPT | NOT_A_DATABASE) => StoreError::Damaged {
            path: path.to_owned(),
            source: Some(Arc::new(error)),
        },
        _ => StoreError::sql(doing)(error),
    }
}

/// What SQLite says when it cannot make the index file of a write-ahead log.
fn is_cannot_index(error: &sqlx::Error) -> bool {
    const READ_ONLY: i32 = 8;
    const CANNOT_OPEN: i32 = 14;
    matches!(sqlite_code(error), Some(READ_ONLY | CANNOT_OPEN))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        doing,
        path,
        source: Arc::new(source),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
