//! The simulated CUDA program: it uses the driver as a real program does, knows exactly what it did, and says so at its end
//! as one line of JSON ([`Account`]), so that a test can compare a recording with it.

mod account;
mod args;
mod worker;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_sim_cuda::{Cuda, CudaError, LoadError, exit_hard, fork_child, library_path};
use plimsoll_trace::Stamp;
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use self::account::Histogram;
pub use self::account::{Account, Allocations, Copies, Latency, Tally};
pub use self::args::CudaArgs;
use self::args::share;
use self::worker::{Kernel, Task, Work, Worker};
use crate::process::chain;

/// How often it is written down how many launches were made.
const CHECKPOINT: Duration = Duration::from_millis(10);

/// Why a CUDA program failed.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error(
        "the simulated CUDA library libplimsoll_sim_cuda.so is not beside this program; build it, or name it with --library"
    )]
    NoLibrary,
    #[error("the driver cannot be loaded")]
    Load(#[from] LoadError),
    #[error("CUDA error")]
    Cuda(#[from] CudaError),
    #[error("{doing}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    #[error("process {0} ended without saying what it did")]
    Silent(u32),
}

impl ProgramError {
    fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Runs a CUDA program to its end. Returns its exit code: 0, or 1 when something failed.
#[must_use]
pub fn run_cuda(args: &CudaArgs) -> i32 {
    match run(args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sim-cuda: {}", chain(&error));
            1
        }
    }
}

fn run(args: &CudaArgs) -> Result<(), ProgramError> {
    let library = args
        .library
        .clone()
        .or_else(library_path)
        .ok_or(ProgramError::NoLibrary)?;
    let mut children = Vec::new();
    if args.process == 0 {
        for process in 1..args.processes {
            children.push(start(process, &library)?);
        }
    } else {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ProgramError::io("asking to end with the parent")(error.into()))?;
    }
    let own = work(args, &library)?;
    let account = if children.is_empty() {
        own
    } else {
        together(own, &mut children)?
    };
    let line = serde_json::to_string(&account).map_err(|error| ProgramError::io("writing")(error.into()))?;
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(ProgramError::io("saying what was done"))?;
    if args.sigkill_after.is_some() {
        let _never = kill_process(getpid(), Signal::KILL);
    }
    if args.hang {
        loop {
            std::thread::park();
        }
    }
    for mut child in children {
        child.wait().map_err(ProgramError::io("waiting for a process"))?;
    }
    if args.exit_hard {
        exit_hard(0);
    }
    Ok(())
}

/// Starts another process of the same program, which does its own share.
fn start(process: u32, library: &Path) -> Result<Child, ProgramError> {
    let program = std::env::current_exe().map_err(ProgramError::io("finding this program"))?;
    let mut command = Command::new(program);
    // Whatever this program is called and however its commands are named: the same words, and one more.
    command.args(std::env::args_os().skip(1));
    command
        .args(["--process", &process.to_string()])
        .env("PLIMSOLL_SIM_CUDA", library)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(ProgramError::io("starting a process"))
}

/// What all processes did. Each says it in one line, and may go on to live.
fn together(own: Account, children: &mut [Child]) -> Result<Account, ProgramError> {
    let mut processes = vec![own];
    for child in children {
        let pid = child.id();
        let said = child.stdout.take().ok_or(ProgramError::Silent(pid))?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .map_err(ProgramError::io("hearing from a process"))?;
        processes.push(serde_json::from_str(&line).map_err(|_| ProgramError::Silent(pid))?);
    }
    let mut all = Account {
        pid: std::process::id(),
        ..Account::default()
    };
    for process in &processes {
        all.add(process);
    }
    all.processes = processes;
    Ok(all)
}

/// This process's share.
fn work(args: &CudaArgs, library: &Path) -> Result<Account, ProgramError> {
    let cuda = Cuda::load(library)?;
    cuda.init()?;
    let work = make_work(cuda, args)?;
    let own = share(args.launches, args.processes, args.process);
    let launches = args.sigkill_after.map_or(own, |most| most.min(own));
    let task = |place: u32| Task {
        place,
        launches: share(launches, args.threads, place),
        allocations: share(args.allocations, args.threads, place),
        keep: share(args.keep.min(args.allocations), args.threads, place),
        rate: args.rate.map(|rate| share(rate, args.threads, place).max(1)),
        latency: args.latency,
    };
    let launched = AtomicU64::new(0);
    let begin = Instant::now();
    let mut account = Account {
        pid: std::process::id(),
        ..Account::default()
    };
    let mut latency = args.latency.then(Histogram::new);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|place| {
                let (work, launched) = (&work, &launched);
                scope.spawn(move || Worker::new(cuda, work, launched)?.run(&task(place)))
            })
            .collect();
        let mut forked = !args.fork;
        while threads.iter().any(|thread| !thread.is_finished()) {
            let so_far = launched.load(Ordering::Relaxed);
            account.checkpoints.push((Stamp::now().unix_ns, so_far));
            if !forked && so_far >= launches / 2 {
                forked = true;
                account.forked = Some(fork(cuda)?);
            }
            std::thread::sleep(CHECKPOINT);
        }
        if !forked {
            account.forked = Some(fork(cuda)?);
        }
        for thread in threads {
            let (done, measured) = thread
                .join()
                .map_err(|_| ProgramError::Silent(std::process::id()))??;
            account.add(&done);
            if let (Some(all), Some(measured)) = (&mut latency, measured) {
                all.merge(&measured);
            }
        }
        Ok::<(), ProgramError>(())
    })?;
    account
        .checkpoints
        .push((Stamp::now().unix_ns, launched.load(Ordering::Relaxed)));
    account.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    account.launch_ns = latency.map(|latency| latency.latency());
    Ok(account)
}

/// What the kernels are called: `kernel_7(float*, float*, int)` as the compiler writes it.
fn kernel_name(number: u32) -> String {
    let name = format!("kernel_{number}");
    format!("_Z{}{name}PfS_i", name.len())
}

fn make_work(cuda: Cuda, args: &CudaArgs) -> Result<Work, CudaError> {
    let kernels = (0..args.names).map(|number| {
        let name = kernel_name(number);
        Ok(Kernel {
            function: cuda.function(&name, args.kernel_ns)?,
            duration_ns: args.kernel_ns.unwrap_or_else(|| cuda.usual_duration_ns(&name)),
            name,
        })
    });
    let kernels = kernels.collect::<Result<Vec<_>, CudaError>>()?;
    if args.graph == 0 {
        return Ok(Work::Kernels(kernels));
    }
    // Two graphs, so that they are told apart.
    let graphs = [0, 1].map(|first| {
        let nodes: Vec<usize> = (0..args.graph as usize)
            .map(|node| (first + node) % kernels.len())
            .collect();
        let functions: Vec<_> = nodes.iter().map(|node| kernels[*node].function).collect();
        cuda.graph(&functions).map(|graph| (graph, nodes))
    });
    let graphs = graphs.into_iter().collect::<Result<Vec<_>, CudaError>>()?;
    Ok(Work::Graphs(kernels, graphs))
}

/// Forks. The child has no CUDA any more, tries all the same, and ends like a program.
fn fork(cuda: Cuda) -> Result<i32, ProgramError> {
    let ended = fork_child(|| {
        let _refused = cuda.alloc(1 << 20);
        let _refused = cuda.synchronize();
    });
    Ok(ended.map_err(ProgramError::io("forking"))?.unwrap_or(-1))
}
