//! A store of one test, with nothing in it yet.

use sqlx::{AssertSqlSafe, SqliteConnection};
use tempfile::TempDir;

use crate::schema;

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) connection: SqliteConnection,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, connection) = schema::open(&folder.path().join("t.db")).await.expect("a store");
        Self { folder, connection }
    }

    pub(crate) async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.connection)
            .await
            .expect(sql);
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await
            .expect(sql)
    }
}
