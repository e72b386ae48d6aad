//! Reading a store: our own queries, what the daemon needs at its start, and the console for other people's SQL.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use plimsoll_trace::{ConfigChange, Decision, DecisionId, EngineMemo, RunId, RunStart};
use sqlx::{
    AssertSqlSafe, Column, Executor, FromRow, SqlSafeStr, SqliteConnection, Statement,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    StoreError, Table, Value,
    console::{self, Answer, CLOCK_EVERY, Limits},
    query_error::QueryError,
    scan, schema,
    statement::Row,
    value,
};

/// How long one of our own queries may take.
pub(crate) const AT_MOST: Duration = Duration::from_secs(60);

/// A store that is open for reading, beside its writer or without one; cheap to clone. It never writes.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    path: PathBuf,
    options: SqliteConnectOptions,
    connection: Mutex<SqliteConnection>,
}

/// A run that had not ended when the store was last written.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenRun {
    /// As it was started.
    pub run: RunStart,
    /// When, ns since the Unix epoch.
    pub started_ns: i64,
}

/// A decision that was being carried out or verified when the store was last written.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// The decision, `applying` or `applied`.
    pub decision: Decision,
    /// What it changed, in order.
    pub changes: Vec<ConfigChange>,
}

impl Reader {
    /// Opens a store for reading.
    ///
    /// # Errors
    /// When there is none, or the file is damaged, no store, or of another version of the schema.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let (options, connection) = schema::open_to_read(&path).await?;
        Ok(Self(Arc::new(Inner {
            path,
            options,
            connection: Mutex::new(connection),
        })))
    }

    /// The file that is read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs one of this program's own queries; `?` stands for the values, in order. Queries of one reader take turns.
    ///
    /// # Errors
    /// When SQLite refuses, or it takes more than a minute.
    pub async fn query(&self, sql: &str, values: &[Value]) -> Result<Table, StoreError> {
        let mut connection = self.connection().await?;
        query(&mut connection, sql, values)
            .await
            .map_err(StoreError::sql("querying the store"))
    }

    /// Runs one of this program's own queries that gives many rows, hands each row to `each` together with `state`, and
    /// gives `state` back. It takes a fraction of what [`query`](Self::query) takes for a row. The rows are those of
    /// one moment, whatever is written meanwhile; all that is kept of them is what `each` keeps. When the answer is no
    /// longer awaited the query ends.
    ///
    /// # Errors
    /// When SQLite refuses, `values` are not as many as the query takes, or it takes more than a minute.
    pub async fn scan<S, F>(&self, sql: &str, values: &[Value], state: S, each: F) -> Result<S, StoreError>
    where
        S: Send + 'static,
        F: FnMut(&mut S, &Row<'_>) + Send + 'static,
    {
        let (reader, sql, values) = (self.clone(), sql.to_owned(), values.to_vec());
        scan::on_a_thread(move |awaited| {
            let mut connection = reader.0.connection.blocking_lock();
            scan::run(&mut connection, &sql, &values, state, each, awaited)
        })
        .await
    }

    /// Runs SQL that somebody else wrote: it can read this database and nothing else, for as long and as much as the
    /// limits allow.
    ///
    /// # Errors
    /// [`QueryError`] says what is wrong with the query, or which limit it ran into.
    pub async fn console(&self, sql: &str, limits: &Limits) -> Result<Answer, QueryError> {
        console::answer(&self.0.options, sql, limits).await
    }

    /// What the tuner remembers, by engine.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn memos(&self) -> Result<Vec<EngineMemo>, StoreError> {
        let rows: Vec<(String, String)> = self
            .rows("SELECT engine, state FROM _engine_memo ORDER BY engine")
            .await?;
        Ok(rows
            .into_iter()
            .map(|(engine, state)| EngineMemo { engine, state })
            .collect())
    }

    /// When engines were started anew since an instant, by engine, ns since the Unix epoch; and each engine that has ever run,
    /// with 0.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub async fn restarts(&self, since_ns: i64) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "SELECT engine, 0 FROM _run WHERE engine IS NOT NULL GROUP BY engine
             UNION ALL SELECT engine, started_ns FROM _run AS run WHERE engine IS NOT NULL AND started_ns >= ?
                 AND id > (SELECT min(id) FROM _run WHERE engine = run.engine)";
        let table = self.query(sql, &[since_ns.into()]).await?;
        let row = |row: Vec<Value>| match row.as_slice() {
            [Value::Text(engine), Value::Integer(at_ns)] => Some((engine.clone(), *at_ns)),
            _ => None,
        };
        Ok(table.rows.into_iter().filter_map(row).collect())
    }

    /// Runs that have not ended, oldest first.
    ///
    /// # Errors
    /// When SQLite refuses, or a row holds a word that this program does not know.
    pub async fn open_runs(&self) -> Result<Vec<OpenRun>, StoreError> {
        let rows: Vec<RunRow> = self
            .rows(
                "SELECT id, name, engine, host, pid, process_key, command, trace_tier, started_ns
                 FROM _run WHERE ended_ns IS NULL ORDER BY id",
            )
            .await?;
        rows.into_iter().map(RunRow::into_run).collect()
    }

    /// Decisions that are `applying` or `applied`, oldest first, each with its changes.
    ///
    /// # Errors
    /// When SQLite refuses, or a row holds something that this program does not understand.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let decisions: Vec<DecisionRow> = self
            .rows("SELECT * FROM _decision WHERE outcome IN ('applying', 'applied') ORDER BY id")
            .await?;
        let changes: Vec<ChangeRow> = self
            .rows(
                "SELECT * FROM _config_change WHERE decision_id IN
                     (SELECT id FROM _decision WHERE outcome IN ('applying', 'applied')) ORDER BY id",
            )
            .await?;
        let changes: Vec<ConfigChange> = changes
            .into_iter()
            .map(ChangeRow::into_change)
            .collect::<Result<_, _>>()?;
        decisions
            .into_iter()
            .map(|row| {
                let decision = row.into_decision()?;
                let changes = changes
                    .iter()
                    .filter(|change| change.decision == decision.id)
                    .cloned()
                    .collect();
                Ok(Unfinished { decision, changes })
            })
            .collect()
    }

    /// Decisions that wait for a person, oldest first.
    ///
    /// # Errors
    /// When SQLite refuses, or a row holds something that this program does not understand.
    pub async fn proposals(&self) -> Result<Vec<Decision>, StoreError> {
        let rows: Vec<DecisionRow> = self
            .rows("SELECT * FROM _decision WHERE outcome = 'proposed' ORDER BY id")
            .await?;
        rows.into_iter().map(DecisionRow::into_decision).collect()
    }

    /// The connection, for one query that ends in time: a reader that stays keeps the write-ahead log from shrinking.
    async fn connection(&self) -> Result<MutexGuard<'_, SqliteConnection>, StoreError> {
        let mut connection = self.0.connection.lock().await;
        let started = Instant::now();
        connection
            .lock_handle()
            .await
            .map_err(StoreError::sql("querying the store"))?
            .set_progress_handler(CLOCK_EVERY, move || started.elapsed() < AT_MOST);
        Ok(connection)
    }

    /// The rows of what belongs to an engine within a time.
    pub(crate) async fn rows_of<T>(
        &self,
        sql: &'static str,
        engine: &str,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let mut connection = self.connection().await?;
        sqlx::query_as(sql)
            .bind(engine)
            .bind(from_ns)
            .bind(to_ns)
            .fetch_all(&mut *connection)
            .await
            .map_err(StoreError::sql("reading the store"))
    }

    async fn rows<T>(&self, sql: &'static str) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let mut connection = self.connection().await?;
        sqlx::query_as(sql)
            .fetch_all(&mut *connection)
            .await
            .map_err(StoreError::sql("reading the store"))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reader").field(&self.0.path).finish()
    }
}

