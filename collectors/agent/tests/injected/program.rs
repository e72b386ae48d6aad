//! The program that CUDA injects the agent into: this test binary once more, doing one of these things.

use std::ffi::{CStr, CString, c_void};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use plimsoll_sim_cuda::{Cuda, Direction, Stream, exit_hard, fork_child, library_path};

const WORK: &str = "PLIMSOLL_TEST_WORK";

/// A program that is to be started.
pub(crate) struct Program(Command);

/// A program that runs. It goes on when it is told to, and says when it has come so far.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Does `work`, and tells the daemon at `socket` every 20 ms.
    pub(crate) fn new(work: &str, socket: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "program::program", "--nocapture"])
            .env_clear()
            .env(WORK, work)
            .env("CUDA_INJECTION64_PATH", plimsoll_agent::library_path().unwrap())
            .env("PLIMSOLL_CUPTI_LIBRARY", library_path().unwrap())
            .env("PLIMSOLL_SOCKET", socket)
            .env("PLIMSOLL_FLUSH", "20ms")
            .env("PLIMSOLL_TRACE", "graph")
            // A busy machine makes each record dear; what is tested here is not the budget.
            .env("PLIMSOLL_BUDGET", "100%")
            // Nor is it how long a busy machine takes to end a program.
            .env("PLIMSOLL_EXIT", "60s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self(command)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// One window of single kernels that is open all the time.
    pub(crate) fn with_open_window(self) -> Self {
        self.env("PLIMSOLL_WINDOW", "60s")
            .env("PLIMSOLL_WINDOW_EVERY", "60s")
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child = self.0.spawn().unwrap();
        Running {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }
}

impl Running {
    /// Waits until the program says this, and returns what it says with it.
    pub(crate) fn says(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "it ended before it said {word}"
            );
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn go_on(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// There is nothing more to read for it.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until it ends well.
    pub(crate) fn ends(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Says that the program has come so far, and waits until it may go on.
fn says(word: &str) {
    println!("{word}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Not a test by itself: what the program does.
#[test]
fn program() {
    let Ok(work) = std::env::var(WORK) else { return };
    // The harness leaves the cursor in a line of its own.
    println!();
    let cuda = Cuda::load(&library_path().unwrap()).unwrap();
    let mut words = work.split(' ');
    let what = words.next().unwrap();
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    match (what, &numbers[..]) {
        ("launch", [threads, launches]) => launch(&cuda, *threads, *launches),
        ("memory", []) => memory(&cuda),
        ("graphs", [launches]) => graphs(&cuda, *launches),
        ("steps", [launches]) => steps(&cuda, *launches),
        ("pieces", []) => pieces(&cuda),
        ("reservations", [count]) => reservations(&cuda, *count),
        ("fork", []) => fork(&cuda),
        ("close", []) => close(&cuda),
        ("hard", []) => hard(&cuda),
        ("memsets", [count]) => memsets(&cuda, *count),
        ("framework", [has_torch]) => framework(&cuda, *has_torch == 1),
        ("names", [steps, each]) => names(&cuda, *steps, *each),
        ("late", [launches]) => late(&cuda, *launches),
        _ => panic!("{work}"),
    }
}

/// The kernels that are launched in turn: name and duration, ns.
pub(crate) const KERNELS: [(&str, u64); 3] = [("_Z4gemmPf", 700), ("softmax", 1_300), ("_Z4copyv", 5)];

/// What one memset fills.
pub(crate) const MEMSET_BYTES: u64 = 1 << 20;

/// Launches from several threads, each on a stream of its own.
fn launch(cuda: &Cuda, threads: u64, launches: u64) {
    cuda.init().unwrap();
    let kernels = KERNELS.map(|(name, ns)| cuda.function(name, Some(ns)).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let stream = cuda.stream().unwrap();
                for kernel in kernels.iter().cycle().take(usize::try_from(launches).unwrap()) {
                    cuda.launch(*kernel, stream).unwrap();
                }
            });
        }
    });
    cuda.copy(Direction::HostToDevice, 1 << 20, None).unwrap();
    cuda.copy(Direction::DeviceToHost, 4096, None).unwrap();
    cuda.synchronize().unwrap();
}

/// Launches, waits to be told, and launches again.
fn steps(cuda: &Cuda, launches: u64) {
    cuda.init().unwrap();
    let kernel = cuda.function(KERNELS[0].0, Some(KERNELS[0].1)).unwrap();
    loop {
        for _ in 0..launches {
            cuda.launch(kernel, Stream::DEFAULT).unwrap();
        }
        cuda.synchronize().unwrap();
        println!("launched");
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap() == 0 {
            return;
        }
    }
}

/// Memsets of both kinds, each of as many bytes as the others.
fn memsets(cuda: &Cuda, count: u64) {
    cuda.init().unwrap();
    for _ in 0..count {
        cuda.fill(7, MEMSET_BYTES, Stream::DEFAULT).unwrap();
        cuda.fill_words(7, MEMSET_BYTES / 4, Stream::DEFAULT).unwrap();
    }
    cuda.synchronize().unwrap();
}

/// Makes new kernels in each step, as programs that compile while they run do, and launches each of them twice, and one
/// that stays.
fn names(cuda: &Cuda, steps: u64, each: u64) {
    cuda.init().unwrap();
    let stays = cuda.function("stays", Some(10)).unwrap();
    for step in 0..steps {
        for number in 0..each {
            let name = format!("made_{}", step * each + number);
            let kernel = cuda.function(&name, Some(100 + step)).unwrap();
            cuda.launch(kernel, Stream::DEFAULT).unwrap();
            cuda.launch(stays, Stream::DEFAULT).unwrap();
            cuda.launch(kernel, Stream::DEFAULT).unwrap();
        }
        cuda.synchronize().unwrap();
        says("launched");
    }
}

fn graphs(cuda: &Cuda, launches: u64) {
    cuda.init().unwrap();
    let kernels = KERNELS.map(|(name, ns)| cuda.function(name, Some(ns)).unwrap());
    let graph = cuda.graph(&kernels).unwrap();
    for _ in 0..launches {
        cuda.launch_graph(graph, Stream::DEFAULT).unwrap();
    }
    cuda.synchronize().unwrap();
}

fn memory(cuda: &Cuda) {
    const MIB: u64 = 1 << 20;
    cuda.init().unwrap();
    let first = cuda.alloc(3 * MIB).unwrap();
    let second = cuda.alloc(10 * MIB).unwrap();
    let pooled = cuda.alloc_async(5 * MIB, Stream::DEFAULT).unwrap();
    let pinned = cuda.alloc_host(MIB).unwrap();
    cuda.free(first).unwrap();
    let reserved = cuda.reserve(64 * MIB).unwrap();
    let handle = cuda.create(4 * MIB).unwrap();
    cuda.map(reserved, 4 * MIB, handle).unwrap();
    cuda.release(handle).unwrap();
    says("taken");
    cuda.unmap(reserved, 4 * MIB).unwrap();
    cuda.free_reservation(reserved, 64 * MIB).unwrap();
    cuda.free_host(pinned).unwrap();
    cuda.free_async(pooled, Stream::DEFAULT).unwrap();
    cuda.free(second).unwrap();
    cuda.synchronize().unwrap();
}

/// Takes memory and gives it back, until there is nothing to read any more.
fn pieces(cuda: &Cuda) {
    cuda.init().unwrap();
    loop {
        let piece = cuda.alloc(1 << 20).unwrap();
        println!("taken");
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap() == 0 {
            return;
        }
        cuda.free(piece).unwrap();
    }
}

/// Reserves addresses, piece by piece, and keeps all of them.
fn reservations(cuda: &Cuda, count: u64) {
    cuda.init().unwrap();
    for _ in 0..count {
        cuda.reserve(2 << 20).unwrap();
    }
    says("taken");
}

/// Open files of this process that are the agent's.
fn agents_files() -> usize {
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains("plimsoll-ring"))
        .count()
}

fn fork(cuda: &Cuda) {
    cuda.init().unwrap();
    let kernel = cuda.function("before", Some(100)).unwrap();
    cuda.launch(kernel, Stream::DEFAULT).unwrap();
    says("launched");
    assert_eq!(agents_files(), 1);
    // The child ends through its exit handlers.
    let ended = fork_child(|| {
        if agents_files() != 0 {
            exit_hard(9);
        }
    });
    println!("child {:?}", ended.unwrap());
    cuda.launch(kernel, Stream::DEFAULT).unwrap();
    cuda.synchronize().unwrap();
}

/// A program with a profiler of its own, as PyTorch has: it asks for CUPTI's subscription once, and takes the buffers over.
#[expect(unsafe_code, reason = "calls CUPTI as another client does")]
fn framework(cuda: &Cuda, has_torch: bool) {
    extern "C" fn on_call(_: *mut c_void, _: u32, _: u32, _: *const c_void) {}
    extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, most: *mut usize) {
        let memory: &'static mut [u64] = Box::leak(vec![0; 8 << 10].into_boxed_slice());
        // SAFETY: CUPTI passes three places to write to.
        unsafe {
            *buffer = memory.as_mut_ptr().cast();
            *size = size_of_val(memory);
            *most = 0;
        }
    }
    extern "C" fn complete(_: *mut c_void, _: u32, _: *mut u8, _: usize, _: usize) {}
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libtorch_cpu.so");
    std::fs::write(&path, [0; 4096]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    if has_torch {
        let (read, private) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a new mapping, which nobody reads.
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, read, private, &file, 0) }.unwrap();
    }
    cuda.init().unwrap();
    let kernel = cuda.function("before", Some(100)).unwrap();
    cuda.launch(kernel, Stream::DEFAULT).unwrap();
    cuda.synchronize().unwrap();
    says("launched");
    let library = CString::new(library_path().unwrap().into_os_string().into_encoded_bytes()).unwrap();
    let mut subscriber = 0_usize;
    // SAFETY: functions of this name have these signatures; the library is loaded and stays so.
    let (subscribed, registered) = unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        let find = |name: &CStr| libc::dlsym(handle, name.as_ptr());
        type OnCall = extern "C" fn(*mut c_void, u32, u32, *const c_void);
        type Request = extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
        type Complete = extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);
        let subscribe = std::mem::transmute::<
            *mut c_void,
            extern "C" fn(*mut usize, OnCall, *mut c_void) -> u32,
        >(find(c"cuptiSubscribe"));
        let register = std::mem::transmute::<*mut c_void, extern "C" fn(Request, Complete) -> u32>(find(
            c"cuptiActivityRegisterCallbacks",
        ));
        let subscribed = subscribe(&raw mut subscriber, on_call, std::ptr::null_mut());
        (subscribed, register(request, complete))
    };
    println!("answers {subscribed} {registered}");
    says("registered");
}

