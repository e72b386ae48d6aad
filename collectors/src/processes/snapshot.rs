//! The processes of one instant as a tree, and the questions asked of it. Nothing here reads anything.

use std::collections::{BTreeMap, BTreeSet};

use super::matcher::Match;
use super::table::ProcessId;
use crate::proc::cgroup;

/// A living process. What was not asked for, or may not be known, is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    pub(crate) command: Option<String>,
    pub(crate) executable: Option<String>,
    pub(crate) cgroup: Option<String>,
}

/// All living processes but the kernel's threads, by pid.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    processes: BTreeMap<u32, Process>,
    /// (parent, child) of each of them.
    children: BTreeSet<(u32, ProcessId)>,
}

/// Who asks: a process that must not take itself for an engine.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) pid: u32,
    pub(crate) executable: Option<String>,
}

impl Snapshot {
    pub(crate) fn insert(&mut self, process: Process) {
        self.remove(process.id.pid);
        self.children.insert((process.parent, process.id));
        self.processes.insert(process.id.pid, process);
    }

    pub(crate) fn remove(&mut self, pid: u32) {
        if let Some(former) = self.processes.remove(&pid) {
            self.children.remove(&(former.parent, former.id));
        }
    }

    fn children(&self, pid: u32) -> impl Iterator<Item = ProcessId> {
        let first = ProcessId {
            pid: 0,
            started_ticks: 0,
        };
        let of_this_parent = self.children.range((pid, first)..);
        of_this_parent
            .take_while(move |(parent, _)| *parent == pid)
            .map(|(_, child)| *child)
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Whether this very process, and not a later one of the same pid, still runs.
    pub(crate) fn runs(&self, id: ProcessId) -> bool {
        self.get(id.pid).is_some_and(|process| process.id == id)
    }

    /// The parent, the parent's parent and so on. Pids that were used again could close a circle; a parent is never
    /// younger than its child, which ends it.
    pub(crate) fn ancestors(&self, pid: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut next = self.get(pid);
        while let Some(process) = next {
            next = self
                .get(process.parent)
                .filter(|parent| parent.id.started_ticks <= process.id.started_ticks)
                .filter(|parent| found.insert(parent.id.pid));
        }
        found
    }

    /// The seeds that run, their children, their children's children and so on.
    pub(crate) fn trees(&self, seeds: impl IntoIterator<Item = ProcessId>) -> BTreeSet<ProcessId> {
        let mut found = BTreeSet::new();
        let mut open: Vec<ProcessId> = seeds.into_iter().filter(|id| self.runs(*id)).collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(
                    self.children(id.pid)
                        .filter(|child| child.started_ticks >= id.started_ticks),
                );
            }
        }
        found
    }

    /// The processes that a `match` describes by their own properties: every kind but those that
    /// name a process by something outside it: `pid_file`, `port` and a pid.
    ///
    /// Neither the asking process nor its ancestors are among them, because the shell that started it may carry the
    /// pattern in its own command line. So may any `plimsoll run -- COMMAND`.
    pub(crate) fn matching(&self, matcher: &Match, own: &Own) -> BTreeSet<u32> {
        let mut not = self.ancestors(own.pid);
        not.insert(own.pid);
        self.iter()
            .filter(|process| !not.contains(&process.id.pid) && matches(matcher, process, own))
            .map(|process| process.id.pid)
            .collect()
    }

    /// An ancestor of the asking process that fits all the same.
    pub(crate) fn matching_ancestor(&self, matcher: &Match, own: &Own) -> Option<&Process> {
        let ancestors = self.ancestors(own.pid).into_iter();
        ancestors
            .filter_map(|pid| self.get(pid))
            .find(|process| matches(matcher, process, own))
    }

    /// The oldest of the candidates that has no other candidate among its ancestors.
    pub(crate) fn root_of(&self, candidates: &BTreeSet<u32>) -> Option<&Process> {
        candidates
            .iter()
            .filter_map(|pid| self.get(*pid))
            .filter(|process| self.ancestors(process.id.pid).is_disjoint(candidates))
            .min_by_key(|process| (process.id.started_ticks, process.id.pid))
    }

    /// Processes that lost their parents but are known to come from `root`: it leads their session or their process
    /// group. The kernel gives no pid to a new process while it still names a session or a group.
    pub(crate) fn led_by(&self, root: ProcessId) -> impl Iterator<Item = ProcessId> {
        self.iter()
            .filter(move |process| process.session == root.pid || process.group == root.pid)
            .filter(move |process| process.id.started_ticks >= root.started_ticks)
            .map(|process| process.id)
    }
}

