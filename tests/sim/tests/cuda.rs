//! The simulated CUDA program as a process: what it says it did is what a client of CUPTI in it sees.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plimsoll_sim::cuda::Account;
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
        let deps = std::env::current_exe().unwrap();
        let program: PathBuf = deps.parent().unwrap().parent().unwrap().join("examples/sim_cuda");
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
