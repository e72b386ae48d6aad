//! Traced work: exact totals, quantiles, and what is known of allocators.

use std::sync::Arc;

use plimsoll_store::Value;
use plimsoll_trace::wire::{Direction, MemoryKind, MemoryOperation};
use plimsoll_trace::{
    Allocation, AllocatorSample, CopyWindow, DeviceSample, KernelSpan, KernelWindow, Level, Record, RunId,
    Traced, Work, sketch,
};

use crate::{Bench, rows};

fn traced(run: i64, pid: u32, device: Option<&str>, work: Work) -> Record {
    Record::Traced(Traced {
        pid,
        run: Some(RunId(run)),
        device: device.map(Arc::from),
        work,
    })
}

/// A window of launches that all lasted as long.
fn window(name: &str, start_ns: i64, count: u64, each_ns: u64) -> Work {
    Work::Kernels(KernelWindow {
        name: name.into(),
        start_ns,
        end_ns: start_ns + 1_000,
        count,
        total_ns: count * each_ns,
        min_ns: each_ns,
        max_ns: each_ns,
        buckets: vec![(sketch::bucket(each_ns), count)],
    })
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).expect("small"))
}

#[tokio::test]
async fn totals_are_exact_over_windows_processes_and_commits() {
    let bench = Bench::new().await;
    for commit in 0..3 {
        let mut records = Vec::new();
        for (pid, name, each_ns) in [(1, "_Z3fooPf", 100), (2, "_Z3fooPf", 5_000), (1, "gemm", 7)] {
            records.push(traced(
                1,
                pid,
                Some("GPU-1"),
                window(name, commit * 1_000, 33, each_ns),
            ));
        }
        records.push(traced(2, 1, None, window("gemm", commit * 1_000, 1, 9)));
        bench.commit(commit, records).await;
    }
    let reader = bench.reader().await;
    let sql =
        "SELECT run_id, device, name, raw_name, count, total_ns, mean_ns, min_ns, max_ns, p50_ns, p99_ns
               FROM kernels ORDER BY run_id, name";
    let middle = |ns| number(sketch::middle(sketch::bucket(ns)));
    let gpu = Value::from("GPU-1");
    let expected = vec![
        vec![
            number(1),
            gpu.clone(),
            Value::from("foo(float*)"),
            Value::from("_Z3fooPf"),
            number(198),
            number(99 * 5_100),
            Value::Real(2_550.0),
            number(100),
            number(5_000),
            middle(100),
            number(5_000.min(sketch::middle(sketch::bucket(5_000)))),
        ],
        vec![
            number(1),
            gpu,
            Value::from("gemm"),
            Value::from("gemm"),
            number(99),
            number(99 * 7),
            Value::Real(7.0),
            number(7),
            number(7),
            number(7),
            number(7),
        ],
        vec![
            number(2),
            Value::Null,
            Value::from("gemm"),
            Value::from("gemm"),
            number(3),
            number(27),
            Value::Real(9.0),
            number(9),
            number(9),
            number(9),
            number(9),
        ],
    ];
    assert_eq!(rows(&reader, sql).await, expected);
    let windows = rows(
        &reader,
        "SELECT sum(count), sum(total_ns), count(*) FROM kernel_windows WHERE run_id = 1",
    )
    .await;
    assert_eq!(windows, [[number(297), number(99 * 5_107), number(9)]]);
}

#[tokio::test]
async fn names_that_became_one_are_added_up_in_their_window_too() {
    let bench = Bench::new().await;
    let records = [40, 60].map(|each_ns| traced(1, 7, None, window("cut", 0, 2, each_ns)));
    bench.commit(1, records.to_vec()).await;
    let reader = bench.reader().await;
    let sums = [[number(4), number(200)]];
    assert_eq!(rows(&reader, "SELECT count, total_ns FROM kernels").await, sums);
    let windows = rows(
        &reader,
        "SELECT count, total_ns, min_ns, max_ns FROM kernel_windows",
    )
    .await;
    assert_eq!(windows, [[number(4), number(200), number(40), number(60)]]);
}