/// Closes all that is open, as programs that become services do, and opens something else.
fn close(cuda: &Cuda) {
    cuda.init().unwrap();
    says("started");
    close_all_but_standard();
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..20)
        .map(|number| std::fs::File::create_new(folder.path().join(number.to_string())).unwrap())
        .collect();
    let kernel = cuda.function("after", Some(100)).unwrap();
    for _ in 0..20 {
        cuda.launch(kernel, Stream::DEFAULT).unwrap();
        cuda.synchronize().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let sizes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("foreign {sizes}");
}

#[expect(
    unsafe_code,
    reason = "closes numbers that are somebody else's, as some programs do"
)]
fn close_all_but_standard() {
    // SAFETY: not at all, which is what this is about; the harness keeps nothing open that it needs from here on.
    unsafe { libc::close_range(3, 63, 0) };
}

/// Launches and ends, but is there until it is told to go on: what the agent says after the exiting thread's patience is
/// over can still be read.
#[expect(unsafe_code, reason = "registers an exit handler that waits")]
fn late(cuda: &Cuda, launches: u64) {
    extern "C" fn wait() {
        let mut byte = 0_u8;
        // SAFETY: one byte into a local.
        unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
    }
    // Handlers run in reverse: this one after the agent's, which comes with CUDA.
    // SAFETY: a function of this program.
    unsafe { libc::atexit(wait) };
    launch(cuda, 4, launches);
}

/// Ends without exit handlers.
fn hard(cuda: &Cuda) {
    cuda.init().unwrap();
    let kernel = cuda.function("last", Some(100)).unwrap();
    for _ in 0..1_000 {
        cuda.launch(kernel, Stream::DEFAULT).unwrap();
    }
    cuda.synchronize().unwrap();
    says("launched");
    exit_hard(0);
}
