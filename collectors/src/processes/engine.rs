//! One engine: which process is its root, and what belongs to it.

use std::collections::BTreeSet;

use plimsoll_trace::Stamp;

use super::exit::{ExitWatch, Seen};
use super::matcher::{Match, Watch};
use super::pid_file;
use super::ports::Holders;
use super::snapshot::{Own, Process, Snapshot};
use super::systemd::{MainProcess, Systemd};
use super::table::{EngineProcesses, Exit, ProcessId};
use crate::proc;

/// What an engine is looked for in.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) at: Stamp,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) own: &'a Own,
    pub(crate) systemd: Option<&'a Systemd>,
    /// For the wanted ports.
    pub(crate) holders: &'a Holders,
}

/// An engine that is looked for, and what was found.
#[derive(Debug)]
pub(crate) struct WatchedEngine {
    pub(crate) watch: Watch,
    root: Option<Root>,
    /// Once found to belong to the root, a process belongs to it until it ends, whatever its parent is then.
    members: BTreeSet<ProcessId>,
    /// Whether it was told that only an ancestor of Plimsoll fits.
    told_ancestor: bool,
}

#[derive(Debug)]
struct Root {
    id: ProcessId,
    command: Option<String>,
    exit: ExitWatch,
}

impl WatchedEngine {
    pub(crate) fn new(watch: Watch) -> Self {
        Self {
            watch,
            root: None,
            members: BTreeSet::new(),
            told_ancestor: false,
        }
    }

    /// The root's exit watch.
    pub(crate) fn exit_watch(&self) -> Option<&ExitWatch> {
        self.root.as_ref().map(|root| &root.exit)
    }

    /// After the poll of the exit watch reported something: the root's end, if it is known.
    pub(crate) fn look(
        &mut self,
        events: rustix::event::PollFlags,
        systemd: Option<&Systemd>,
    ) -> Option<Exit> {
        match self.root.as_mut()?.exit.look(events) {
            Seen::Ended(code) => self.end(code, systemd),
            Seen::Nothing => None,
        }
    }

    /// Brings root and members up to date with the world; answers the former root's end.
    pub(crate) fn update(&mut self, world: World<'_>) -> Option<Exit> {
        let seen = self
            .root
            .as_mut()
            .map(|root| root.exit.conclude(world.snapshot.runs(root.id)));
        let mut exit = match seen {
            Some(Seen::Ended(code)) => self.end(code, world.systemd),
            Some(Seen::Nothing) | None => None,
        };
        if let Some(found) = self.find(world) {
            // A root that still runs has given way to another: nobody saw it end.
            exit = exit.or(self.root.take().map(|former| self.exit_of(former.id, None)));
            self.members.clear();
            self.root = Some(Root {
                id: found.id,
                command: proc::command(found.id.pid),
                exit: ExitWatch::new(found.id),
            });
        }
        if let Some(message) = self.only_an_ancestor(world) {
            tracing::warn!(engine = self.watch.engine, "{message}");
        }
        self.members = self.belonging(world);
        exit
    }

    /// What is to be told, once, when nobody fits but a process that Plimsoll itself comes from: it may quote the pattern in
    /// its own command line, or be the engine, which can then not be found.
    fn only_an_ancestor(&mut self, world: World<'_>) -> Option<String> {
        if self.root.is_some() || self.told_ancestor {
            return None;
        }
        let ancestor = world.snapshot.matching_ancestor(&self.watch.matcher, world.own)?;
        self.told_ancestor = true;
        Some(format!(
            "nothing fits the match of engine {} but process {} ({}), from which Plimsoll was started and which is \
             therefore not taken for the engine; if it is the engine, name it by pid_file or port",
            self.watch.engine,
            ancestor.id.pid,
            ancestor.command.as_deref().unwrap_or("unknown"),
        ))
    }

    /// As of the last update.
    pub(crate) fn processes(&self) -> EngineProcesses {
        EngineProcesses {
            engine: self.watch.engine.clone(),
            root: self.root.as_ref().map(|root| root.id),
            command: self.root.as_ref().and_then(|root| root.command.clone()),
            pids: self.members.iter().map(|member| member.pid).collect(),
        }
    }

