//! Runs: which processes belong to which, when they began, and how they ended.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use plimsoll_collectors::{EngineProcesses, ExitHint, ProcessId, ProcessTable, command_of};
use plimsoll_store::OpenRun;
use plimsoll_trace::{
    Batch, DeviceId, Event, EventKind, Record, RunEnd, RunId, RunOutcome, RunStart, Stamp, TraceTier,
};
use serde_json::json;

use super::secrets::without_secrets;

/// A device this full shortly before a process failed makes want of memory the likely cause.
const FULL_RATIO: f64 = 0.90;
/// How long the agents of a former daemon's command may take to come back.
const RETURN: Duration = Duration::from_secs(60);
/// How long before the end counts as shortly.
const SHORTLY: Duration = Duration::from_secs(10);
/// A device on which a run holds nothing for this long, though it does on another, is none of the run's any more.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The loss by which a batch says that the processes of one of its devices could not be listed.
const LIST_FAILED: &str = "processes_failed";

/// The runs that are under way.
pub(crate) struct Runs {
    host: String,
    /// Which life of the machine this is; empty when the kernel does not say.
    boot: String,
    engines: HashMap<String, Open>,
    /// Commands of `plimsoll run`, by their watches' names.
    commands: HashMap<String, RunId>,
    by_pid: HashMap<u32, RunId>,
    /// How the runs under way began, for what becomes known of them later.
    starts: HashMap<RunId, RunStart>,
    devices: HashMap<RunId, HashMap<DeviceId, Presence>>,
    fullness: HashMap<DeviceId, VecDeque<(Stamp, f64)>>,
    /// Runs that the store says are under way, from before this daemon began.
    inherited: Vec<OpenRun>,
    /// When processes were first looked at.
    began: Option<Stamp>,
}

/// A run on a device.
struct Presence {
    seen: Stamp,
    /// Since when the device is read and the run is not there.
    missing: Option<Stamp>,
}

struct Open {
    id: RunId,
    process: ProcessId,
}

/// What is known of an end.
struct Ending<'a> {
    name: &'a str,
    pid: Option<u32>,
    exit_code: Option<i32>,
    hint: Option<ExitHint>,
}

impl Runs {
    pub(crate) fn new(host: String, boot: String, inherited: Vec<OpenRun>) -> Self {
        Self {
            host,
            boot,
            engines: HashMap::new(),
            commands: HashMap::new(),
            by_pid: HashMap::new(),
            starts: HashMap::new(),
            devices: HashMap::new(),
            fullness: HashMap::new(),
            inherited,
            began: None,
        }
    }

    /// The run of an engine that is running.
    pub(crate) fn of_engine(&self, engine: &str) -> Option<RunId> {
        self.engines.get(engine).map(|open| open.id)
    }

    /// The name of a run that goes on.
    pub(crate) fn name(&self, run: RunId) -> Option<&str> {
        self.starts.get(&run).map(|start| &*start.name)
    }

    /// The run that a process was last seen to belong to.
    pub(crate) fn of_pid(&self, pid: u32) -> Option<RunId> {
        self.by_pid.get(&pid).copied()
    }

    /// The run of the first of these processes that has one.
    pub(crate) fn of_lineage(&self, lineage: &[ProcessId]) -> Option<RunId> {
        let engine = |process: &ProcessId| self.engines.values().find(|open| open.process == *process);
        lineage.iter().find_map(|process| {
            engine(process)
                .map(|open| open.id)
                .or_else(|| self.of_pid(process.pid))
        })
    }

    /// Takes in that an agent in a run records so much; answers with the run's row if that is more than was known.
    pub(crate) fn traced(&mut self, run: RunId, tier: TraceTier) -> Option<Record> {
        let start = self
            .starts
            .get_mut(&run)
            .filter(|start| start.trace_tier < tier)?;
        start.trace_tier = tier;
        Some(Record::RunStart(start.clone()))
    }

    /// The root process of an engine that is running.
    pub(crate) fn root(&self, engine: &str) -> Option<ProcessId> {
        self.engines.get(engine).map(|open| open.process)
    }

