//! Which run the records of an agent belong to.
//!
//! An agent's ring is not read before that is known, and it is settled once: what comes late is still that run's. A
//! process belongs to the run of its nearest ancestor that has one. When none turns up, it was started elsewhere with the
//! agent in its environment, and gets a run of its own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use plimsoll_collectors::{AgentId, AgentReport, Arrival, Lookout, ProcessId, ProcessTable, Standing};
use plimsoll_trace::{Record, RunId, RunStart, Stamp, TraceTier};
use serde_json::Value;
use tokio::sync::oneshot;

use super::pipeline::{Command, Pipeline, host_name};
use super::runs::{Runs, watch_name};
use super::tell;

/// How long a run may take to turn up: engines are looked for once a second.
const WAIT: Duration = Duration::from_secs(3);
/// How long an ended command is remembered, for agents that were in the door when it ended.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long a run without an agent goes on while its program does: a worker that is started again belongs to it.
const IDLE: Duration = Duration::from_secs(30);
/// How long the exit status of a program may take to become known after its last agent hung up.
const STATUS: Duration = Duration::from_secs(3);
/// How long it may take to read all rings to their end.
const FLUSH: Duration = Duration::from_secs(10);
/// So many programs are remembered whose run ended while they went on.
const MOST_ENDED: usize = 256;

/// The agents that are connected.
#[derive(Default)]
pub(super) struct Attached {
    waiting: Vec<(Stamp, Arrival)>,
    bound: HashMap<AgentId, RunId>,
    /// How those stand that are bound, as far as they have said so.
    standings: HashMap<AgentId, Standing>,
    /// Runs of programs that were started elsewhere.
    own: HashMap<RunId, Own>,
    /// Commands that ended a moment ago.
    ended: VecDeque<(Stamp, u32, RunId)>,
    /// When runs of their own ended, by program: one that goes on may get another, and that begins no earlier.
    own_ended: VecDeque<(ProcessId, Stamp)>,
}

/// A run of a program that nobody announced. It begins with the program and ends with it, or when no agent was left for
/// long.
struct Own {
    root: Option<ProcessId>,
    lookout: Option<Lookout>,
    command: Command,
    /// Since when it has no agent.
    idle: Option<Stamp>,
    /// The exit status of its program, when somebody saw it.
    exit: Option<i32>,
}

impl Own {
    /// When it ended and with which status, if it is over. A status that is not known at once may be soon.
    fn end(&self, now: Stamp) -> Option<(Stamp, Option<i32>)> {
        let idle = self.idle?;
        let ended = self.lookout.as_ref().map_or(Some(None), Lookout::ended);
        let exit = self.exit.or_else(|| ended.flatten());
        let patience = match (exit, ended) {
            (Some(_), _) => Duration::ZERO,
            (None, Some(_)) => STATUS,
            (None, None) => IDLE,
        };
        (now.since(idle) >= patience).then_some((idle, exit))
    }
}

impl Attached {
    /// The processes of runs of its own, to be watched.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.own.values().map(|own| &own.command)
    }

    /// Remembers a command that ended.
    pub(super) fn command_ended(&mut self, pid: u32, run: RunId, now: Stamp) {
        self.ended.retain(|(then, ..)| now.since(*then) <= REMEMBER);
        self.ended.push_back((now, pid, run));
    }

    fn own_run_ended(&mut self, root: Option<ProcessId>, at: Stamp) {
        let Some(root) = root else { return };
        self.own_ended.retain(|(program, _)| *program != root);
        self.own_ended.push_back((root, at));
        if self.own_ended.len() > MOST_ENDED {
            self.own_ended.pop_front();
        }
    }

    /// When a run of this program began that begins now: with the program, or when its last run ended.
    fn own_began(&self, root: ProcessId, now: Stamp) -> Stamp {
        let began = root.began(now);
        let ended = self.own_ended.iter().find(|(program, _)| *program == root);
        match ended {
            Some((_, ended)) if ended.mono_ns > began.mono_ns => *ended,
            _ => began,
        }
    }

    /// How an agent stands; nothing of one that is not connected.
    pub(super) fn standing(&self, agent: AgentId) -> Option<&Standing> {
        self.standings.get(&agent)
    }

    /// The agents of a run, in the order in which they connected.
    pub(super) fn of_run(&self, run: RunId) -> Vec<(AgentId, Standing)> {
        let of_run = self.bound.iter().filter(|(_, of)| **of == run);
        let mut agents: Vec<(AgentId, Standing)> = of_run
            .map(|(agent, _)| (*agent, self.standing(*agent).cloned().unwrap_or_default()))
            .collect();
        agents.sort_by_key(|(agent, _)| *agent);
        agents
    }

    /// Every agent that is bound, by run, for `plimsoll status`.
    pub(super) fn show(&self, runs: &Runs) -> Vec<Value> {
        let ids: BTreeSet<RunId> = self.bound.values().copied().collect();
        let of_run = |run: RunId| {
            self.of_run(run).into_iter().map(move |(_, standing)| {
                let mut shown = tell::show(&standing);
                shown["run"] = run.0.into();
                shown["name"] = runs.name(run).into();
                shown
            })
        };
        ids.into_iter().flat_map(of_run).collect()
    }

    /// The command of this process that ended a moment ago, if whoever asks was there before its end.
    fn ended_run(&self, pid: u32, began: Stamp) -> Option<RunId> {
        let mut newest = self.ended.iter().rev();
        newest
            .find(|(at, ended, _)| *ended == pid && began.mono_ns <= at.mono_ns)
            .map(|(.., run)| *run)
    }
}