    /// Another root than the present one, if there is one.
    ///
    /// A root stays the root while it runs: engines rename themselves, and a second process that fits does not make
    /// the first another. Only a pid file can name another.
    fn find<'a>(&self, world: World<'a>) -> Option<&'a Process> {
        let World { snapshot, own, .. } = world;
        if self.root.is_some() && !matches!(self.watch.matcher, Match::PidFile(_)) {
            return None;
        }
        // A process named by something outside it may be Plimsoll's own, as a port that it listens on.
        let mut candidates: BTreeSet<u32> = match &self.watch.matcher {
            Match::PidFile(path) => pid_file::read(path, world.at).into_iter().collect(),
            Match::Process(pid) => BTreeSet::from([*pid]),
            Match::Port(port) => {
                let holders = world.holders.get(port).into_iter().flatten().copied();
                // systemd holds the sockets of services that it starts on demand.
                holders
                    .filter(|pid| world.systemd.is_none() || *pid != 1)
                    .collect()
            }
            Match::Unit(unit) => {
                let inside = snapshot.matching(&self.watch.matcher, own);
                match world
                    .systemd
                    .filter(|_| !inside.is_empty())
                    .map(|systemd| systemd.main_process(unit))
                {
                    Some(MainProcess::Pid(pid)) if inside.contains(&pid) => BTreeSet::from([pid]),
                    Some(MainProcess::NotYet) => BTreeSet::new(),
                    Some(MainProcess::Pid(_) | MainProcess::Unknown) | None => inside,
                }
            }
            _ => snapshot.matching(&self.watch.matcher, own),
        };
        candidates.remove(&own.pid);
        candidates.retain(|pid| snapshot.get(*pid).is_some_and(|process| still_runs(process.id)));
        snapshot
            .root_of(&candidates)
            .filter(|found| !self.belongs_to_root(found.id))
    }

    /// Whether the process belongs to the present root: a child that is named does not replace its parent.
    fn belongs_to_root(&self, id: ProcessId) -> bool {
        self.root.is_some() && self.members.contains(&id)
    }

    /// The port on which the engine is looked for, while it is not found.
    pub(crate) fn wanted_port(&self) -> Option<u16> {
        match self.watch.matcher {
            Match::Port(port) if self.root.is_none() => Some(port),
            _ => None,
        }
    }

    /// The root, what comes from it, and what is in its unit, cgroup or container.
    fn belonging(&self, world: World<'_>) -> BTreeSet<ProcessId> {
        let snapshot = world.snapshot;
        let mut seeds = self.members.clone();
        if let Some(root) = &self.root {
            seeds.insert(root.id);
            seeds.extend(snapshot.led_by(root.id));
        }
        if matches!(
            self.watch.matcher,
            Match::Unit(_) | Match::Cgroup(_) | Match::Container(_)
        ) {
            let inside = snapshot.matching(&self.watch.matcher, world.own);
            seeds.extend(
                inside
                    .iter()
                    .filter_map(|pid| snapshot.get(*pid))
                    .map(|process| process.id),
            );
        }
        let mut members = snapshot.trees(seeds);
        members.retain(|member| member.pid != world.own.pid);
        members
    }

    fn end(&mut self, code: Option<i32>, systemd: Option<&Systemd>) -> Option<Exit> {
        let root = self.root.take()?;
        self.members.remove(&root.id);
        let mut exit = self.exit_of(root.id, code);
        exit.hint = root.exit.hint(code);
        // Without a status, or killed by somebody: systemd may know more.
        if let (Match::Unit(unit), Some(systemd), None | Some(137), None) =
            (&self.watch.matcher, systemd, code, exit.hint)
            && let Some(known) = systemd.main_exit(unit).filter(|known| known.pid == root.id.pid)
        {
            exit.exit_code = code.or(known.exit_code);
            exit.hint = known.hint;
        }
        Some(exit)
    }

    fn exit_of(&self, process: ProcessId, exit_code: Option<i32>) -> Exit {
        Exit {
            engine: self.watch.engine.clone(),
            process,
            exit_code,
            hint: None,
        }
    }
}

