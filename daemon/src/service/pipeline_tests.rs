//! The loop without a driver: what comes in is handed in, event by event.

use plimsoll_collectors::{AgentId, Arrival, EngineProcesses, Exit, Lookout, ProcessId, lineage};
use plimsoll_store::{Store, Value};
use plimsoll_trace::{DeviceSample, ProcessSample};

use super::*;
use crate::service::runs::watch_name;
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

/// A loop whose events nobody takes; its folder and store live as long as the caller keeps them.
async fn pipeline() -> anyhow::Result<(Pipeline, tempfile::TempDir, Store)> {
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
    let pipeline = Pipeline::new(config, None, &path, store.writer(), sources, door, events).await?;
    Ok((pipeline, folder, store))
}

/// An agent that connects. This process is the program that it is in.
fn arrival(agent: u64, lineage: Vec<ProcessId>) -> Arrival {
    let root = lineage.first().copied();
    Arrival {
        agent: AgentId(agent),
        pid: Some(lineage.first().map_or(1 << 23, |process| process.pid)),
        uid: 1000,
        root,
        lookout: root.map(Lookout::new),
        lineage,
        executable: Some("/opt/serve".to_owned()),
        command: Some("serve".to_owned()),
    }
}

impl Pipeline {
    fn hears(&mut self, report: AgentReport) {
        self.handle(Event::Agents(report, oneshot::channel().0));
    }
}

/// A table that says nothing but who ended.
fn ends(at: Stamp, exits: Vec<Exit>) -> Event {
    Event::Processes(ProcessTable {
        at,
        engines: Vec::new(),
        exits,
    })
}

#[tokio::test]
async fn a_run_goes_on_while_its_program_does_and_ends_with_its_status() -> anyhow::Result<()> {
    let (mut pipeline, folder, _store) = pipeline().await?;
    let own = lineage(std::process::id());
    let root = own[0];
    let later = |secs| Stamp::now().plus(Duration::from_secs(secs));
    pipeline.hears(AgentReport::Arrived(arrival(1, own.clone())));
    pipeline.place_agents(later(5));
    let run = pipeline.runs.of_pid(root.pid).expect("a run of its own");
    // Its worker is started again, once soon and once after a while.
    pipeline.hears(AgentReport::Left(AgentId(1)));
    pipeline.handle(ends(later(20), Vec::new()));
    assert_eq!(pipeline.runs.of_pid(root.pid), Some(run), "it goes on");
    pipeline.hears(AgentReport::Arrived(arrival(2, own.clone())));
    pipeline.handle(ends(later(100), Vec::new()));
    assert_eq!(pipeline.runs.of_pid(root.pid), Some(run), "it has an agent again");
    pipeline.hears(AgentReport::Left(AgentId(2)));
    pipeline.handle(ends(later(100), Vec::new()));
    assert_eq!(
        pipeline.runs.of_pid(root.pid),
        None,
        "it was without one for long"
    );
    pipeline.hears(AgentReport::Arrived(arrival(3, own)));
    pipeline.place_agents(later(5));
    let next = pipeline.runs.of_pid(root.pid).expect("another run");
    assert_ne!(next, run);
    // The exit may be seen before the agent's end is.
    let exit = Exit {
        engine: watch_name(next),
        process: root,
        exit_code: Some(3),
        hint: None,
    };
    pipeline.handle(ends(later(1), vec![exit]));
    assert_eq!(pipeline.runs.of_pid(root.pid), Some(next), "not all is read");
    pipeline.hears(AgentReport::Left(AgentId(3)));
    assert_eq!(pipeline.runs.of_pid(root.pid), None);

    pipeline.writer.commit(Batch::new(Stamp::now())).await?;
    let reader = Reader::open(&folder.path().join("plimsoll.db")).await?;
    let rows = reader
        .query(
            "SELECT outcome, exit_code, started_ns, ended_ns FROM runs ORDER BY id",
            &[],
        )
        .await?
        .rows;
    let began = root.began(Stamp::now()).unix_ns;
    assert_eq!(rows.len(), 2);
    for (row, (outcome, code)) in rows.iter().zip([("lost", None), ("failed", Some(3))]) {
        assert_eq!(row[0], Value::from(outcome));
        assert_eq!(row[1], code.map_or(Value::Null, Value::Integer));
    }
    let Value::Integer(started) = rows[0][2] else {
        panic!("{rows:?}")
    };
    assert!((started - began).abs() < 500_000_000, "it began with its program");
    assert_eq!(
        rows[1][2], rows[0][3],
        "the second began when the first had ended"
    );
    Ok(())
}

#[tokio::test]
async fn who_is_gone_belongs_to_the_only_command_of_the_same_user() -> anyhow::Result<()> {
    let (mut pipeline, _folder, _store) = pipeline().await?;
    let command = |uid| Command {
        id: RunId(77),
        name: "job".to_owned(),
        pid: 1 << 24,
        uid,
    };
    let gone = |agent| arrival(agent, Vec::new());
    let pid = gone(0).pid.unwrap_or(0);
    pipeline.commands.insert(1, command(1000));
    pipeline.hears(AgentReport::Arrived(gone(1)));
    pipeline.place_agents(Stamp::now().plus(Duration::from_secs(5)));
    assert_eq!(pipeline.runs.of_pid(pid), None, "it is the command's");
    pipeline.commands.insert(1, command(1001));
    pipeline.hears(AgentReport::Arrived(gone(2)));
    pipeline.place_agents(Stamp::now().plus(Duration::from_secs(5)));
    assert!(pipeline.runs.of_pid(pid).is_some(), "it is a run of its own");
    Ok(())
}

#[tokio::test]
async fn a_run_that_ended_leaves_no_signals_behind() -> anyhow::Result<()> {
    let (mut pipeline, _folder, _store) = pipeline().await?;

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