#[tokio::test]
async fn a_run_that_goes_on_has_only_so_many_names_and_no_launch_is_lost() {
    let bench = Bench::new().await;
    for commit in 0..2 {
        let names = (0..16_488).map(|kernel| format!("shape {}", kernel + commit * 100));
        let records = names.map(|name| traced(1, 7, Some("GPU-1"), window(&name, commit * 1_000, 1, 10)));
        bench.commit(commit, records.collect()).await;
    }
    let reader = bench.reader().await;
    for view in ["kernels", "kernel_windows", "kernel_minutes"] {
        let sql = format!("SELECT count(DISTINCT name), sum(count), sum(total_ns) FROM {view}");
        let found = rows(&reader, &sql).await;
        assert_eq!(
            found,
            [[number(16_385), number(32_976), number(329_760)]],
            "{view}"
        );
    }
    let others = "SELECT count, p50_ns FROM kernels WHERE name = '(other kernels)'";
    assert_eq!(rows(&reader, others).await, [[number(104 + 204), number(10)]]);
}

#[tokio::test]
async fn minutes_are_exact_however_late_a_window_comes() {
    let bench = Bench::new().await;
    let minute = 60_000_000_000;
    // Within a minute, at its edges, in the next one, and then something that comes late, even from another process.
    for (commit, windows) in [
        [(1, 5, 1), (1, 0, 2), (1, minute - 1, 3)],
        [(1, minute, 4), (2, minute, 5), (1, 2 * minute, 6)],
        [(1, 7, 7), (1, 5, 8), (2, -1, 9)],
    ]
    .into_iter()
    .enumerate()
    {
        let windows = windows
            .map(|(pid, start_ns, each_ns)| traced(1, pid, Some("GPU-1"), window("k", start_ns, 2, each_ns)));
        bench
            .commit(i64::try_from(commit).expect("small"), windows.to_vec())
            .await;
    }
    let sql = "SELECT start_ns, pid, first_ns, end_ns, count, total_ns, min_ns, max_ns FROM kernel_minutes
               WHERE run_id = 1 AND device = 'GPU-1' AND name = 'k' ORDER BY start_ns, pid";
    let expected = [
        [-minute, 2, -1, 999, 2, 18, 9, 9],
        // Of two windows with the same start the second counts, as in the windows; in the minute both do.
        [0, 1, 0, minute + 999, 10, 42, 1, 8],
        [minute, 1, minute, minute + 1_000, 2, 8, 4, 4],
        [minute, 2, minute, minute + 1_000, 2, 10, 5, 5],
        [2 * minute, 1, 2 * minute, 2 * minute + 1_000, 2, 12, 6, 6],
    ];
    let found = rows(&bench.reader().await, sql).await;
    assert_eq!(found, expected.map(|row| row.map(Value::Integer).to_vec()));
}

/// The view's arithmetic is that of `sketch`.
#[tokio::test]
async fn quantiles_are_those_of_the_sketch() {
    let bench = Bench::new().await;
    let mut records = Vec::new();
    let mut kernels = Vec::new();
    for number in 0..60_u64 {
        let buckets: Vec<(u8, u64)> = (0..168_u8)
            .filter(|bucket| (u64::from(*bucket) * 7 + number * 13) % 11 == 0)
            .map(|bucket| (bucket, (u64::from(bucket) * number) % 97 + 1))
            .collect();
        kernels.push((format!("k{number:02}"), buckets));
    }
    for (name, buckets) in &kernels {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let work = Work::Kernels(KernelWindow {
            name: name.as_str().into(),
            start_ns: 1,
            end_ns: 2,
            count,
            total_ns: 0,
            min_ns: 0,
            max_ns: u64::MAX >> 1,
            buckets: buckets.clone(),
        });
        records.push(traced(1, 1, None, work));
    }
    bench.commit(1, records).await;
    let found = rows(
        &bench.reader().await,
        "SELECT p50_ns, p99_ns FROM kernels ORDER BY name",
    )
    .await;
    for ((name, buckets), row) in kernels.iter().zip(found) {
        let of = |share| number(sketch::quantile(buckets, share).expect("some"));
        assert_eq!(row, [of(0.5), of(0.99)], "{name}");
    }
}