async fn query(connection: &mut SqliteConnection, sql: &str, values: &[Value]) -> Result<Table, sqlx::Error> {
    let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await?;
    let columns = statement
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let query = values
        .iter()
        .cloned()
        .fold(statement.query(), |query, value| value.bind(query));
    let rows = query.fetch_all(connection).await?;
    Ok(Table {
        columns,
        rows: rows.iter().map(value::values).collect::<Result<_, _>>()?,
    })
}

#[derive(FromRow)]
struct RunRow {
    id: i64,
    name: String,
    engine: Option<String>,
    host: String,
    pid: Option<u32>,
    process_key: Option<String>,
    command: Option<String>,
    trace_tier: String,
    started_ns: i64,
}

impl RunRow {
    fn into_run(self) -> Result<OpenRun, StoreError> {
        let row = || format!("run {}", self.id);
        Ok(OpenRun {
            run: RunStart {
                id: RunId(self.id),
                trace_tier: understood(self.trace_tier.parse(), row)?,
                name: self.name,
                engine: self.engine,
                host: self.host,
                pid: self.pid,
                process_key: self.process_key,
                command: self.command,
            },
            started_ns: self.started_ns,
        })
    }
}

#[derive(FromRow)]
pub(crate) struct DecisionRow {
    id: i64,
    run_id: Option<i64>,
    engine: String,
    rule: String,
    at_ns: i64,
    mode: String,
    verdict: String,
    outcome: String,
    signal: String,
    value: Option<f64>,
    threshold: Option<f64>,
    explanation: String,
    detail: Option<String>,
}

impl DecisionRow {
    pub(crate) fn into_decision(self) -> Result<Decision, StoreError> {
        let row = || format!("decision {}", self.id);
        Ok(Decision {
            id: DecisionId(self.id),
            run: self.run_id.map(RunId),
            at_ns: self.at_ns,
            mode: understood(self.mode.parse(), row)?,
            verdict: understood(self.verdict.parse(), row)?,
            outcome: understood(self.outcome.parse(), row)?,
            value: self.value,
            threshold: self.threshold,
            detail: match &self.detail {
                Some(text) => understood(serde_json::from_str(text), row)?,
                None => serde_json::Value::Null,
            },
            engine: self.engine,
            rule: self.rule,
            signal: self.signal,
            explanation: self.explanation,
        })
    }
}

#[derive(FromRow)]
struct ChangeRow {
    id: i64,
    decision_id: i64,
    path: String,
    at_ns: i64,
    before_text: String,
    after_text: String,
    diff: String,
    outcome: String,
}

impl ChangeRow {
    fn into_change(self) -> Result<ConfigChange, StoreError> {
        Ok(ConfigChange {
            id: self.id,
            decision: DecisionId(self.decision_id),
            outcome: understood(self.outcome.parse(), || format!("config change {}", self.id))?,
            path: self.path,
            at_ns: self.at_ns,
            before: self.before_text,
            after: self.after_text,
            diff: self.diff,
        })
    }
}

fn understood<T, E: std::fmt::Display>(
    parsed: Result<T, E>,
    row: impl FnOnce() -> String,
) -> Result<T, StoreError> {
    parsed.map_err(|problem| StoreError::Row {
        row: row(),
        problem: problem.to_string(),
    })
}
