//! The first call of a program, at which the driver loads what `CUDA_INJECTION64_PATH` names, and the end by `fork`.
#![expect(unsafe_code, reason = "a library is loaded and its start function called")]

use std::ffi::CString;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::cuda::{code, device};
use crate::settings;

const NEW: u32 = 0;
const STARTING: u32 = 1;
const READY: u32 = 2;
/// The state in a child that `fork` made of a process that was using CUDA.
const FORKED: u32 = 3;

static STATE: AtomicU32 = AtomicU32::new(NEW);
static STARTER: AtomicU32 = AtomicU32::new(0);
static WAITING: Mutex<()> = Mutex::new(());
static STARTED: Condvar = Condvar::new();

/// `cuInit`. Others wait until the first caller is through; the injected library itself does not.
pub(crate) fn init() -> u32 {
    match STATE.compare_exchange(NEW, STARTING, AcqRel, Acquire) {
        Ok(_) => start(),
        Err(FORKED) => code::NOT_INITIALIZED,
        Err(READY) => code::SUCCESS,
        Err(_) if STARTER.load(Acquire) == thread_id() => code::SUCCESS,
        Err(_) => {
            let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
            while STATE.load(Acquire) == STARTING {
                waiting = STARTED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            drop(waiting);
            init()
        }
    }
}

fn start() -> u32 {
    STARTER.store(thread_id(), Release);
    let found = device::find_all();
    if found.is_ok() {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        inject();
    }
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    STATE.store(if found.is_ok() { READY } else { NEW }, Release);
    STARTED.notify_all();
    drop(waiting);
    code::of(found)
}

extern "C" fn in_child() {
    STATE.store(FORKED, Release);
}

fn thread_id() -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Whether calls can be answered.
#[inline]
pub(crate) fn is_ready() -> bool {
    matches!(STATE.load(Relaxed), READY | STARTING)
}

/// Whether this is a child of a process that was using CUDA, in which no call works.
pub(crate) fn is_forked() -> bool {
    STATE.load(Relaxed) == FORKED
}

/// Whatever goes wrong here is not the program's affair, as with the real driver.
fn inject() {
    let Some(path) = settings::value(settings::INJECTION).filter(|path| path != "none") else {
        return;
    };
    let Ok(path) = CString::new(path) else { return };
    // SAFETY: loading runs the library's constructors, as the person who set the variable wants.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return;
    }
    // SAFETY: a handle of dlopen and a name.
    let start = unsafe { libc::dlsym(library, c"InitializeInjection".as_ptr()) };
    if start.is_null() {
        return;
    }
    // SAFETY: CUDA documents `int InitializeInjection(void)` for libraries that are injected.
    let start = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> libc::c_int>(start) };
    start();
}