#[tokio::test]
async fn copies_spans_allocations_allocators_and_signals() {
    let bench = Bench::new().await;
    let copies = |bytes| {
        Work::Copies(CopyWindow {
            direction: Direction::HostToDevice,
            start_ns: 1_000,
            end_ns: 2_000,
            count: 3,
            bytes,
            total_ns: 10,
        })
    };
    let span = Work::Span(KernelSpan {
        name: "gemm".into(),
        stream: 7,
        start_ns: 100,
        end_ns: 250,
    });
    let allocation = |operation, bytes| {
        Work::Allocation(Allocation {
            at_ns: 5,
            operation,
            kind: MemoryKind::Pool,
            address: 0x7f00_0000_0000,
            bytes,
        })
    };
    let mut pytorch = AllocatorSample::unknown(Level::PyTorch, "pytorch");
    (pytorch.reserved_bytes, pytorch.allocated_bytes) = (Some(100), Some(75));
    (pytorch.inactive_split_bytes, pytorch.segments) = (Some(10), Some(4));
    let signal = Work::Signal {
        signal: "agent.cost_ratio".into(),
        value: 0.004,
    };
    let gpu = Some("GPU-1");
    let mut driver = AllocatorSample::unknown(Level::Driver, "cupti");
    driver.rounding_bytes = Some(7);
    // What waited in a ring has a time of its own.
    let mut earlier = driver.clone();
    earlier.at_ns = Some(1);
    bench
        .commit(
            1,
            vec![
                traced(1, 7, gpu, copies(64)),
                traced(1, 8, gpu, copies(1)),
                traced(1, 7, gpu, span),
                // At one instant, and each counts.
                traced(1, 7, gpu, allocation(MemoryOperation::Alloc, Some(4_096))),
                traced(1, 7, gpu, allocation(MemoryOperation::Free, None)),
                traced(1, 7, gpu, allocation(MemoryOperation::Alloc, Some(4_096))),
                traced(1, 7, gpu, Work::Allocator(pytorch)),
                traced(1, 7, None, Work::Allocator(driver)),
                traced(1, 7, None, Work::Allocator(earlier)),
                traced(1, 7, None, signal),
            ],
        )
        .await;
    let reader = bench.reader().await;
    let shown = async |sql: &str| format!("{:?}", rows(&reader, sql).await);
    assert_eq!(
        shown("SELECT device, direction, count, bytes, total_ns FROM copies").await,
        r#"[[Text("GPU-1"), Text("htod"), Integer(6), Integer(65), Integer(20)]]"#
    );
    assert_eq!(shown("SELECT count(*) FROM copy_windows").await, "[[Integer(2)]]");
    assert_eq!(
        shown("SELECT run_id, pid, stream, name, start_ns, end_ns FROM kernel_spans").await,
        r#"[[Integer(1), Integer(7), Integer(7), Text("gemm"), Integer(100), Integer(250)]]"#
    );
    assert_eq!(
        shown("SELECT count(*) FROM kernels").await,
        "[[Integer(0)]]",
        "a span is no launch counted"
    );
    assert_eq!(
        shown("SELECT operation, kind, address, bytes, pid FROM allocations ORDER BY operation").await,
        r#"[[Text("alloc"), Text("pool"), Integer(139637976727552), Integer(4096), Integer(7)], [Text("alloc"), Text("pool"), Integer(139637976727552), Integer(4096), Integer(7)], [Text("free"), Text("pool"), Integer(139637976727552), Null, Integer(7)]]"#
    );
    assert_eq!(
        shown("SELECT device, level, slack_ratio, stuck_ratio, segments, source FROM allocator_samples ORDER BY level")
            .await,
        r#"[[Null, Text("driver"), Null, Null, Null, Text("cupti")], [Null, Text("driver"), Null, Null, Null, Text("cupti")], [Text("GPU-1"), Text("pytorch"), Real(0.25), Real(0.1), Integer(4), Text("pytorch")]]"#
    );
    assert_eq!(
        shown("SELECT rounding_bytes, largest_free_bytes, external_fragmentation_ratio FROM allocator_samples ORDER BY level").await,
        "[[Integer(7), Null, Null], [Integer(7), Null, Null], [Null, Null, Null]]"
    );
    assert_eq!(
        shown("SELECT at_ns FROM allocator_samples WHERE level = 'driver' ORDER BY at_ns").await,
        "[[Integer(1)], [Integer(1000000000)]]"
    );
    assert_eq!(
        shown("SELECT run_id, signal, value FROM engine_samples").await,
        r#"[[Integer(1), Text("agent.cost_ratio"), Real(0.004)]]"#
    );
}

