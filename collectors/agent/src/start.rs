//! The start, on the thread that initialises CUDA: CUPTI has to be told what is wanted before there is a context.

use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use cupti_sys::Library;
use plimsoll_trace::TraceTier;
use plimsoll_trace::wire::Process;

use crate::buffers::Buffers;
use crate::clock;
use crate::control::{Control, Desired};
use crate::cycle::{Cycle, Tracing, go_quiet};
use crate::exit;
use crate::hooks::Hooked;
use crate::options::Options;
use crate::ship::Ship;
use crate::socket::Connection;
use crate::subscription;

const STACK_BYTES: usize = 512 << 10;

/// Starts recording if it was asked for, then the injected library whose place this one took.
pub(crate) fn start() {
    let began_ns = clock::thread();
    let variable = |name: &str| std::env::var(name).ok();
    let (mut options, mut notes) = Options::read(variable);
    if options.virtual_memory.is_none() {
        let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
        let chains = options.chain.is_some();
        let left = subscription::is_left(&String::from_utf8_lossy(&maps), chains, variable);
        options.virtual_memory = Some(left.is_none());
        notes.extend(left.map(str::to_owned));
    }
    let chained = options.chain.clone();
    if options.tier != TraceTier::Off
        && let Some(socket) = options.socket.clone()
    {
        record(options, &socket, notes, began_ns);
    }
    if let Some(chained) = chained {
        chain(&chained);
    }
}

fn record(options: Options, socket: &Path, notes: Vec<String>, began_ns: u64) {
    // Without a ring there is nothing to tell with, not even why.
    let Ok(ship) = Ship::create(options.ring_bytes) else {
        return;
    };
    let tracing = trace(&options);
    let process = introduce(&options, tracing.as_ref().ok());
    if let Ok(tracing) = &tracing {
        let spent = clock::thread().saturating_sub(began_ns);
        tracing.hooked.hooks_ns.fetch_add(spent, Relaxed);
    }
    let hooked = tracing.as_ref().ok().map(|tracing| tracing.hooked);
    let patience = options.exit;
    let cycle = Cycle::new(options, ship, Connection::to(socket), process, tracing, notes);
    let Some(thread) = spawn(cycle) else {
        // Nobody would count what CUPTI records.
        hooked.inspect(|hooked| go_quiet(&hooked.functions));
        return;
    };
    if let Some(hooked) = hooked {
        hooked.thread.get_or_init(|| thread.clone());
    }
    exit::attend(thread, patience);
}

/// Loads CUPTI and enables what the tier needs, or says why not.
fn trace(options: &Options) -> Result<Tracing, String> {
    let library = Library::open(options.cupti.as_deref()).map_err(|error| error.to_string())?;
    // As many as a busy process has in use at once keep their pages.
    let kept = if options.tier == TraceTier::Memory { 2 } else { 8 };
    let buffers =
        Buffers::reserve(kept).map_err(|error| format!("there is no memory for buffers: {error}"))?;
    let hooked = Hooked::new(*library.functions(), buffers).publish();
    let mut control = Control::new(*library.functions());
    control.prepare(options.observes_virtual_memory());
    // Kernels from the beginning, in every tier that has them: enabled later, each module that is loaded is changed then.
    control.make(Desired {
        tier: options.tier,
        kernels: true,
        virtual_memory: options.observes_virtual_memory(),
        watched: None,
    });
    Ok(Tracing {
        library,
        hooked,
        control,
    })
}

fn introduce(options: &Options, tracing: Option<&Tracing>) -> Process {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let exe = std::env::current_exe().map_or_else(|_| String::new(), |exe| exe.display().to_string());
    Process {
        pid: std::process::id(),
        tier: options.tier,
        // Not asked for: there is a release that ends the process that asks.
        cupti: tracing.map(|_| 0),
        flush_ms: u32::try_from(options.flush.as_millis()).unwrap_or(u32::MAX),
        rank: number("RANK"),
        local_rank: number("LOCAL_RANK"),
        visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default(),
        exe,
        budget_ppm: Some(options.budget_ppm()),
    }
}

/// Starts the agent's thread with every signal blocked: those sent to the process are the program's threads' to take.
fn spawn(cycle: Cycle) -> Option<std::thread::Thread> {
    // SAFETY: both sets are locals; an all-zero set is one.
    let before = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let thread = std::thread::Builder::new()
        .name("plimsoll-agent".to_owned())
        .stack_size(STACK_BYTES);
    let started = thread.spawn(move || cycle.run());
    // SAFETY: puts back what was there, on the same thread.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    Some(started.ok()?.thread().clone())
}

/// Loads another injected library and starts it as the driver would.
fn chain(path: &Path) {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return;
    };
    // SAFETY: the path is a C string; a library that its user injects is as trusted as one that CUDA injects.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return;
    }
    // SAFETY: the handle is open and the name is a C string.
    let start = unsafe { libc::dlsym(library, c"InitializeInjection".as_ptr()) };
    if !start.is_null() {
        // SAFETY: an injected library's function of this name has this signature.
        let start = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(start) };
        start();
    }
}
