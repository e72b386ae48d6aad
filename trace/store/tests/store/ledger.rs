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

/// "10 peak 7: 90 = 80 + 10", with "?" for what is not known; a device has no pid.
async fn told(bench: &Bench) -> Vec<String> {
    let sql =
        "SELECT at_ns / 1000000000, moment, NULL, used_bytes, processes_bytes, unattributed_bytes FROM ledger
                   WHERE run_id = 1
               UNION ALL
               SELECT at_ns / 1000000000, moment, pid, used_bytes, allocated_bytes, unattributed_bytes
                   FROM process_ledger WHERE run_id = 1 ORDER BY 2 DESC, 3";
    let word = |value: &Value| match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        _ => "?".to_owned(),
    };
    let line = |row: Vec<Value>| {
        let words: Vec<String> = row.iter().map(word).collect();
        let [at, moment, pid, used, parts, rest] = words.as_slice() else {
            panic!("{words:?}");
        };
        format!("{at} {moment} {pid}: {used} = {parts} + {rest}")
    };
    rows(&bench.reader().await, sql)
        .await
        .into_iter()
        .map(line)
        .collect()
}

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
        told(&bench).await,
        [
            "10 peak ?: 300 = 340 + -40",
            "10 peak 7: 90 = 80 + 10",
            "10 peak 8: 250 = ? + ?",
            "20 end ?: 150 = 120 + 30",
            "20 end 7: 120 = 130 + -10",
        ]
    );
    let (text, number) = (|text: &str| Value::from(text), Value::Integer);
    let reader = bench.reader().await;
    let device =
        "SELECT device, unknown_processes, reserved_bytes, total_bytes FROM ledger WHERE moment = 'peak'";
    let wanted = [text("GPU-1"), number(0), number(5), number(1_000)];
    assert_eq!(rows(&reader, device).await, [wanted]);
    let processes = "SELECT process, owner_run_id FROM process_ledger WHERE moment = 'peak' ORDER BY pid";
    assert_eq!(
        rows(&reader, processes).await,
        [[text("p7"), number(1)], [text("p8"), Value::Null]]
    );
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
    let told = told(&bench).await;
    assert_eq!(
        told.last().map(String::as_str),
        Some("1 end 7: ? = ? + ?"),
        "{told:?}"
    );
    assert!(told.contains(&"1 peak ?: 110 = 0 + ?".to_owned()), "{told:?}");
}

/// Levels repeat after a minute, with the next flush, and that may be a minute later (`PLIMSOLL_FLUSH`).
#[tokio::test]
async fn a_level_holds_until_the_longest_flush_repeats_it() {
    let bench = Bench::new().await;
    let held = || vec![device(100), process(7, Some(1), Some(90))];
    bench
        .commit(0, [vec![run(1), allocated(7, 80)], held()].concat())
        .await;
    bench.commit(60, held()).await;
    bench.commit(119, held()).await;
    let told = told(&bench).await;
    assert_eq!(
        told.last().map(String::as_str),
        Some("119 end 7: 90 = 80 + 10"),
        "{told:?}"
    );
}
