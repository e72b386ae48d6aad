//! The one loop over one closed enum of events. Samples come in, are stored and shown to the rules; what the rules want
//! goes to a thread that acts; what it reports comes back in.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_collectors::{AgentDesk, AgentReport, Match, MetricsReport, ProcessTable, Watch as Watched};
use plimsoll_store::{Reader, Unfinished, Writer};
use plimsoll_trace::{Batch, EngineSample, Loss, Record, RunId, RunOutcome, Stamp};
use plimsoll_tuner::act::{self, Live, ProcessRef};
use plimsoll_tuner::{Engine, EngineView, Host, Intake, Readings, Signals, Spent};
use tokio::sync::{mpsc, oneshot};

use super::agents::Attached;
use super::allocator::Heard;
use super::control::Control;
use super::orders::Ordered;
use super::pace::Pace;
use super::remember::remembering;
use super::restarts::Restarts;
use super::runs::{Runs, watch_name};
use super::snapshot::Snapshots;
use super::socket::Door;
use super::status::Status;
use super::tell::Told;
use super::watch::Watch;
use super::{Sources, watches};
use crate::config::Config;

/// How long an action under way may hold up a graceful end.
const GRACE: Duration = Duration::from_secs(30);
/// How long engines whose rungs are let go at the end may take to serve again: below the 90 s after which systemd kills.
const RESTORES: Duration = Duration::from_secs(50);
/// Samples are taken this often at least while it does.
const HURRY: Duration = Duration::from_secs(1);

/// Everything that can happen.
pub(crate) enum Event {
    /// A collector read something.
    Batch(Batch),
    /// Who is running was looked at.
    Processes(ProcessTable),
    /// An engine's metrics were read, or could not be.
    Metrics(MetricsReport),
    /// An engine serves with what a rule changed; the effect is awaited.
    Applied(String, String),
    /// An action ended.
    Report(act::Report),
    /// A watched file has another content.
    FileChanged(PathBuf),
    /// Something of agents; whoever tells it waits until it is taken in.
    Agents(AgentReport, oneshot::Sender<()>),
    /// Somebody asks something.
    Control(Control),
    /// Who was asked to measure allocators has had time enough.
    SnapshotDue(u64),
    /// Agents that were told something have had time enough.
    ToldDue(u64),
    /// A command of `plimsoll run` ended, and what its agents told before that is taken in.
    CommandEnded(Ended),
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGTERM or SIGINT.
    Stop,
}

/// A command of `plimsoll run`.
pub(super) struct Command {
    pub(super) id: RunId,
    pub(super) name: String,
    pub(super) pid: u32,
    /// Whose it is.
    pub(super) uid: u32,
}

/// The end of a command.
pub(crate) struct Ended {
    pub(super) connection: u64,
    pub(super) exit_code: i32,
    pub(super) at: Stamp,
    pub(super) answer: oneshot::Sender<serde_json::Value>,
}

/// The state of the loop.
pub(crate) struct Pipeline {
    pub(super) config: Config,
    pub(super) named: Option<PathBuf>,
    pub(super) writer: Writer,
    sources: Sources,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) runs: Runs,
    restarts: Restarts,
    pub(super) signals: Signals,
    pub(super) engines: Vec<Engine>,
    /// What was known of engines that are not configured now, should they come back.
    pub(super) memos: HashMap<String, String>,
    /// Decisions of a former daemon, by engine, that wait until it is known who runs.
    pub(super) unfinished: HashMap<String, Vec<Unfinished>>,
    pub(super) live: Arc<Live>,
    /// The configuration is to be read again as soon as no action is under way.
    pub(super) edited: bool,
    /// The daemon is ending: nothing new is begun.
    stopping: bool,
    pub(super) status: Status,
    /// Brings samples to the rules in an order that a recording can repeat.
    intake: Intake,
    /// How often samples are taken.
    pub(super) pace: Pace,
    /// Commands of `plimsoll run`, by the connections that began them.
    pub(super) commands: HashMap<u64, Command>,
    pub(super) attached: Attached,
    pub(super) agents: AgentDesk,
    pub(super) door: Door,
    /// When each allocator last reported.
    pub(super) heard: Heard,
    pub(super) snapshots: Snapshots,
    pub(super) told: Told,
    /// Who waits for the end of what they ordered.
    pub(super) ordered: Vec<Ordered>,
    watch: Option<Watch>,
}

