//! The process watcher against real processes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use plimsoll_collectors::{Collector, EngineProcesses, Exit, Match, ProcessTable, Processes, Watch};
use plimsoll_trace::Stamp;

/// For events that come at once on any machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watcher of one engine named `engine`, and its tables.
struct Watcher {
    processes: Processes,
    tables: Receiver<ProcessTable>,
    at: Stamp,
}

impl Watcher {
    fn new(matcher: &str) -> Self {
        Self::of(watch("engine", matcher))
    }

    fn of(watch: Watch) -> Self {
        let (send, tables) = mpsc::channel();
        // The test may end before the watcher's thread does.
        let deliver = move |table| drop(send.send(table));
        let processes = Processes::spawn(vec![watch], Arc::new(deliver)).expect("spawn");
        Self {
            processes,
            tables,
            at: Stamp::now(),
        }
    }

    fn next(&self) -> ProcessTable {
        self.tables.recv_timeout(PATIENCE).expect("a table")
    }

    /// The table of one scan.
    fn scan(&mut self) -> ProcessTable {
        self.at = self.at.plus(Duration::from_secs(1));
        self.processes.tick(self.at);
        let table = self.next();
        assert_eq!(table.at, self.at);
        table
    }

    /// The engine in the table of one scan in which no root ends.
    fn engine(&mut self) -> EngineProcesses {
        let mut table = self.scan();
        assert_eq!(table.exits, []);
        assert_eq!(table.engines.len(), 1);
        table.engines.remove(0)
    }

    /// The end that is told without a scan.
    fn exit(&self) -> Exit {
        let mut table = self.next();
        assert_eq!(table.exits.len(), 1, "{table:?}");
        table.exits.remove(0)
    }
}

fn watch(engine: &str, matcher: &str) -> Watch {
    let matcher: Match = serde_json::from_str(matcher).expect("match");
    Watch {
        engine: engine.to_owned(),
        matcher,
    }
}

/// A word that no other process on this machine has in its command line.
fn word() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "plimsoll-test-{}-{}-end",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A shell that runs the script, with the word as its name. It is killed and waited for at the end of the test.
struct Shell(Child);