impl Pipeline {
    pub(super) fn take_report_of_agents(&mut self, report: AgentReport) {
        match report {
            AgentReport::Arrived(arrival) => {
                self.attached.waiting.push((Stamp::now(), arrival));
                self.place_agents(Stamp::now());
            }
            AgentReport::Introduced { run, process } => {
                let records = self.runs.traced(run, process.tier);
                self.store(records.into_iter().collect());
            }
            AgentReport::Standings(standings) => {
                self.attached.standings.extend(standings);
                self.look_at_told();
            }
            AgentReport::Work(mut batch) => {
                for record in &mut batch.records {
                    if let Record::Traced(traced) = record
                        && let Some(device) = &traced.device
                        && let Some(named) = self.status.device_named(device)
                    {
                        traced.device = Some(named);
                    }
                }
                self.take_batch(batch);
            }
            AgentReport::Left(agent) => self.agent_left(agent),
        }
    }

    /// Finds runs for those who wait for one.
    pub(super) fn place_agents(&mut self, now: Stamp) {
        for (since, arrival) in std::mem::take(&mut self.attached.waiting) {
            let waited = self.is_stopping() || now.since(since) >= WAIT;
            let run = self
                .run_of(&arrival)
                .or_else(|| self.resume_own(&arrival))
                .or_else(|| waited.then(|| self.begin_own(&arrival, since)));
            match run {
                Some(run) => {
                    if let Some(own) = self.attached.own.get_mut(&run) {
                        own.idle = None;
                    }
                    tracing::info!(pid = arrival.pid, %run, "an agent reports");
                    self.attached.bound.insert(arrival.agent, run);
                    self.agents.bind(arrival.agent, run);
                }
                None => self.attached.waiting.push((since, arrival)),
            }
        }
    }

    fn run_of(&self, arrival: &Arrival) -> Option<RunId> {
        let now = Stamp::now();
        // One that is gone was there before anything that is ending now.
        let began = arrival
            .lineage
            .first()
            .map_or_else(Stamp::default, |process| process.began(now));
        let ended = |pid: u32| self.attached.ended_run(pid, began);
        let by_pid = || {
            arrival
                .pid
                .and_then(|pid| self.runs.of_pid(pid).or_else(|| ended(pid)))
        };
        let by_ancestor = || arrival.lineage.iter().find_map(|process| ended(process.pid));
        // Of one that was gone before it could be seen nobody knows the parent; where one command of its user runs, and
        // nobody else's, it is that one's.
        let by_exclusion = || {
            let mut commands = self.commands.values();
            let only = commands.next().filter(|_| commands.next().is_none());
            let is_gone = arrival.lineage.is_empty() && arrival.pid.is_some();
            only.filter(|command| is_gone && command.uid == arrival.uid)
                .map(|command| command.id)
        };
        self.runs
            .of_lineage(&arrival.lineage)
            .or_else(by_pid)
            .or_else(by_ancestor)
            .or_else(by_exclusion)
    }