    /// The engines that run, for `plimsoll status`.
    pub(crate) fn running(&self) -> Vec<serde_json::Value> {
        let mut engines: Vec<_> = self.engines.iter().collect();
        engines.sort_by_key(|(name, _)| name.as_str());
        let show = |(name, open): (&String, &Open)| json!({ "engine": name, "run": open.id.0, "pid": open.process.pid });
        engines.into_iter().map(show).collect()
    }

    /// The devices on which a run has been seen to hold memory.
    pub(crate) fn devices(&self, run: RunId) -> Vec<DeviceId> {
        self.devices
            .get(&run)
            .map(|devices| devices.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Takes in who is there now; answers with the starts and ends that follow from it.
    pub(crate) fn follow(&mut self, table: &ProcessTable, next_id: impl Fn() -> RunId) -> Vec<Record> {
        let mut records = Vec::new();
        for exit in &table.exits {
            self.ended(
                &exit.engine,
                exit.process,
                exit.exit_code,
                exit.hint,
                table.at,
                &mut records,
            );
        }
        for engine in &table.engines {
            if self.commands.contains_key(&engine.engine) {
                continue;
            }
            // A command that has ended since the table was made; its process may be about to.
            if engine.engine.contains('/') {
                continue;
            }
            match (self.root(&engine.engine), engine.root) {
                (Some(known), Some(now)) if known == now => {}
                (known, now) => {
                    if let Some(known) = known {
                        self.ended(&engine.engine, known, None, None, table.at, &mut records);
                    }
                    if let Some(now) = now {
                        self.started(engine, now, &next_id, &mut records);
                    }
                }
            }
            if let Some(id) = self.of_engine(&engine.engine) {
                self.by_pid.retain(|_, run| *run != id);
                self.by_pid.extend(engine.pids.iter().map(|&pid| (pid, id)));
            }
        }
        // An engine that was started with `plimsoll run` is an engine: its rules see nothing but its own run.
        for command in &table.engines {
            if let Some(&run) = self.commands.get(&command.engine) {
                self.by_pid.retain(|_, of| *of != run);
                for &pid in &command.pids {
                    self.by_pid.entry(pid).or_insert(run);
                }
            }
        }
        // What the store calls running and nobody has seen again ended while nobody watched. Agents of a command that still
        // runs come back by and by.
        let began = *self.began.get_or_insert(table.at);
        let may_return = table.at.since(began) < RETURN;
        let (kept, lost) = std::mem::take(&mut self.inherited)
            .into_iter()
            .partition(|open| may_return && is_running_command(&open.run));
        self.inherited = kept;
        let end = |lost: OpenRun| RunEnd {
            id: lost.run.id,
            exit_code: None,
            outcome: RunOutcome::Lost,
        };
        let is_engine = |lost: &OpenRun| self.engines.values().any(|open| open.id == lost.run.id);
        let lost = lost.into_iter().filter(|lost| !is_engine(lost));
        records.extend(lost.map(end).map(Record::RunEnd));
        records
    }

    fn started(
        &mut self,
        engine: &EngineProcesses,
        process: ProcessId,
        next_id: impl Fn() -> RunId,
        records: &mut Vec<Record>,
    ) {
        let command = engine.command.as_deref().map(without_secrets);
        let key = (!self.boot.is_empty()).then(|| format!("{}/{}", self.boot, process.started_ticks));
        let same = |open: &OpenRun| {
            let run = &open.run;
            run.engine.as_deref() == Some(engine.engine.as_str())
                && run.pid == Some(process.pid)
                && run.process_key.is_some()
                && run.process_key == key
        };
        if let Some(index) = self.inherited.iter().position(same) {
            let start = self.inherited.swap_remove(index).run;
            let id = start.id;
            self.starts.insert(id, start);
            self.engines.insert(engine.engine.clone(), Open { id, process });
            return;
        }
        let id = next_id();
        self.engines.insert(engine.engine.clone(), Open { id, process });
        let start = RunStart {
            id,
            name: engine.engine.clone(),
            engine: Some(engine.engine.clone()),
            host: self.host.clone(),
            pid: Some(process.pid),
            process_key: key,
            command,
            trace_tier: TraceTier::Off,
        };
        self.starts.insert(id, start.clone());
        records.push(Record::RunStart(start));
        let message = format!("{} runs as process {}", engine.engine, process.pid);
        let event = Event::new(EventKind::ProcessStart, message).in_run(Some(id));
        records.push(Record::Event(event.with_detail(json!({ "pid": process.pid }))));
    }

    fn ended(
        &mut self,
        engine: &str,
        process: ProcessId,
        exit_code: Option<i32>,
        hint: Option<ExitHint>,
        at: Stamp,
        records: &mut Vec<Record>,
    ) {
        let Some(open) = self.engines.get(engine).filter(|open| open.process == process) else {
            return;
        };
        let id = open.id;
        self.engines.remove(engine);
        let ending = Ending {
            name: engine,
            pid: Some(process.pid),
            exit_code,
            hint,
        };
        records.extend(self.end(id, &ending, at));
    }

    /// A command of `plimsoll run` began.
    pub(crate) fn begin_command(&mut self, mut start: RunStart) -> Record {
        start.command = start.command.as_deref().map(without_secrets);
        if let Some(pid) = start.pid {
            self.by_pid.entry(pid).or_insert(start.id);
        }
        self.commands.insert(watch_name(start.id), start.id);
        self.starts.insert(start.id, start.clone());
        Record::RunStart(start)
    }

    /// A command that a former daemon recorded, if one of these processes is its root and still runs: it goes on.
    pub(crate) fn resume_command(&mut self, lineage: &[ProcessId]) -> Option<RunStart> {
        let is_root = |open: &OpenRun| lineage.iter().any(|process| open.run.pid == Some(process.pid));
        let index = self
            .inherited
            .iter()
            .position(|open| is_root(open) && is_running_command(&open.run))?;
        let start = self.inherited.swap_remove(index).run;
        self.begin_command(start.clone());
        Some(start)
    }

    /// A command of `plimsoll run` ended.
    pub(crate) fn end_command(
        &mut self,
        id: RunId,
        name: &str,
        exit_code: Option<i32>,
        at: Stamp,
    ) -> Vec<Record> {
        let known = self.commands.remove(&watch_name(id)).is_some();
        let ending = Ending {
            name,
            pid: None,
            exit_code,
            hint: None,
        };
        if known {
            self.end(id, &ending, at)
        } else {
            Vec::new()
        }
    }

    fn end(&mut self, id: RunId, ending: &Ending<'_>, at: Stamp) -> Vec<Record> {
        let Ending {
            name,
            pid,
            exit_code,
            hint,
        } = *ending;
        self.by_pid.retain(|_, run| *run != id);
        self.starts.remove(&id);
        let fullest = self.fullest(id, at);
        self.devices.remove(&id);
        let outcome = outcome(exit_code, hint, fullest);
        let mut records = vec![Record::RunEnd(RunEnd {
            id,
            exit_code,
            outcome,
        })];
        let status =
            exit_code.map_or_else(|| "an unknown status".to_owned(), |code| format!("status {code}"));
        let why = match hint {
            Some(ExitHint::HostOutOfMemory) => {
                "; the kernel killed it for want of host memory, not of device memory"
            }
            None => "",
        };
        let ratio = fullest.map(|ratio| (ratio * 1e4).round() / 1e4);
        let detail = json!({ "pid": pid, "exit_code": exit_code, "device_used_ratio": ratio });
        let message = format!("{name} ended with {status}{why}");
        let event = Event::new(EventKind::ProcessExit, message)
            .in_run(Some(id))
            .with_detail(detail.clone());
        records.push(Record::Event(event));
        if outcome == RunOutcome::OutOfMemory {
            let full = fullest.map(plimsoll_trace::units::show_ratio).unwrap_or_default();
            let message = format!("{name} failed with its device {full} full: taken as out of memory");
            let event = Event::new(EventKind::OutOfMemory, message).in_run(Some(id));
            records.push(Record::Event(event.with_detail(detail)));
        }
        records
    }

    /// Fills in to which run each process sample belongs, and remembers how full the devices are.
    pub(crate) fn label(&mut self, batch: &mut Batch) {
        for record in &mut batch.records {
            match record {
                Record::Process(sample) => {
                    sample.run = self.by_pid.get(&sample.pid).copied();
                    if let Some(run) = sample.run {
                        let presence = Presence {
                            seen: batch.at,
                            missing: None,
                        };
                        let devices = self.devices.entry(run).or_default();
                        match devices.get_mut(&sample.device) {
                            Some(known) => *known = presence,
                            None => drop(devices.insert(sample.device.clone(), presence)),
                        }
                    }
                }
                Record::Device(sample) => {
                    let Some(ratio) = sample.used_ratio() else {
                        continue;
                    };
                    if !self.fullness.contains_key(&sample.device) {
                        self.fullness.insert(sample.device.clone(), VecDeque::new());
                    }
                    let Some(recent) = self.fullness.get_mut(&sample.device) else {
                        continue;
                    };
                    while recent
                        .front()
                        .is_some_and(|(then, _)| batch.at.since(*then) > SHORTLY)
                    {
                        recent.pop_front();
                    }
                    recent.push_back((batch.at, ratio));
                }
                _ => {}
            }
        }
        self.forget_devices(batch);
    }

    /// A run may leave a device. The last one that it was on stays its own: it is the one that it will come back to.
    fn forget_devices(&mut self, batch: &Batch) {
        let failed = |record: &Record| matches!(record, Record::Loss(loss) if loss.reason == LIST_FAILED);
        if batch.records.iter().any(failed) {
            return;
        }
        for record in &batch.records {
            let Record::Device(sample) = record else {
                continue;
            };
            for devices in self.devices.values_mut() {
                let Some(presence) = devices.get_mut(&sample.device) else {
                    continue;
                };
                if presence.seen == batch.at {
                    continue;
                }
                let missing = *presence.missing.get_or_insert(batch.at);
                let elsewhere = devices.values().any(|presence| presence.missing.is_none());
                if elsewhere && batch.at.since(missing) >= FORGOTTEN {
                    devices.remove(&sample.device);
                }
            }
        }
    }

    fn fullest(&self, run: RunId, at: Stamp) -> Option<f64> {
        let devices = self.devices.get(&run)?;
        let recent = devices
            .keys()
            .filter_map(|device| self.fullness.get(device))
            .flatten();
        recent
            .filter(|(then, _)| at.since(*then) <= SHORTLY)
            .map(|(_, ratio)| *ratio)
            .max_by(f64::total_cmp)
    }
}

/// Whether a run is a command, not an engine, and its process is still the same.
fn is_running_command(run: &RunStart) -> bool {
    let now = || command_of(run.pid?).map(|command| without_secrets(&command));
    run.engine.is_none() && run.command.is_some() && now() == run.command
}

/// The name under which the processes of a command are watched; no engine's name has a slash.
pub(crate) fn watch_name(run: RunId) -> String {
    format!("run/{run}")
}

/// What the exit status and the device's fullness shortly before say. Nobody tells the driver's allocation failures
/// apart from outside, so out-of-memory is an inference, and the event says so. An end of which nothing is known may have
/// been a success, so nothing is inferred from it.
fn outcome(exit_code: Option<i32>, hint: Option<ExitHint>, fullest: Option<f64>) -> RunOutcome {
    let full = fullest.is_some_and(|ratio| ratio >= FULL_RATIO);
    match exit_code {
        Some(0) => RunOutcome::Ok,
        // 128 + HUP, INT, KILL, TERM.
        Some(129 | 130 | 137 | 143) => RunOutcome::Killed,
        Some(_) if full => RunOutcome::OutOfMemory,
        Some(_) => RunOutcome::Failed,
        None => match hint {
            Some(ExitHint::HostOutOfMemory) => RunOutcome::Killed,
            None => RunOutcome::Lost,
        },
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
