//! The ledger of a device's memory: what adds up, what does not, and what is unknown.

use plimsoll_store::Value;
use plimsoll_trace::{
    AllocatorSample, DeviceSample, Level, ProcessSample, Record, RunEnd, RunId, RunOutcome, RunStart,
    TraceTier, Traced, Work,
};

use crate::{Bench, rows};

fn run(id: i64) -> Record {
    Record::RunStart(RunStart {
        id: RunId(id),
        name: "chat".to_owned(),
        engine: None,
        host: "box".to_owned(),
        pid: Some(7),
        process_key: None,
        command: None,
        trace_tier: TraceTier::Memory,
    })
}

fn device(used_bytes: u64) -> Record {
    let mut sample = DeviceSample::unknown("GPU-1".into());
    sample.used_bytes = Some(used_bytes);
    sample.reserved_bytes = Some(5);
    sample.total_bytes = Some(1_000);
    Record::Device(sample)
}

fn process(pid: u32, run: Option<i64>, used_bytes: Option<u64>) -> Record {
    Record::Process(ProcessSample {
        device: "GPU-1".into(),
        pid,
        run: run.map(RunId),
        used_bytes,
        sm_busy_ratio: None,
        process: Some(format!("p{pid}").as_str().into()),
        container: None,
    })
}

fn allocated(pid: u32, bytes: u64) -> Record {
    let mut sample = AllocatorSample::unknown(Level::Driver, "cupti");
    sample.allocated_bytes = Some(bytes);
    Record::Traced(Traced {
        pid,
        run: Some(RunId(1)),
        device: Some("GPU-1".into()),
        work: Work::Allocator(sample),
    })
}

/// "end process 7: 90 = 80 + 10", with "?" for what is not known.
async fn told(bench: &Bench, sql: &str) -> Vec<String> {
    let word = |value: &Value| match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        _ => "?".to_owned(),
    };
    let rows = rows(&bench.reader().await, sql).await;
    let line = |row: Vec<Value>| {
        let words: Vec<String> = row.iter().map(word).collect();
        let [at, moment, item, pid, used, parts, unknown, rest] = words.as_slice() else {
            panic!("{words:?}");
        };
        format!("{at} {moment} {item} {pid}: {used} = {parts} ({unknown} unknown) + {rest}")
    };
    rows.into_iter().map(line).collect()
}

const SQL: &str =
    "SELECT at_ns / 1000000000, moment, item, pid, used_bytes, parts_bytes, unknown_parts, unattributed_bytes
                   FROM ledger WHERE run_id = 1 ORDER BY moment DESC, item, pid";

#[tokio::test]
async fn the_peak_and_the_end_of_a_run() {
    let bench = Bench::new().await;
    bench
        .commit(
            0,
            vec![
                run(1),
                device(100),
                process(7, Some(1), Some(90)),
                allocated(7, 80),
            ],
        )
        .await;
    // Held since the first second: the row of the process holds on.
    bench
        .commit(
            10,
            vec![
                device(300),
                process(7, Some(1), Some(90)),
                process(8, None, Some(250)),
            ],
        )
        .await;
    bench
        .commit(
            20,
            vec![device(150), process(7, Some(1), Some(120)), allocated(7, 130)],
        )
        .await;
    bench.commit(21, vec![device(20)]).await;
    let end = Record::RunEnd(RunEnd {
        id: RunId(1),
        exit_code: Some(0),
        outcome: RunOutcome::Ok,
    });
    bench.commit(22, vec![device(999), end]).await;
    assert_eq!(
        told(&bench, SQL).await,
        [
            "10 peak device ?: 300 = 340 (0 unknown) + -40",
            "10 peak process 7: 90 = 80 (0 unknown) + 10",
            "10 peak process 8: 250 = ? (1 unknown) + ?",
            "20 end device ?: 150 = 120 (0 unknown) + 30",
            "20 end process 7: 120 = 130 (0 unknown) + -10",
        ]
    );
    let kept = rows(
        &bench.reader().await,
        "SELECT device, reserved_bytes, total_bytes, process, owner_run_id FROM ledger WHERE moment = 'peak' ORDER BY item, pid",
    )
    .await;
    let (text, number) = (|text: &str| Value::from(text), Value::Integer);
    assert_eq!(
        kept[0],
        [text("GPU-1"), number(5), number(1_000), Value::Null, Value::Null]
    );
    assert_eq!(kept[1][3..], [text("p7"), number(1)]);
    assert_eq!(kept[2][3..], [text("p8"), Value::Null]);
}

#[tokio::test]
async fn what_the_driver_does_not_say_is_no_zero() {
    let bench = Bench::new().await;
    bench
        .commit(0, vec![run(1), device(100), process(7, Some(1), None)])
        .await;
    bench
        .commit(1, vec![device(110), process(7, Some(1), None)])
        .await;
    let told = told(&bench, SQL).await;
    assert_eq!(
        told.last().map(String::as_str),
        Some("1 end process 7: ? = ? (1 unknown) + ?"),
        "{told:?}"
    );
    assert!(
        told.contains(&"1 peak device ?: 110 = 0 (1 unknown) + ?".to_owned()),
        "{told:?}"
    );
}
