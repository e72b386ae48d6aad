//! The loop without a driver: what comes in is handed in, event by event.

use plimsoll_collectors::{EngineProcesses, ProcessId};
use plimsoll_store::Store;
use plimsoll_trace::{DeviceSample, ProcessSample};

use super::*;
use crate::service::socket::Socket;
use crate::service::store_options;

fn table(at: Stamp, pid: Option<u32>) -> Event {
    let root = pid.map(|pid| ProcessId {
        pid,
        started_ticks: 1,
    });
    Event::Processes(ProcessTable {
        at,
        engines: vec![EngineProcesses {
            engine: "chat".to_owned(),
            root,
            command: root.map(|_| "serve".to_owned()),
            pids: pid.into_iter().collect(),
        }],
        exits: Vec::new(),
    })
}

fn sample(at: Stamp, pid: u32) -> Event {
    let process = ProcessSample {
        device: "GPU-a".into(),
        pid,
        run: None,
        used_bytes: Some(5),
        sm_busy_ratio: None,
        process: None,
        container: None,
    };
    let device = DeviceSample::unknown("GPU-a".into());
    Event::Batch(Batch {
        at,
        records: vec![Record::Device(device), Record::Process(process)],
    })
}

#[tokio::test]
async fn a_run_that_ended_leaves_no_signals_behind() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let text = format!(
        "[sampling]\nnvml_library = {:?}\n[engine.chat]\nprofile = \"custom\"\n",
        folder.path().join("no-driver.so")
    );
    let mut config = Config::parse(&text, Path::new("plimsoll.toml"))?;
    config.file = None;
    let path = folder.path().join("plimsoll.db");
    let store = Store::open(store_options(&config, &path)).await?;
    let (events, _queue) = mpsc::channel(16);
    let sources = Sources::spawn(&config, &events, store.writer())?;
    let door = Socket::bind(&folder.path().join("plimsoll.sock"), None)?.door();
    let mut pipeline = Pipeline::new(config, None, &path, store.writer(), sources, door, events).await?;

    let now = Stamp::now();
    pipeline.handle(table(now, Some(7)));
    let run = pipeline.runs.of_engine("chat").unwrap_or(RunId(0));
    pipeline.handle(sample(now, 7));
    let held = |pipeline: &Pipeline| pipeline.signals.run_bytes(run, now).map(|held| held.value);
    assert_eq!(held(&pipeline), Some(5.0));
    assert_eq!(pipeline.live.latest("chat").vram, Some((now, 5.0)));
    pipeline.handle(table(now, None));
    assert_eq!(held(&pipeline), None, "a value that never changes again");
    Ok(())
}