impl Pipeline {
    pub(crate) async fn new(
        config: Config,
        named: Option<PathBuf>,
        store: &Path,
        writer: Writer,
        sources: Sources,
        door: Door,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let reader = Reader::open(store).await?;
        let mut memos: HashMap<String, String> = reader
            .memos()
            .await?
            .into_iter()
            .map(|memo| (memo.engine, memo.state))
            .collect();
        let mut unfinished: HashMap<String, Vec<Unfinished>> = HashMap::new();
        for left in reader.unfinished().await? {
            unfinished
                .entry(left.decision.engine.clone())
                .or_default()
                .push(left);
        }
        let runs = Runs::new(host_name(), boot_id(), reader.open_runs().await?);
        let an_hour_ago = Stamp::now().unix_ns.saturating_sub(3_600_000_000_000);
        let restarts = Restarts::new(reader.restarts(an_hour_ago).await?);
        let (engines, moved) = remembering(&config, &mut memos, |_| false);
        let mut signals = Signals::new(config.sampling.interval.0);
        signals.watch(engines.iter().map(Engine::ladder));
        let pace = Pace::new(config.sampling.interval.0, config.sampling.burst.0, Stamp::now());
        let mut pipeline = Self {
            config,
            named,
            writer,
            agents: sources.agents(),
            sources,
            events,
            runs,
            restarts,
            signals,
            engines,
            memos,
            unfinished,
            live: Arc::default(),
            edited: false,
            stopping: false,
            status: Status::new(Stamp::now()),
            intake: Intake::default(),
            pace,
            commands: HashMap::new(),
            attached: Attached::default(),
            door,
            heard: Heard::new(),
            snapshots: Snapshots::default(),
            told: Told::default(),
            ordered: Vec::new(),
            watch: None,
        };
        pipeline.live.set_interval(pipeline.config.sampling.interval.0);
        pipeline.store(moved);
        pipeline.watch_files();
        pipeline.abandon_unknown();
        pipeline.clean_leftovers();
        pipeline.take_up(reader.proposals().await?);
        for index in 0..pipeline.engines.len() {
            let (engine, now) = (&mut pipeline.engines[index], Stamp::now());
            if !pipeline.unfinished.contains_key(engine.name()) {
                engine.settle(now);
            }
            // What a person wrote while no daemon ran is noticed before any rule is looked at.
            let records = engine.file_changed(now);
            pipeline.store(records);
        }
        Ok(pipeline)
    }