fn matches(matcher: &Match, process: &Process, own: &Own) -> bool {
    let cgroup = process.cgroup.as_deref();
    match matcher {
        Match::Unit(unit) => cgroup.is_some_and(|path| cgroup::is_in_unit(path, unit)),
        Match::Cgroup(suffix) => cgroup.is_some_and(|path| cgroup::ends_with(path, suffix)),
        Match::Container(id) => {
            cgroup.is_some_and(|path| cgroup::containers(path).any(|whole| whole.starts_with(id.as_str())))
        }
        Match::Command { exe, args } => {
            let found = |pattern: &Option<super::Pattern>, text: Option<&str>| {
                pattern
                    .as_ref()
                    .is_none_or(|pattern| text.is_some_and(|text| pattern.is_in(text)))
            };
            found(args, process.command.as_deref())
                && found(exe, executable_of(process))
                && !quotes_another(process, own)
        }
        Match::PidFile(_) | Match::Port(_) | Match::Process(_) => false,
    }
}

fn executable_of(process: &Process) -> Option<&str> {
    let first_word = || process.command.as_deref()?.split(' ').next();
    process.executable.as_deref().or_else(first_word)
}

/// Whether it is Plimsoll itself, running another program whose command line is a part of its own.
fn quotes_another(process: &Process, own: &Own) -> bool {
    let words = process.command.as_deref().unwrap_or_default().split(' ');
    let name_of = |path: Option<&str>| path.and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    let own_name = name_of(own.executable.as_deref());
    own_name.is_some()
        && own_name == name_of(executable_of(process))
        && words
            .skip(1)
            .take_while(|word| *word != "--")
            .any(|word| word == "run")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "b84291b22d941906f4f4a88fb7c1770cb84291b22d941906f4f4a88fb7c1770c";
    const OWN: u32 = 90;

    /// A process that started at ten times its pid; `session` and `group` are its own pid.
    fn process(pid: u32, parent: u32, command: &str) -> Process {
        Process {
            id: ProcessId {
                pid,
                started_ticks: u64::from(pid) * 10,
            },
            parent,
            group: pid,
            session: pid,
            command: Some(command.to_owned()),
            executable: command.split(' ').next().map(|word| format!("/usr/bin/{word}")),
            cgroup: Some("/user.slice/session-1.scope".to_owned()),
        }
    }

    fn snapshot(processes: impl IntoIterator<Item = Process>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        processes.into_iter().for_each(|process| snapshot.insert(process));
        snapshot
    }

    /// A host: init, an engine with workers, and Plimsoll started by a shell.
    fn host() -> Snapshot {
        snapshot([
            process(1, 0, "init"),
            process(20, 1, "sh -c vllm serve"),
            process(21, 20, "vllm serve"),
            process(22, 21, "worker vllm serve"),
            process(30, 1, "vllm serve"),
            process(80, 1, "bash -c plimsoll daemon; echo vllm serve"),
            process(OWN, 80, "plimsoll run -- vllm serve"),
            process(91, 1, "plimsoll run vllm serve"),
        ])
    }

    fn own() -> Own {
        Own {
            pid: OWN,
            executable: Some("/usr/bin/plimsoll".to_owned()),
        }
    }

    fn matcher(json: &str) -> Match {
        serde_json::from_str(json).expect("match")
    }

    fn matching(snapshot: &Snapshot, json: &str) -> Vec<u32> {
        snapshot.matching(&matcher(json), &own()).into_iter().collect()
    }

    #[test]
    fn command_lines_match_but_not_those_that_only_quote_them() {
        let host = host();
        assert_eq!(matching(&host, r#"{"args":"vllm serve"}"#), [20, 21, 22, 30]);
        assert_eq!(matching(&host, r#"{"exe":"bin/vllm$"}"#), [21, 30]);
        assert_eq!(matching(&host, r#"{"exe":"/sh$","args":"serve"}"#), [20]);
        assert_eq!(matching(&host, r#"{"exe":"plimsoll"}"#), [0_u32; 0]);
        let quoting = host.matching_ancestor(&matcher(r#"{"args":"vllm serve"}"#), &own());
        assert_eq!(quoting.map(|process| process.id.pid), Some(80));
        assert_eq!(
            host.matching_ancestor(&matcher(r#"{"exe":"vllm$"}"#), &own()),
            None
        );
        let simulated = snapshot([process(40, 1, "plimsoll sim-engine --config x")]);
        assert_eq!(matching(&simulated, r#"{"args":"sim-engine"}"#), [40]);
    }

    #[test]
    fn the_first_word_stands_for_an_executable_that_may_not_be_known() {
        let mut foreign = process(40, 1, "/opt/vllm serve");
        foreign.executable = None;
        let mut runner = process(41, 1, "plimsoll run -- /opt/vllm serve");
        runner.executable = None;
        let mut kernel_like = process(42, 1, "");
        (kernel_like.command, kernel_like.executable) = (None, None);
        let host = snapshot([foreign, runner, kernel_like]);
        assert_eq!(matching(&host, r#"{"exe":"^/opt/vllm$"}"#), [40]);
        assert_eq!(matching(&host, r#"{"args":"vllm"}"#), [40]);
    }

    #[test]
    fn cgroups_match_by_unit_suffix_and_container() {
        let mut service = process(40, 1, "python3 -m vllm");
        service.cgroup = Some("/system.slice/vllm.service".to_owned());
        let mut contained = process(41, 1, "python3 -m sglang");
        contained.cgroup = Some(format!("/system.slice/docker-{ID}.scope"));
        let mut hidden = process(42, 1, "x");
        hidden.cgroup = None;
        let host = snapshot([service, contained, hidden]);
        assert_eq!(matching(&host, r#"{"unit":"vllm"}"#), [40]);
        assert_eq!(matching(&host, r#"{"cgroup":"system.slice/vllm.service"}"#), [40]);
        assert_eq!(matching(&host, r#"{"container":"b84291b22d94"}"#), [41]);
        assert_eq!(matching(&host, r#"{"container":"b84291b22d95"}"#), [0_u32; 0]);
        assert_eq!(matching(&host, r#"{"port":1}"#), [0_u32; 0]);
    }

    #[test]
    fn the_root_is_the_oldest_without_a_candidate_above_it() {
        let host = host();
        let root = |candidates: &[u32]| {
            host.root_of(&candidates.iter().copied().collect())
                .map(|process| process.id.pid)
        };
        assert_eq!(root(&[20, 21, 22, 30]), Some(20));
        assert_eq!(root(&[22, 30]), Some(22), "older than 30");
        assert_eq!(root(&[22, 21]), Some(21));
        assert_eq!(root(&[4711]), None);
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn trees_are_what_is_below() {
        let mut host = host();
        let tree = |host: &Snapshot, pid: u32| {
            let root = ProcessId {
                pid,
                started_ticks: u64::from(pid) * 10,
            };
            host.trees([root])
                .into_iter()
                .map(|id| id.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(tree(&host, 20), [20, 21, 22]);
        host.remove(21);
        assert_eq!(tree(&host, 20), [20]);
        assert_eq!(tree(&host, 21), [0_u32; 0]);
        // 22 got another parent, and 20 is another process.
        host.insert(process(22, 1, "worker"));
        let mut other = process(20, 22, "other");
        other.id.started_ticks = 999;
        host.insert(other);
        assert_eq!(tree(&host, 20), [0_u32; 0], "another life");
        assert_eq!(
            host.trees([ProcessId {
                pid: 22,
                started_ticks: 220
            }])
            .len(),
            2
        );
    }

    #[test]
    fn orphans_are_known_by_their_session_and_group() {
        let mut in_session = process(40, 1, "x");
        in_session.session = 20;
        let mut in_group = process(41, 1, "x");
        in_group.group = 20;
        let mut earlier = process(10, 1, "x");
        earlier.session = 20;
        let host = snapshot([
            process(20, 1, "root"),
            in_session,
            in_group,
            earlier,
            process(42, 1, "x"),
        ]);
        let led: Vec<u32> = host
            .led_by(ProcessId {
                pid: 20,
                started_ticks: 200,
            })
            .map(|id| id.pid)
            .collect();
        assert_eq!(led, [20, 40, 41]);
    }

    proptest! {
        /// Pids that were used again can make any graph of the parents.
        #[test]
        fn any_parents_end(edges in prop::collection::vec((1_u32..9, 0_u32..9, 0_u64..3), 0..20), pid in 0_u32..9) {
            let host = snapshot(edges.iter().map(|(pid, parent, started_ticks)| {
                let mut process = process(*pid, *parent, "x");
                process.id.started_ticks = *started_ticks;
                process
            }));
            prop_assert!(host.ancestors(pid).len() <= 8);
            let seeds: Vec<ProcessId> = host.get(pid).map(|process| process.id).into_iter().collect();
            let tree = host.trees(seeds.clone());
            prop_assert_eq!(tree.is_empty(), seeds.is_empty());
            prop_assert!(tree.iter().all(|id| host.runs(*id)));
            prop_assert_eq!(host.children.len(), host.processes.len());
            let all: BTreeSet<u32> = host.iter().map(|process| process.id.pid).collect();
            prop_assert!(host.root_of(&all).is_none_or(|root| all.contains(&root.id.pid)));
        }
    }
}
