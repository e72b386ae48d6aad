//! One commit as one text: its statements go to SQLite's thread together, and its answers come back together.
//!
//! Each query costs several changes of thread, whatever it holds, and on a machine that is otherwise idle they are most
//! of what a commit costs.

use std::fmt;

use futures_util::TryStreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Either, Encode, Executor, Sqlite, SqliteConnection, Type, error::BoxDynError,
    sqlite::SqliteArguments,
};

/// Another process that writes is waited for here, not in the middle.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Begins the commit's transaction before its script, unless it has `begun`: something new needs a number.
pub(crate) async fn begin(connection: &mut SqliteConnection, begun: &mut bool) -> Result<(), sqlx::Error> {
    if !*begun {
        sqlx::raw_sql(BEGIN).execute(connection).await?;
        *begun = true;
    }
    Ok(())
}

/// Statements in order, and the values of all their places.
#[derive(Default)]
pub(crate) struct Script {
    sql: String,
    statements: usize,
    arguments: SqliteArguments,
    /// A value that could not be bound.
    wrong: Option<BoxDynError>,
    /// It has statements that come now and then: the whole is hardly seen again.
    rare: bool,
}

impl Script {
    /// Adds a statement of each commit, without its semicolon. Its values are to be bound next.
    pub(crate) fn usual(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self.sql.push(';');
        self.statements += 1;
        self
    }

    /// Adds a statement that few commits have.
    pub(crate) fn rare(&mut self, sql: &str) -> &mut Self {
        self.rare = true;
        self.usual(sql)
    }

    /// The value for the next place.
    pub(crate) fn bind<'t>(&mut self, value: impl Encode<'t, Sqlite> + Type<Sqlite>) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.wrong.get_or_insert(error);
        }
        self
    }

    /// How many statements it has so far.
    pub(crate) fn len(&self) -> usize {
        self.statements
    }

    /// Carries it out as one transaction, which may have begun. Says how many rows each statement changed.
    ///
    /// # Errors
    /// When a statement failed. The ones behind it were not tried, and the transaction may still be open.
    pub(crate) async fn commit(
        self,
        connection: &mut SqliteConnection,
        begun: bool,
    ) -> Result<Vec<u64>, sqlx::Error> {
        if let Some(error) = self.wrong {
            return Err(sqlx::Error::Encode(error));
        }
        let begin = if begun { "" } else { BEGIN };
        let sql = [begin, ";", self.sql.as_str(), "COMMIT"].concat();
        let query = sqlx::query_with(AssertSqlSafe(sql), self.arguments).persistent(!self.rare && !begun);
        let mut answers = connection.fetch_many(query);
        let mut changed = Vec::with_capacity(self.statements + 2);
        while let Some(answer) = answers.try_next().await? {
            if let Either::Left(done) = answer {
                changed.push(done.rows_affected());
            }
        }
        Ok(changed
            .into_iter()
            .skip(usize::from(!begun))
            .take(self.statements)
            .collect())
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    async fn memory() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.expect("open");
        run(&mut connection, "CREATE TABLE t (a PRIMARY KEY, b)").await;
        connection
    }

    async fn run(connection: &mut SqliteConnection, sql: &'static str) {
        sqlx::raw_sql(sql).execute(connection).await.expect(sql);
    }

    fn insert(script: &mut Script, a: i64, b: &str) {
        script.usual("INSERT INTO t VALUES (?, ?)").bind(a).bind(b);
    }

    #[tokio::test]
    async fn values_go_to_their_statements_in_order_and_each_says_what_it_changed() {
        let mut connection = memory().await;
        // Twice the same text: the second time it is known. And once in a transaction that has begun.
        for (first, begun) in [(1, false), (3, false), (5, true)] {
            let mut script = Script::default();
            insert(&mut script, first, "x");
            script.usual("UPDATE t SET b = ? WHERE a = ?").bind("y").bind(99);
            insert(&mut script, first + 1, "z");
            assert_eq!(script.len(), 3);
            if begun {
                run(&mut connection, BEGIN).await;
            }
            let changed = script.commit(&mut connection, begun).await.expect("done");
            assert_eq!(changed, [1, 0, 1]);
        }
        let all: String = sqlx::query_scalar("SELECT group_concat(a || b, ' ') FROM t")
            .fetch_one(&mut connection)
            .await
            .expect("rows");
        assert_eq!(all, "1x 2z 3x 4z 5x 6z");
        run(&mut connection, BEGIN).await;
    }

    #[tokio::test]
    async fn what_fails_ends_it_inside_its_transaction() {
        let mut connection = memory().await;
        let mut script = Script::default();
        insert(&mut script, 1, "x");
        insert(&mut script, 1, "again");
        insert(&mut script, 2, "y");
        script
            .commit(&mut connection, false)
            .await
            .expect_err("the key is there already");
        run(&mut connection, "ROLLBACK").await;
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t")
            .fetch_one(&mut connection)
            .await
            .expect("a number");
        assert_eq!(rows, 0);
    }
}
