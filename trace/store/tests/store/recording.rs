//! A recording as the rules saw it.

use std::sync::Arc;

use plimsoll_trace::{
    Batch, DeviceSample, EngineSample, HostSample, LadderMark, MarkKind, ProcessSample, Record, RunId, Stamp,
};

use crate::{Bench, rows};

fn device(used_bytes: u64) -> Record {
    Record::Device(DeviceSample {
        used_bytes: Some(used_bytes),
        total_bytes: Some(100),
        gpu_busy_ratio: Some(0.37),
        ..DeviceSample::unknown("GPU-a".into())
    })
}

fn process(pid: u32, used_bytes: u64) -> Record {
    Record::Process(ProcessSample {
        device: "GPU-a".into(),
        pid,
        run: Some(RunId(1)),
        used_bytes: Some(used_bytes),
        sm_busy_ratio: None,
        process: None,
        container: None,
    })
}

fn mark(at_secs: i64, kind: MarkKind, rules: &str) -> Record {
    Record::LadderMark(LadderMark {
        engine: "chat".to_owned(),
        at_ns: Stamp::at_secs(at_secs).unix_ns,
        kind,
        rules_hash: format!("hash of {rules}"),
        rules: Arc::from(rules),
        max_age_ns: 10,
        run: Some(RunId(1)),
        devices: vec!["GPU-a".into()],
        state: "{}".to_owned(),
    })
}

async fn played(bench: &Bench, from_secs: i64, to_secs: i64) -> Vec<Batch> {
    let ns = |secs| Stamp::at_secs(secs).unix_ns;
    let mut playback = bench
        .reader()
        .await
        .play(ns(from_secs), ns(to_secs))
        .await
        .expect("playable");
    let mut all = Vec::new();
    while let Some(batches) = playback.next().await.expect("readable") {
        all.extend(batches);
    }
    all
}

#[tokio::test]
async fn each_reading_lists_who_is_there_though_rows_are_of_changes() {
    let bench = Bench::new().await;
    // Over more than one stretch that is read at once.
    let begin = 7_200;
    for second in 0..4 {
        let at = begin + second * 3_000;
        let mut records = vec![device(50), process(7, 30)];
        if second < 2 {
            records.push(process(8, 10));
        }
        bench.commit(at, records).await;
        bench
            .commit(at + 1, vec![Record::Host(HostSample::default())])
            .await;
    }
    let batches = played(&bench, begin, begin + 20_000).await;
    let at: Vec<i64> = batches
        .iter()
        .map(|batch| batch.at.unix_ns / 1_000_000_000 - begin)
        .collect();
    assert_eq!(at, [0, 1, 3_000, 3_001, 6_000, 6_001, 9_000, 9_001]);
    let listed: Vec<usize> = batches
        .iter()
        .filter(|batch| batch.records.len() > 1)
        .map(|batch| batch.records.len() - 1)
        .collect();
    assert_eq!(listed, [2, 2, 1, 1]);
    let Some(Record::Device(sample)) = batches[0].records.first() else {
        panic!("{:?}", batches[0]);
    };
    assert_eq!((sample.used_bytes, sample.gpu_busy_ratio), (Some(50), Some(0.37)));
    // From the middle it is known who was there before.
    assert_eq!(played(&bench, begin + 10, begin + 40).await, []);
    bench
        .commit(begin + 9_030, vec![device(51), process(7, 30)])
        .await;
    let later = played(&bench, begin + 9_010, begin + 9_040).await;
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].records.len(), 2, "its last row is half a minute old");
}

#[tokio::test]
async fn values_of_engines_come_with_their_signals() {
    let bench = Bench::new().await;
    let sample = EngineSample {
        run: RunId(1),
        signal: "engine.kv_used_ratio".into(),
        value: 0.1 + 0.2,
    };
    bench.commit(5, vec![Record::Engine(sample.clone())]).await;
    let batches = played(&bench, 0, 10).await;
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].records, [Record::Engine(sample)]);
    assert_eq!(batches[0].at, Stamp::at_secs(5));
}

#[tokio::test]
async fn marks_come_in_order_with_their_rules() {
    let bench = Bench::new().await;
    bench
        .commit(
            9,
            vec![
                mark(5, MarkKind::Start, "one"),
                mark(7, MarkKind::Change, "one"),
                mark(7, MarkKind::Instead, "two"),
            ],
        )
        .await;
    let reader = bench.reader().await;
    let ns = |secs| Stamp::at_secs(secs).unix_ns;
    let marks = reader.ladder_marks("chat", ns(6), ns(9)).await.expect("readable");
    let kinds: Vec<MarkKind> = marks.iter().map(|mark| mark.kind).collect();
    assert_eq!(kinds, [MarkKind::Change, MarkKind::Instead]);
    assert_eq!(marks[0].devices, ["GPU-a".into()]);
    assert_eq!(
        reader.rule_set("hash of two").await.expect("readable").as_deref(),
        Some("two")
    );
    assert_eq!(reader.rule_set("none").await.expect("readable"), None);
    assert_eq!(
        reader.ladder_mark_before("chat", ns(6)).await.expect("readable"),
        Some(ns(5))
    );
    assert_eq!(
        reader.ladder_mark_before("chat", ns(4)).await.expect("readable"),
        None
    );
    assert_eq!(
        reader.ladder_mark_before("other", ns(9)).await.expect("readable"),
        None
    );
}

#[tokio::test]
async fn marks_are_bounded_and_their_rules_go_with_them() {
    let bench = Bench::new().await;
    bench.commit(1, vec![mark(1, MarkKind::Start, "old")]).await;
    let many = (0..4_000).map(|_| mark(2, MarkKind::Change, "new")).collect();
    bench.commit(2, many).await;
    bench.commit(3, vec![mark(3, MarkKind::Start, "new")]).await;
    let reader = bench.reader().await;
    let sets = rows(&reader, "SELECT rules FROM rule_sets").await;
    assert_eq!(sets, [["new".into()]]);
    let count = rows(&reader, "SELECT count(*) FROM ladder_marks").await;
    assert_eq!(count, [[4_000.into()]]);
}