    /// Where events go in.
    pub(crate) fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Runs until told to stop; then waits, within reason, for the action under way.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Event>) {
        self.sources.set_interval(self.config.sampling.interval.0);
        loop {
            match queue.recv().await {
                None | Some(Event::Stop) => break,
                Some(Event::Hangup) => self.edited = true,
                Some(Event::FileChanged(path)) if Some(&path) == self.config.file.as_ref() => {
                    self.edited = true
                }
                Some(event) => self.handle(event),
            }
            // An action is carried out under the configuration that it was decided under.
            if self.edited && !self.is_acting() {
                self.edited = false;
                self.reconfigure();
                let (slow, fast) = (self.config.sampling.interval.0, self.config.sampling.burst.0);
                self.pace = Pace::new(slow, fast, Stamp::now());
                self.sources.set_interval(slow);
            }
        }
        self.drain(&mut queue).await;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => self.take_batch(batch),
            Event::Processes(table) => self.take_table(&table),
            Event::Metrics(report) => self.take_metrics(report),
            Event::Applied(engine, rule) => self.take_applied(&engine, &rule),
            Event::Report(report) => self.take_report(&report),
            Event::FileChanged(path) => self.take_edit(&path),
            Event::Agents(report, taken) => {
                self.take_report_of_agents(report);
                // Whoever told it is gone only after a panic.
                taken.send(()).ok();
            }
            Event::ToldDue(number) => self.told_due(number),
            Event::SnapshotDue(number) => self.snapshot_due(number),
            Event::CommandEnded(ended) => self.take_end(ended),
            Event::Control(Control::Call(call)) => self.answer(call),
            Event::Control(Control::Closed(connection)) => self.hung_up(connection),
            Event::Hangup | Event::Stop => {}
        }
    }

    pub(super) fn take_batch(&mut self, mut batch: Batch) {
        self.runs.label(&mut batch);
        let is_time = self.intake.take(&mut self.signals, &batch);
        self.status.update(&batch);
        let at = batch.at;
        self.show_memory(at);
        self.writer.append(batch);
        if is_time {
            self.decide(at);
        }
    }

    /// Stores what an engine says of itself, in its run, and shows it to the rules and to the action under way.
    fn take_metrics(&mut self, report: MetricsReport) {
        let mut batch = Batch::new(report.at);
        let run = self.runs.of_engine(&report.engine);
        if let Some(run) = run {
            let sample = |(signal, value)| Record::Engine(EngineSample { run, signal, value });
            batch.records.extend(report.signals.into_iter().map(sample));
        }
        if report.missed > 0 {
            let loss = Loss::new("metrics", "collector_busy", report.missed).in_run(run);
            batch.records.push(Record::Loss(loss));
        }
        if let Some(figures) = report.figures {
            self.live.add_figures(&report.engine, figures);
        }
        if !batch.records.is_empty() {
            self.take_batch(batch);
        }
    }

    /// Shows the actions under way what their engines hold now. What is unknown shows nothing new.
    fn show_memory(&self, now: Stamp) {
        for engine in &self.engines {
            let run = self.runs.of_engine(engine.name());
            if let Some(held) = run.and_then(|run| self.signals.run_bytes(run, now)) {
                self.live
                    .update(engine.name(), |latest| latest.vram = Some((held.at, held.value)));
            }
        }
    }

    /// Shows every engine's rules what is known now, and sets what they want in motion.
    fn decide(&mut self, now: Stamp) {
        if self.stopping || self.edited {
            let passed_over = |engine: &mut Engine| engine.passed_over(now);
            let marks = self.engines.iter_mut().flat_map(passed_over).collect();
            self.store(marks);
            return;
        }
        let mut soonest: Option<Duration> = None;
        for index in 0..self.engines.len() {
            let engine = &self.engines[index];
            let (readings, run) = (self.readings(engine, now), self.runs.of_engine(engine.name()));
            let writer = &self.writer;
            let ids = || (writer.next_decision_id(), writer.next_change_id());
            let step = self.engines[index].tick(&readings, run, now, ids);
            let crossing = self.engines[index].soonest_crossing(&readings, now);
            soonest = soonest.into_iter().chain(crossing).min();
            self.store(step.records);
            if let Some(order) = step.order
                && !self.act(move |live, journal| act::carry_out(order, live, journal))
            {
                let memo = self.engines[index].not_begun(now);
                self.store(vec![memo]);
            }
        }
        if let Some(interval) = self.pace.next(soonest, now) {
            tracing::debug!(?interval, "samples are taken at another pace");
            self.sources.set_pace(interval);
        }
    }

    /// What an engine's rules see now.
    pub(super) fn readings(&self, engine: &Engine, now: Stamp) -> Readings {
        let view = self.view(engine.name());
        let mut readings = self.signals.readings(engine.ladder(), &view, now);
        readings.set_host(self.host(engine.name()));
        readings
    }

    /// The host's limits, and what changes of all other engines have taken of them.
    pub(super) fn host(&self, engine: &str) -> Host {
        let others = self.engines.iter().filter(|other| other.name() != engine);
        Host {
            limits: self.config.limits.clone(),
            others: others.fold(Spent::default(), |sum, other| sum.and(&other.spent())),
        }
    }

    fn view(&self, engine: &str) -> EngineView {
        let run = self.runs.of_engine(engine);
        EngineView {
            run,
            devices: run.map(|run| self.runs.devices(run)).unwrap_or_default(),
        }
    }

    fn take_table(&mut self, table: &ProcessTable) {
        let writer = self.writer.clone();
        let runs: Vec<Option<RunId>> = self
            .engines
            .iter()
            .map(|engine| self.runs.of_engine(engine.name()))
            .collect();
        let mut records = self.runs.follow(table, || writer.next_run_id());
        let died = |run: &RunId| {
            let is_that = |record: &Record| matches!(record, Record::RunEnd(end) if end.id == *run && end.outcome == RunOutcome::OutOfMemory);
            records.iter().any(is_that)
        };
        let died: Vec<bool> = runs.iter().map(|run| run.as_ref().is_some_and(died)).collect();
        for (engine, _) in self.engines.iter_mut().zip(died).filter(|(_, died)| *died) {
            records.extend(engine.ran_out_of_memory(table.at));
        }
        self.restarts.follow(&records, table.at);
        self.store(records);
        self.tell_restarts(table.at);
        self.follow_own(table);
        self.place_agents(table.at);
        for engine in &table.engines {
            let root = engine.root.map(|root| ProcessRef {
                pid: root.pid,
                started_ticks: root.started_ticks,
            });
            self.live.update(&engine.engine, |latest| latest.root = root);
        }
        // Also of engines whose processes nobody looks for.
        let waiting: Vec<String> = self.unfinished.keys().cloned().collect();
        waiting.iter().for_each(|engine| self.recover(engine));
    }

    /// Shows the rules how often their engines were restarted.
    fn tell_restarts(&mut self, at: Stamp) {
        let mut batch = Batch::new(at);
        for engine in &self.engines {
            let run = self.runs.of_engine(engine.name());
            let sample = run.and_then(|run| self.restarts.sample(engine.name(), run, at));
            batch.records.extend(sample);
        }
        if !batch.records.is_empty() {
            self.take_batch(batch);
        }
    }

    pub(super) fn is_acting(&self) -> bool {
        self.engines.iter().any(Engine::is_acting)
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn take_edit(&mut self, path: &Path) {
        let edited = self.engines.iter_mut().find(|engine| engine.file() == Some(path));
        if let Some(engine) = edited {
            let records = engine.file_changed(Stamp::now());
            self.store(records);
        }
    }

    /// Tells the collector whose processes to look for: the engines' and the commands'.
    pub(super) fn watch_processes(&mut self) {
        let mut all = watches(&self.config);
        let watch = |command: &Command| Watched {
            engine: watch_name(command.id),
            matcher: Match::Process(command.pid),
        };
        let commands = self.commands.values().chain(self.attached.commands());
        all.extend(commands.filter(|command| command.pid > 0).map(watch));
        self.sources.set_watches(all);
    }

    /// Tells the collector whose metrics to read.
    pub(super) fn watch_metrics(&self) {
        self.sources.set_metrics(self.config.metrics());
    }

    pub(super) fn watch_files(&mut self) {
        let engines = self.engines.iter().filter_map(Engine::file).map(Path::to_owned);
        let files: BTreeSet<PathBuf> = engines.chain(self.config.file.clone()).collect();
        let events = self.events.clone();
        self.watch = Some(Watch::start(&files, move |path| {
            // A full queue: the edit is noticed at the next change or start; the hash is checked before any write anyway.
            if events.try_send(Event::FileChanged(path)).is_err() {
                tracing::warn!("the notice of an edit was lost");
            }
        }));
    }

    /// Stores what the daemon itself has to say. The signals hear of it too: with its end, a run's values go.
    pub(super) fn store(&mut self, records: Vec<Record>) {
        self.store_of(Stamp::now(), records);
    }

    /// Stores what is known now of an instant that has passed.
    pub(super) fn store_of(&mut self, at: Stamp, records: Vec<Record>) {
        if !records.is_empty() {
            let batch = Batch { at, records };
            self.intake.take(&mut self.signals, &batch);
            self.writer.append(batch);
        }
    }

    /// After the word to stop: nothing new is begun, but an action under way may end, so that it is not left to recovery.
    /// It may wait for samples.
    async fn drain(mut self, queue: &mut mpsc::Receiver<Event>) {
        self.watch = None;
        self.stopping = true;
        self.sources
            .set_interval(self.config.sampling.interval.0.min(HURRY));
        if self.is_acting() {
            tracing::info!("waiting for the action under way");
            self.wait_for_actions(queue, GRACE).await;
        }
        if self.restore_engines() {
            self.wait_for_actions(queue, RESTORES).await;
        }

        // What agents have written is read to its end.
        self.place_agents(Stamp::now());
        let mut flushed = self.flush_agents(true);
        loop {
            tokio::select! {
                biased;
                Some(event) = queue.recv() => self.handle(event),
                _ = &mut flushed => break,
            }
        }
        // What the collectors had delivered already is stored too; nobody waits for an answer any more.
        queue.close();
        while let Some(event) = queue.recv().await {
            self.handle(event);
        }
        // Agents' rings are told what is stored before they are let go of. What cannot be stored is said at the store's end.
        self.writer.commit(Batch::new(Stamp::now())).await.ok();
    }

    /// Goes on until no action is under way, for `grace` at most.
    async fn wait_for_actions(&mut self, queue: &mut mpsc::Receiver<Event>, grace: Duration) {
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        while self.is_acting() {
            let event = tokio::select! {
                biased;
                () = &mut deadline => None,
                event = queue.recv() => event,
            };
            let Some(event) = event else {
                tracing::warn!("the action under way did not end in time; the next start resolves it");
                return;
            };
            self.handle(event);
        }
    }
}

/// The kernel's number of this life of the machine (random(4)); empty when it cannot be read.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
