//! The views are a public interface: what the contract names is there, and every column is documented.

use plimsoll_store::Value;

use crate::{Bench, rows};

/// The columns that users rely on.
const CONTRACT: [(&str, &str); 21] = [
    (
        "runs",
        "id name engine host pid command started_ns ended_ns exit_code outcome peak_used_bytes trace_tier",
    ),
    ("devices", "device name driver total_bytes parent"),
    (
        "device_samples",
        "device at_ns used_bytes free_bytes reserved_bytes total_bytes gpu_busy_ratio memory_busy_ratio \
         temperature_celsius power_watts sm_clock_mhz memory_clock_mhz",
    ),
    (
        "process_samples",
        "run_id device pid at_ns used_bytes sm_busy_ratio process container",
    ),
    (
        "host_samples",
        "at_ns cpu_busy_ratio memory_available_bytes memory_total_bytes swap_used_bytes",
    ),
    ("engine_samples", "run_id at_ns signal value"),
    ("events", "id run_id device at_ns kind message detail"),
    (
        "decisions",
        "id run_id engine rule at_ns mode verdict outcome signal value threshold explanation detail",
    ),
    (
        "config_changes",
        "id decision_id path at_ns before_text after_text diff outcome",
    ),
    ("losses", "source reason at_ns count"),
    ("rule_sets", "hash engine first_ns rules"),
    (
        "ladder_marks",
        "id engine at_ns kind rules_hash max_age_ns run_id devices state",
    ),
    (
        "kernels",
        "run_id device name count total_ns mean_ns min_ns max_ns p50_ns p99_ns",
    ),
    (
        "kernel_windows",
        "run_id device name start_ns end_ns count total_ns max_ns",
    ),
    (
        "kernel_minutes",
        "run_id device name start_ns first_ns end_ns count total_ns max_ns min_ns pid",
    ),
    ("kernel_spans", "run_id pid device stream name start_ns end_ns"),
    ("copies", "run_id device direction count bytes total_ns"),
    ("allocations", "run_id device at_ns operation address bytes kind"),
    (
        "allocator_samples",
        "run_id device at_ns level allocated_bytes active_bytes reserved_bytes inactive_split_bytes slack_ratio \
         stuck_ratio source",
    ),
    (
        "ledger",
        "run_id device moment at_ns used_bytes processes_bytes unknown_processes unattributed_bytes reserved_bytes",
    ),
    (
        "process_ledger",
        "run_id device moment at_ns pid process used_bytes allocated_bytes unattributed_bytes",
    ),
];

async fn pairs(bench: &Bench, sql: &str) -> Vec<String> {
    rows(&bench.reader().await, sql)
        .await
        .into_iter()
        .map(|row| {
            let words: Vec<String> = row
                .into_iter()
                .map(|value| match value {
                    Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
                .collect();
            words.join(" | ")
        })
        .collect()
}

#[tokio::test]
async fn every_column_of_every_view_is_documented_and_nothing_else() {
    let bench = Bench::new().await;
    let real = pairs(
        &bench,
        "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
         WHERE m.type = 'view' ORDER BY m.name, c.cid",
    )
    .await;
    let documented = pairs(&bench, "SELECT view, column FROM columns ORDER BY view").await;
    assert_eq!(real, documented);
    for (view, columns) in CONTRACT {
        for column in columns.split_whitespace() {
            assert!(real.contains(&format!("{view} | {column}")), "{view}.{column}");
        }
    }
    assert_eq!(
        pairs(
            &bench,
            "SELECT view, column FROM columns WHERE trim(meaning) = '' OR trim(unit) = ''"
        )
        .await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn what_is_private_begins_with_an_underscore() {
    let bench = Bench::new().await;
    let wrong = pairs(
        &bench,
        "SELECT name FROM sqlite_master
         WHERE (type = 'view') <> (substr(name, 1, 1) <> '_') AND name NOT LIKE 'sqlite_%'",
    )
    .await;
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn the_schema_as_it_is() {
    let bench = Bench::new().await;
    let schema = pairs(
        &bench,
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
         AND name NOT LIKE '_sqlx%' ORDER BY type, name",
    )
    .await;
    insta::assert_snapshot!("schema", schema.join(";\n\n"));
    insta::assert_snapshot!("columns", pairs(&bench, "SELECT * FROM columns").await.join("\n"));
}

#[tokio::test]
async fn the_file_is_set_up_for_many_readers_and_power_cuts() {
    let bench = Bench::new().await;
    for (pragma, value) in [
        ("journal_mode", "wal"),
        ("auto_vacuum", "Integer(2)"),
        ("page_size", "Integer(4096)"),
    ] {
        assert_eq!(
            pairs(&bench, &format!("PRAGMA {pragma}")).await,
            [value],
            "{pragma}"
        );
    }
}

#[tokio::test]
async fn a_filter_on_time_reaches_the_key() {
    let bench = Bench::new().await;
    for view in [
        "device_samples",
        "process_samples",
        "host_samples",
        "engine_samples",
        "allocations",
        "allocator_samples",
        "kernel_windows",
        "kernel_minutes",
        "kernel_spans",
        "copy_windows",
    ] {
        let time = if view.starts_with("kernel") || view.starts_with("copy") {
            "start_ns"
        } else {
            "at_ns"
        };
        let plan = pairs(
            &bench,
            &format!("EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE {time} BETWEEN 1 AND 2"),
        )
        .await
        .join("\n");
        assert!(
            plan.contains(&format!("{time}>? AND {time}<?")) || plan.contains("rowid>? AND rowid<?"),
            "{view}: {plan}"
        );
        assert!(
            ["SCAN s", "SCAN w", "SCAN m"]
                .iter()
                .all(|scan| !plan.contains(scan)),
            "{view}: {plan}"
        );
    }
}