/// Whether this very process runs now. The snapshot may be older: one that ended stays there until it is read again, for
/// as long as its parent does not wait for it.
fn still_runs(id: ProcessId) -> bool {
    proc::stat(id.pid).is_some_and(|now| !now.is_dead() && now.started_ticks == id.started_ticks)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn shell() -> Child {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line"]).stdin(Stdio::piped());
        shell.spawn().expect("sh")
    }

    /// A scan's picture of these children, as engines. It stays as it is when they end.
    fn snapshot(children: &[&Child]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for child in children {
            let stat = proc::stat(child.id()).expect("a child");
            snapshot.insert(Process {
                id: ProcessId {
                    pid: child.id(),
                    started_ticks: stat.started_ticks,
                },
                parent: stat.parent,
                group: stat.group,
                session: stat.session,
                command: Some("the engine".to_owned()),
                executable: None,
                cgroup: None,
            });
        }
        snapshot
    }

    fn update(engine: &mut WatchedEngine, snapshot: &Snapshot) -> Option<Exit> {
        engine.update(World {
            at: Stamp::now(),
            snapshot,
            own: &Own {
                pid: std::process::id(),
                executable: None,
            },
            systemd: None,
            holders: &Holders::new(),
        })
    }

    #[test]
    fn one_that_ended_is_not_found_again_while_its_parent_does_not_wait_for_it() {
        let matcher = serde_json::from_str(r#"{"args":"the engine"}"#).expect("match");
        let mut engine = WatchedEngine::new(Watch {
            engine: "engine".to_owned(),
            matcher,
        });
        let mut first = shell();
        let old = snapshot(&[&first]);
        assert_eq!(update(&mut engine, &old), None);
        let root = engine.processes().root.expect("found");
        assert_eq!(root.pid, first.id());

        first.kill().expect("kill");
        // Ended, but not waited for.
        while !proc::stat(root.pid).is_some_and(|stat| stat.is_dead()) {
            std::thread::yield_now();
        }
        let exit = update(&mut engine, &old).expect("the end");
        assert_eq!((exit.process, exit.exit_code), (root, Some(137)));
        assert_eq!(engine.processes().root, None);
        assert_eq!(update(&mut engine, &old), None, "told once");
        assert_eq!(engine.processes().root, None);

        // Beside it, its successor is found at once.
        let mut second = shell();
        let both = snapshot(&[&first, &second]);
        assert_eq!(update(&mut engine, &both), None);
        assert_eq!(engine.processes().root.map(|root| root.pid), Some(second.id()));
        first.wait().expect("wait");
        second.kill().expect("kill");
        second.wait().expect("wait");
    }

    #[test]
    fn an_engine_that_plimsoll_comes_from_is_told_once() {
        let matcher = serde_json::from_str(r#"{"args":"the engine"}"#).expect("match");
        let mut engine = WatchedEngine::new(Watch {
            engine: "chat".to_owned(),
            matcher,
        });
        let process = |pid, parent, command: &str| Process {
            id: ProcessId {
                pid,
                started_ticks: pid.into(),
            },
            parent,
            group: pid,
            session: pid,
            command: Some(command.to_owned()),
            executable: None,
            cgroup: None,
        };
        let (mut snapshot, own) = (
            Snapshot::default(),
            Own {
                pid: 90,
                executable: None,
            },
        );
        snapshot.insert(process(90, 80, "plimsoll daemon"));
        let told = |engine: &mut WatchedEngine, snapshot: &Snapshot| {
            engine.only_an_ancestor(World {
                at: Stamp::now(),
                snapshot,
                own: &own,
                systemd: None,
                holders: &Holders::new(),
            })
        };
        assert_eq!(told(&mut engine, &snapshot), None);
        snapshot.insert(process(80, 1, "the engine"));
        let message = told(&mut engine, &snapshot).expect("told");
        assert!(
            message.contains("engine chat but process 80 (the engine)"),
            "{message}"
        );
        assert_eq!(told(&mut engine, &snapshot), None, "once");
    }
}
