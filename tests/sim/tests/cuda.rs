//! The simulated CUDA program as a process: what it says it did is what a client of CUPTI in it sees.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use plimsoll_sim::cuda::Account;
use plimsoll_sim::demo::demo_device;
use plimsoll_sim_gpu::Gpu;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/count.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("count.so"))
            .arg(source)
            .status();
        assert!(compiled.unwrap().success());
        std::fs::create_dir(folder.path().join("counts")).unwrap();
        Self { folder }
    }

    fn command(&self, arguments: &str) -> Command {
        self.program("sim_cuda", arguments)
    }

    /// One of this package's programs, with the client of CUPTI injected.
    fn program(&self, name: &str, arguments: &str) -> Command {
        let deps = std::env::current_exe().unwrap();
        let program: PathBuf = deps
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples")
            .join(name);
        let mut command = Command::new(program);
        command
            .args(arguments.split_whitespace())
            .env("PLIMSOLL_SIM_CUDA", plimsoll_sim_cuda::library_path().unwrap())
            .env("CUDA_INJECTION64_PATH", self.folder.path().join("count.so"))
            .env("COUNTS", self.folder.path().join("counts"))
            .env_remove("PLIMSOLL_SIM_GPU")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Runs it to its end.
    fn run(&self, arguments: &str) -> (Account, Option<i32>) {
        let output = self.command(arguments).output().unwrap();
        (
            serde_json::from_slice(&output.stdout).unwrap(),
            output.status.signal(),
        )
    }

    /// What the agents in all processes counted: kernels, ns, bytes taken and given back.
    fn counted(&self) -> Option<[u64; 4]> {
        let mut sums = [0; 4];
        let mut files = 0;
        for file in std::fs::read_dir(self.folder.path().join("counts")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for (sum, number) in sums.iter_mut().zip(text.split_whitespace()) {
                *sum += number.parse::<u64>().unwrap();
            }
            files += 1;
        }
        (files > 0).then_some(sums)
    }
}

fn sums(account: &Account) -> [u64; 4] {
    let kernels = account.kernels.values();
    [
        kernels.clone().map(|tally| tally.count).sum(),
        kernels.map(|tally| tally.total_ns).sum(),
        account.allocations.taken_bytes,
        account.allocations.taken_bytes - account.allocations.live_bytes,
    ]
}

#[test]
fn a_client_in_every_process_sees_all_that_was_done() {
    for release in ["11.8", "12.4", "13.4", "future"] {
        let world = World::new();
        let mut command = world.command(
            "--threads 3 --processes 3 --launches 30001 --names 7 --allocations 10 --keep 2 --kernel-ns 700",
        );
        let output = command.env("PLIMSOLL_SIM_CUPTI", release).output().unwrap();
        assert!(output.status.success());
        let account: Account = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((account.launches, account.processes.len()), (30_001, 3));
        assert_eq!((account.allocations.taken, account.allocations.freed), (30, 24));
        assert!(account.allocations.live_bytes > 0);
        let expected = sums(&account);
        assert_eq!(expected[..2], [30_001, 30_001 * 700]);
        assert_eq!(world.counted(), Some(expected), "{release}");
        assert!(
            account
                .processes
                .iter()
                .all(|process| process.checkpoints.len() > 1)
        );
    }
}

#[test]
fn graphs_are_counted_by_their_kernels_too() {
    let world = World::new();
    let (account, _) = world.run("--threads 2 --launches 100 --names 3 --graph 5");
    assert_eq!((account.launches, account.graphs.count), (100, 100));
    let expected = sums(&account);
    assert_eq!((expected[0], expected[1]), (500, account.graphs.total_ns));
    assert_eq!(world.counted(), Some(expected));
}

#[test]
fn a_program_that_kills_itself_has_said_what_it_did() {
    let world = World::new();
    let (account, signal) = world.run("--threads 2 --launches 1000 --sigkill-after 300");
    assert_eq!((account.launches, signal), (300, Some(9)));
    assert_eq!(world.counted(), None, "no exit handler ran");
    let (account, signal) = world.run("--launches 1000 --exit-hard");
    assert_eq!((account.launches, signal), (1_000, None));
    assert_eq!(world.counted(), None, "no exit handler ran");
}

#[test]
fn a_forked_child_has_no_cuda_and_hurts_nobody() {
    let world = World::new();
    let (account, signal) = world.run("--threads 2 --launches 20000 --rate 100000 --kernel-ns 500 --fork");
    assert_eq!(
        (account.launches, account.forked, signal),
        (20_000, Some(0), None)
    );
    let own = std::fs::read_to_string(world.folder.path().join(format!("counts/{}", account.pid))).unwrap();
    assert!(own.starts_with("20000 10000000 "), "{own}");
}

#[test]
fn a_program_that_hangs_has_said_what_it_did() {
    let world = World::new();
    let mut child = world
        .command("--processes 2 --launches 10 --hang")
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let account: Account = serde_json::from_str(&line).unwrap();
    assert_eq!(account.launches, 10);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

/// Ends with the test, whatever its end is.
struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn the_engine_is_a_cuda_program_when_somebody_traces_it() {
    let world = World::new();
    let folder = world.folder.path();
    let gpu = Gpu::create(&folder.join("gpu"), &[demo_device()]).unwrap();
    let config = "model: {name: a, parameters_billions: 7, quantization: int8}\ngradient_checkpointing: true\nlisten: 127.0.0.1:0\nload_secs: 0.1\n";
    std::fs::write(folder.join("engine.yaml"), config).unwrap();
    let listener = UnixListener::bind(folder.join("socket")).unwrap();
    let arguments = format!(
        "--config {0}/engine.yaml --gpu {0}/gpu --scenario steady --seed 1 --speed 4",
        folder.display()
    );
    let mut command = world.program("sim_engine", &arguments);
    command
        .env("PLIMSOLL_SOCKET", folder.join("socket"))
        .stdout(Stdio::null());
    let mut engine = Engine(command.spawn().unwrap());

    // The engine says what its allocator holds. Once a request is served, the next word comes after a second of work.
    let (mut stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut words_of_work = 0;
    let mut last = Value::Null;
    while words_of_work < 2 {
        last = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        stream
            .write_all(b"{\"stored\": true, \"snapshot\": true}\n")
            .unwrap();
        words_of_work += u32::from(last["allocated_bytes"].as_u64().unwrap() > 7_650_000_000);
    }
    assert_eq!(last["pid"].as_u64(), Some(engine.0.id().into()));
    assert_eq!(last["device"], gpu.device(0).uuid());
    assert!(last["reserved_bytes"].as_u64() >= last["allocated_bytes"].as_u64());
    assert!(
        last["largest_free_bytes"].is_u64(),
        "asked for with the answer before"
    );
    let on_card: Vec<_> = gpu.processes(0).collect();
    assert_eq!(on_card.len(), 1, "its memory is on the card once");

    kill_process(Pid::from_child(&engine.0), Signal::TERM).unwrap();
    assert!(engine.0.wait().unwrap().success());
    let [kernels, total_ns, taken, freed] = world.counted().unwrap();
    assert!(kernels > 0 && total_ns > kernels * 50_000, "{kernels} {total_ns}");
    let live = taken - freed;
    assert!(
        live > 7_200_000_000 && live < on_card[0].used_bytes + (2 << 30),
        "{live}"
    );
}