#[tokio::test]
async fn sums_of_what_nobody_can_mean_stay_numbers() {
    let bench = Bench::new().await;
    let full = |name: &str, start_ns| {
        Work::Kernels(KernelWindow {
            name: name.into(),
            start_ns,
            end_ns: start_ns + 1_000,
            count: 1 << 40,
            total_ns: u64::MAX,
            min_ns: 1,
            max_ns: 1 << 54,
            buckets: (0..168).map(|bucket| (bucket, u64::MAX)).collect(),
        })
    };
    let copies = |start_ns| {
        Work::Copies(CopyWindow {
            direction: Direction::HostToDevice,
            start_ns,
            end_ns: start_ns + 1,
            count: u64::MAX,
            bytes: u64::MAX,
            total_ns: u64::MAX,
        })
    };
    bench
        .commit(0, vec![traced(1, 1, None, window("good", 0, 1, 9))])
        .await;
    for commit in 0..2_i64 {
        let mut records: Vec<Record> = (0..200)
            .map(|at| traced(2, 2, None, full("bad", commit * 200 + at)))
            .collect();
        records.extend((0..200).map(|at| traced(3 + commit, 2, None, full("once", at))));
        records.push(traced(2, 2, None, copies(commit)));
        bench.commit(commit, records).await;
    }
    let reader = bench.reader().await;
    for (sql, expected) in [
        (
            "SELECT name, typeof(count), typeof(total_ns), p50_ns > 0 FROM kernels WHERE run_id < 3 ORDER BY name",
            r#"[[Text("bad"), Text("integer"), Text("integer"), Integer(1)], [Text("good"), Text("integer"), Text("integer"), Integer(1)]]"#,
        ),
        (
            "SELECT sum(total_ns) > 0, sum(count) > 0, sum(p99_ns) > 0 FROM kernels",
            "[[Integer(1), Integer(1), Integer(1)]]",
        ),
        (
            "SELECT typeof(count), typeof(bytes), typeof(total_ns) FROM copies",
            r#"[[Text("integer"), Text("integer"), Text("integer")]]"#,
        ),
    ] {
        let rows = reader.query(sql, &[]).await.expect(sql).rows;
        assert_eq!(format!("{rows:?}"), expected, "{sql}");
    }
}

/// What is told on demand, and what follows from it: unknown where a part of it is.
#[tokio::test]
async fn the_largest_block_and_what_follows_from_it() {
    let bench = Bench::new().await;
    let told = |device, free_blocks_bytes, largest_free_bytes| {
        let sample = AllocatorSample {
            allocated_bytes: Some(60),
            requested_bytes: Some(50),
            active_bytes: Some(64),
            inactive_split_bytes: Some(16),
            reserved_bytes: Some(100),
            free_blocks_bytes,
            largest_free_bytes,
            ..AllocatorSample::unknown(Level::PyTorch, "pytorch")
        };
        traced(1, 7, device, Work::Allocator(sample))
    };
    let mut card = DeviceSample::unknown("GPU-1".into());
    card.free_bytes = Some(25);
    bench.commit(1, vec![Record::Device(card)]).await;
    bench
        .commit(
            2,
            vec![
                told(Some("GPU-1"), Some(40), Some(10)),
                told(Some("GPU-2"), Some(40), Some(10)),
                told(None, None, None),
            ],
        )
        .await;
    let reader = bench.reader().await;
    let found = rows(
        &reader,
        "SELECT device, rounding_bytes, reclaimable_bytes, external_fragmentation_ratio, largest_new_block_bytes
         FROM allocator_samples ORDER BY device",
    )
    .await;
    // Of the second device it is not known what is free on it; the third was not asked.
    assert_eq!(
        format!("{found:?}"),
        r#"[[Null, Integer(10), Integer(20), Null, Null], [Text("GPU-1"), Integer(10), Integer(20), Real(0.75), Integer(25)], [Text("GPU-2"), Integer(10), Integer(20), Real(0.75), Null]]"#
    );
}