    /// A run for a program that nobody announced, named by its executable. It began when the program did, or when the
    /// program's last run ended; of one that is gone that is not known, and it began when its agent connected.
    fn begin_own(&mut self, arrival: &Arrival, connected: Stamp) -> RunId {
        let known =
            |(run, own): (&RunId, &Own)| (own.root.is_some() && own.root == arrival.root).then_some(*run);
        if let Some(run) = self.attached.own.iter().find_map(known) {
            return run;
        }
        let id = self.writer.next_run_id();
        let pid = arrival.root.map(|root| root.pid).or(arrival.pid);
        let executable = arrival
            .executable
            .as_deref()
            .and_then(|path| Path::new(path).file_name());
        let name = executable.map_or_else(
            || format!("process {}", pid.unwrap_or(0)),
            |name| name.to_string_lossy().into_owned(),
        );
        let start = RunStart {
            id,
            name: name.clone(),
            engine: None,
            host: host_name(),
            pid,
            process_key: None,
            command: arrival.command.clone(),
            trace_tier: TraceTier::Off,
        };
        let record = self.runs.begin_command(start);
        let began = arrival
            .root
            .map_or(connected, |root| self.attached.own_began(root, connected));
        self.store_of(began, vec![record]);
        self.keep_own(
            arrival.root,
            arrival.lookout.clone(),
            Command {
                id,
                name,
                pid: pid.unwrap_or(0),
                uid: arrival.uid,
            },
        );
        id
    }

    /// A run that a former daemon began for a program that still runs.
    fn resume_own(&mut self, arrival: &Arrival) -> Option<RunId> {
        let start = self.runs.resume_command(&arrival.lineage)?;
        let (id, pid) = (start.id, start.pid.unwrap_or(0));
        let root = arrival.lineage.iter().find(|process| process.pid == pid);
        let lookout = arrival.lookout.clone().filter(|_| root == arrival.root.as_ref());
        self.keep_own(
            root.copied(),
            lookout,
            Command {
                id,
                name: start.name,
                pid,
                uid: arrival.uid,
            },
        );
        Some(id)
    }

    fn keep_own(&mut self, root: Option<ProcessId>, lookout: Option<Lookout>, command: Command) {
        let own = Own {
            root,
            lookout,
            command,
            idle: None,
            exit: None,
        };
        self.attached.own.insert(own.command.id, own);
        self.watch_processes();
    }

    fn agent_left(&mut self, agent: AgentId) {
        self.attached.standings.remove(&agent);
        let Some(run) = self.attached.bound.remove(&agent) else {
            return;
        };
        self.look_at_told();
        let others = self.attached.bound.values().any(|other| *other == run);
        if others || self.is_stopping() {
            return;
        }
        let now = Stamp::now();
        if let Some(own) = self.attached.own.get_mut(&run) {
            own.idle = Some(now);
            self.end_own(now);
        }
    }

    /// Takes in which programs of runs of their own have ended, and ends the runs that are over.
    pub(super) fn follow_own(&mut self, table: &ProcessTable) {
        for exit in &table.exits {
            let mut own = self.attached.own.values_mut();
            if let Some(own) = own.find(|own| watch_name(own.command.id) == exit.engine) {
                own.exit = exit.exit_code;
            }
        }
        self.end_own(table.at);
    }

    fn end_own(&mut self, now: Stamp) {
        let over = |(_, own): (&RunId, &Own)| own.end(now).map(|(at, code)| (own.command.id, at, code));
        let ended: Vec<_> = self.attached.own.iter().filter_map(over).collect();
        for (run, at, exit_code) in ended {
            if let Some(own) = self.attached.own.remove(&run) {
                let records = self.runs.end_command(run, &own.command.name, exit_code, at);
                self.store_of(at, records);
                self.attached.own_run_ended(own.root, at);
                self.watch_processes();
            }
        }
    }

    /// Has everything read that agents have written by now, those included that have only just connected. The answer
    /// comes when that is delivered, or when it takes too long; it is that the other end is gone.
    pub(super) fn flush_agents(&self, last: bool) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        let (door, agents) = (self.door.clone(), self.agents.clone());
        tokio::spawn(async move {
            door.settle().await;
            let (read, is_read) = oneshot::channel::<()>();
            agents.flush(last, move || drop(read));
            if tokio::time::timeout(FLUSH, is_read).await.is_err() {
                tracing::warn!("not everything that agents wrote could be read in time");
            }
            drop(done);
        });
        flushed
    }
}