impl Shell {
    fn new(script: &str, word: &str) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, word])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self(command.spawn().expect("sh"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The next number that the script prints.
    fn number(&mut self) -> u32 {
        let output = self.0.stdout.as_mut().expect("piped");
        let mut line = String::new();
        // Unbuffered beyond the line: the scripts print one line and wait.
        BufReader::with_capacity(1, output)
            .read_line(&mut line)
            .expect("line");
        line.trim().parse().expect("a number")
    }

    /// Lets one `read` of the script go on.
    fn go_on(&mut self) {
        self.0
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(b"\n")
            .expect("write");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended and been waited for already.
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

#[test]
fn by_arguments() {
    let word = word();
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{word}$"}}"#));
    let before = watcher.engine();
    assert_eq!(
        (before.engine.as_str(), before.root, before.command),
        ("engine", None, None)
    );
    assert_eq!(before.pids, [0_u32; 0]);

    let shell = Shell::new("read line", &word);
    let found = watcher.engine();
    assert_eq!(found.root.map(|root| root.pid), Some(shell.pid()));
    assert_eq!(
        found.command.as_deref(),
        Some(format!("sh -c read line {word}").as_str())
    );
    assert_eq!(found.pids, [shell.pid()]);
    assert_eq!(watcher.engine(), found, "and it stays so");
}

#[test]
fn by_executable() {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("engine-server");
    // Copied by another process: a file that this one has open for writing, even in a child that another test is
    // just about to start, cannot be executed.
    let sleep = Command::new("sh")
        .args(["-c", "command -v sleep"])
        .output()
        .expect("sh")
        .stdout;
    let sleep = String::from_utf8(sleep).expect("path");
    let sleep = std::fs::canonicalize(sleep.trim()).expect("sleep");
    // Some systems have one program for all names, which looks at its own.
    let name = sleep.file_name().expect("name") == "sleep";
    assert!(
        Command::new("cp")
            .args([&sleep, &program])
            .status()
            .expect("cp")
            .success()
    );
    let mut command = Command::new(&program);
    if !name {
        command.arg("sleep");
    }
    let mut child = command.arg("1000").spawn().expect("copy");

    let path = folder.path().to_str().expect("path");
    let mut watcher = Watcher::new(&format!(r#"{{"exe":"^{path}/engine-server$"}}"#));
    let engine = watcher.engine();
    let mut with_arguments = Watcher::new(&format!(r#"{{"exe":"engine-server$","args":"{path}.*1001"}}"#));
    let other = with_arguments.engine();
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(engine.root.map(|root| root.pid), Some(child.id()));
    assert_eq!(other.root, None, "both patterns must be found");
}

#[test]
fn by_pid_file() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("engine.pid");
    let write = |pid: u32| std::fs::write(&file, format!("{pid}\n")).expect("write");
    let mut watcher = Watcher::new(&format!(r#"{{"pid_file":"{}"}}"#, file.display()));
    assert_eq!(watcher.engine().root, None, "there is no file yet");

    let mut first = Shell::new("echo 1; read line", &word());
    // While it is being replaced by the shell, a process has no command line for a moment.
    assert_eq!(first.number(), 1);
    write(first.pid());
    let engine = watcher.engine();
    assert_eq!(engine.root.map(|root| root.pid), Some(first.pid()));
    let command = engine.command.expect("its command line");
    assert!(command.starts_with("sh -c echo 1; read line"), "{command}");

    // It now names another: the first gives way, though it still runs.
    let second = Shell::new("read line", &word());
    write(second.pid());
    let table = watcher.scan();
    assert_eq!(table.engines[0].root.map(|root| root.pid), Some(second.pid()));
    assert_eq!(
        table
            .exits
            .iter()
            .map(|exit| (exit.process.pid, exit.exit_code))
            .collect::<Vec<_>>(),
        [(first.pid(), None)]
    );

    std::fs::remove_file(&file).expect("remove");
    assert_eq!(
        watcher.engine().root.map(|root| root.pid),
        Some(second.pid()),
        "it still runs"
    );
}

#[test]
fn a_stale_pid_file_names_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("engine.pid");
    let mut shell = Shell::new("exit 0", &word());
    std::fs::write(&file, shell.pid().to_string()).expect("write");
    shell.0.wait().expect("wait");
    let mut watcher = Watcher::new(&format!(r#"{{"pid_file":"{}"}}"#, file.display()));
    assert_eq!(watcher.engine().root, None, "it has ended");

    let stranger = Shell::new("read line", &word());
    std::fs::write(&file, stranger.pid().to_string()).expect("write");
    let yesterday = std::time::Duration::from_secs(86_400);
    let opened = std::fs::File::options().write(true).open(&file).expect("open");
    let modified = opened.metadata().expect("metadata").modified().expect("time");
    opened.set_modified(modified - yesterday).expect("set time");
    assert_eq!(
        watcher.engine().root,
        None,
        "it started after the file was written"
    );
}

#[test]
fn by_port() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let mut watcher = Watcher::new(&format!(r#"{{"port":{port}}}"#));
    assert_eq!(
        watcher.engine().root,
        None,
        "a test does not take itself for an engine"
    );

    // The child's standard input is the listening socket, and nobody else has it.
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(OwnedFd::from(listener))
        .spawn()
        .expect("sleep");
    let mut watcher = Watcher::new(&format!(r#"{{"port":{port}}}"#));
    let engine = watcher.engine();
    child.kill().expect("kill");
    let exit = watcher.exit();
    child.wait().expect("wait");
    assert_eq!(engine.root.map(|root| root.pid), Some(child.id()));
    assert_eq!((exit.process.pid, exit.exit_code), (child.id(), Some(137)));
    assert_eq!(watcher.engine().root, None);
}

#[test]
fn by_pid() {
    let mut shell = Shell::new("sleep 1000 & echo $!; read line", &word());
    let (engine, matcher) = ("engine".to_owned(), Match::Process(shell.pid()));
    let mut watcher = Watcher::of(Watch { engine, matcher });
    let child = shell.number();
    let engine = watcher.engine();
    assert_eq!(engine.root.map(|root| root.pid), Some(shell.pid()));
    assert!(engine.pids.contains(&child));
    assert!(
        Command::new("kill")
            .arg(child.to_string())
            .status()
            .expect("kill")
            .success()
    );
}

#[test]
fn by_cgroup() {
    // Every process of this test has the same cgroup; where that is the root of all, there is nothing to name.
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let of = |hierarchy: &str| {
        let mut lines = cgroup.lines().filter(|line| line.contains(hierarchy));
        lines.find_map(|line| line.rsplit('/').next().filter(|name| !name.is_empty()))
    };
    let Some(name) = of("0::/").or_else(|| of(":name=systemd:/")).or_else(|| of(":/")) else {
        return;
    };
    let shell = Shell::new("read line", &word());
    let mut watcher = Watcher::new(&format!(r#"{{"cgroup":"{name}"}}"#));
    let engine = watcher.engine();
    assert!(engine.pids.contains(&shell.pid()));
    assert!(
        !engine.pids.contains(&std::process::id()),
        "Plimsoll does not count itself"
    );
    let root = engine.root.expect("the oldest");
    assert!(engine.pids.contains(&root.pid));
}

#[test]
fn the_whole_tree_belongs_to_the_root_also_without_its_parent() {
    let word = word();
    // The middle process starts one that outlives it.
    let script = "sh -c 'sleep 1000 & echo $!; read line' <&0 & wait $!; echo 0; read line";
    let mut shell = Shell::new(&format!("exec 3<&0; {}", script.replace("<&0", "<&3")), &word);
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{word}"}}"#));
    let lowest = shell.number();
    let engine = watcher.engine();
    assert_eq!(engine.root.map(|root| root.pid), Some(shell.pid()));
    assert_eq!(engine.pids.len(), 3, "{engine:?}");
    assert!(engine.pids.contains(&lowest));

    shell.go_on();
    assert_eq!(shell.number(), 0, "the middle one has ended");
    let mut expected = vec![shell.pid(), lowest];
    expected.sort_unstable();
    assert_eq!(watcher.engine().pids, expected, "the lowest lost its parent");

    // What a root leaves behind is still told, until it ends too.
    shell.0.kill().expect("kill");
    let exit = watcher.exit();
    assert_eq!((exit.process.pid, exit.exit_code), (shell.pid(), Some(137)));
    let left = watcher.engine();
    assert_eq!((left.root, left.pids), (None, vec![lowest]));
    assert!(
        Command::new("kill")
            .arg(lowest.to_string())
            .status()
            .expect("kill")
            .success()
    );
}

#[test]
fn an_exit_is_told_at_once_with_its_status() {
    let word = word();
    let mut shell = Shell::new("read line; exit 3", &word);
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{word}"}}"#));
    let root = watcher.engine().root.expect("root");
    shell.go_on();
    // No tick, and nobody has waited for the child yet.
    let exit = watcher.exit();
    assert_eq!(
        (exit.engine.as_str(), exit.process, exit.exit_code, exit.hint),
        ("engine", root, Some(3), None)
    );
    shell.0.wait().expect("wait");
    assert_eq!(watcher.engine().root, None, "told once");
}

#[test]
fn an_exit_of_another_parents_child_is_told_with_its_status() {
    let word = word();
    // The outer shell waits for the inner one, which is the engine.
    let mut outer = Shell::new(
        &format!("exec 3<&0; sh -c 'read line <&3; exit 3' {word} & echo $!; wait"),
        "outer",
    );
    let inner = outer.number();
    // The outer one's script contains the word too, at its end.
    let mut watcher = Watcher::new(&format!(r#"{{"args":"^sh -c read.*{word}$"}}"#));
    // The inner one may not have become `sh -c read` yet.
    let found = std::iter::repeat_with(|| watcher.engine()).find(|engine| engine.root.is_some());
    assert_eq!(
        found.and_then(|engine| engine.root).map(|root| root.pid),
        Some(inner)
    );
    outer.go_on();
    let exit = watcher.exit();
    assert_eq!((exit.process.pid, exit.exit_code), (inner, Some(3)));
}

#[test]
fn a_killed_root_and_its_successor_are_two_identities() {
    let word = word();
    let mut first = Shell::new("read line", &word);
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{word}"}}"#));
    let former = watcher.engine().root.expect("first");
    first.0.kill().expect("kill");
    let exit = watcher.exit();
    assert_eq!((exit.process, exit.exit_code), (former, Some(137)));
    first.0.wait().expect("wait");

    let second = Shell::new("read line", &word);
    let root = watcher.engine().root.expect("second");
    assert_eq!(root.pid, second.pid());
    assert_ne!(root, former);
}

#[test]
fn other_watches_take_effect_and_the_same_ones_keep_their_roots() {
    let (word, other_word) = (word(), word());
    let (shell, other) = (
        Shell::new("read line", &word),
        Shell::new("read line", &other_word),
    );
    let matcher = format!(r#"{{"args":"{word}"}}"#);
    let mut watcher = Watcher::new(&matcher);
    let engine = watcher.engine();
    let watches = vec![
        watch("other", &format!(r#"{{"args":"{other_word}"}}"#)),
        watch("engine", &matcher),
    ];
    watcher.processes.set_watches(watches);
    let table = watcher.scan();
    assert_eq!(table.exits, []);
    let names: Vec<&str> = table
        .engines
        .iter()
        .map(|engine| engine.engine.as_str())
        .collect();
    assert_eq!(names, ["other", "engine"], "in the order of the watches");
    assert_eq!(table.engines[0].root.map(|root| root.pid), Some(other.pid()));
    assert_eq!(table.engines[1], engine);
    assert_eq!(engine.root.map(|root| root.pid), Some(shell.pid()));

    watcher.processes.set_watches(Vec::new());
    assert_eq!(watcher.scan().engines, []);
}

#[test]
fn at_most_one_scan_a_second() {
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{}"}}"#, word()));
    let first = watcher.scan().at;
    for tenth in 1..=8 {
        watcher
            .processes
            .tick(first.plus(Duration::from_millis(100) * tenth));
    }
    let second = first.plus(Duration::from_secs(1));
    watcher.processes.tick(second);
    assert_eq!(watcher.next().at, second);
    drop(watcher.processes);
    assert!(
        watcher.tables.recv().is_err(),
        "nothing else was delivered and the thread is gone"
    );
}

#[test]
fn an_ended_root_that_nobody_waits_for_is_told_once_and_not_found_again() {
    let word = word();
    let mut shell = Shell::new("read line", &word);
    let mut watcher = Watcher::new(&format!(r#"{{"args":"{word}"}}"#));
    let root = watcher.engine().root.expect("root");
    // Until it is not young any more.
    for _ in 0..40 {
        assert_eq!(watcher.engine().root, Some(root));
    }
    shell.0.kill().expect("kill");
    let exit = watcher.exit();
    assert_eq!((exit.process, exit.exit_code), (root, Some(137)));
    for _ in 0..2 {
        assert_eq!(watcher.engine().root, None, "and nobody else ends");
    }
}
