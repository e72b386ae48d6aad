use super::*;
use crate::schema;

#[tokio::test]
async fn a_run_has_so_many_names_and_what_comes_after_them_is_told_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = schema::open(&folder.path().join("t.db")).await;
    let (_, mut connection) = opened.expect("a store");
    let mut begun = false;
    let few = || Kernels {
        named: 3,
        ..Kernels::default()
    };
    let mut kernels = few();
    let mut told = Vec::new();
    // The fourth name of a run is one too many, also for a daemon that has started anew; those before keep their rows.
    for (restarts, run, device, name) in [
        (false, 1, 1, "a"),
        (false, 1, 1, "b"),
        (false, 1, 1, "c"),
        (false, 1, 1, "d"),
        (false, 1, 1, "a"),
        (true, 1, 1, "e"),
        (false, 1, 1, "d"),
        (false, 1, 1, "c"),
        (false, 1, 2, "d"),
        (false, 2, 1, "e"),
        (false, 1, 1, "e"),
    ] {
        if restarts {
            kernels = few();
        }
        let (id, key) = kernels
            .of(
                &mut connection,
                &mut begun,
                (RunId(run), device, &Arc::from(name)),
            )
            .await
            .expect("a number");
        let stored: (i64, i64, String) = sqlx::query_as(
            "SELECT k.run_id, k.device_id, n.raw FROM _kernel AS k JOIN _kernel_name AS n ON n.id = k.name_id
             WHERE k.id = ? AND k.name_id = ?",
        )
        .bind(id)
        .bind(key[2])
        .fetch_one(&mut connection)
        .await
        .expect("a kernel");
        assert_eq!((stored.0, stored.1), (run, device));
        told.push(stored.2);
    }
    assert_eq!(
        told,
        ["a", "b", "c", OTHERS, "a", OTHERS, OTHERS, "c", "d", "e", OTHERS]
    );
    for (table, rows) in [("_kernel", 6), ("_kernel_name", 6)] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .expect("a number");
        assert_eq!(count, rows, "{table}");
    }
}
