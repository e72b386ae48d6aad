//! How fast the simulated driver and CUPTI are themselves: launches per second of one thread and of all, with a client that
//! only takes its buffers back. What this machine cannot produce, no agent can be shown to take.
#![expect(unsafe_code, reason = "a client of CUPTI")]
#![expect(clippy::expect_used, reason = "a benchmark ends at the first surprise")]

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::time::Instant;

use plimsoll_sim_cuda::{Cuda, library_path};

const BUFFER_WORDS: usize = 128 << 10;
const LAUNCHES: usize = 2_000_000;

/// Addresses of buffers that are free.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, most: *mut usize) {
    let mut free = FREE.lock().expect("no panic");
    let memory = free.pop().map_or_else(
        || Box::leak(vec![1_u64; BUFFER_WORDS].into_boxed_slice()).as_mut_ptr(),
        std::ptr::with_exposed_provenance_mut,
    );
    // SAFETY: CUPTI gives writable places.
    unsafe {
        buffer.write(memory.cast());
        size.write(BUFFER_WORDS * 8);
        most.write(0);
    }
}

unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, _: usize) {
    FREE.lock().expect("no panic").push(buffer.expose_provenance());
}

fn main() {
    let path = library_path().expect("built beside this program");
    let cuda = Cuda::load(&path).expect("loaded");
    cuda.init().expect("initialised");
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the library is loaded already.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: a handle of dlopen and a text.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null());
        symbol
    };
    type Register = unsafe extern "C" fn(*const c_void, *const c_void) -> u32;
    type Enable = unsafe extern "C" fn(u32) -> u32;
    // SAFETY: CUPTI's signature.
    let register =
        unsafe { std::mem::transmute::<*mut c_void, Register>(symbol(c"cuptiActivityRegisterCallbacks")) };
    // SAFETY: CUPTI's signature.
    let enable = unsafe { std::mem::transmute::<*mut c_void, Enable>(symbol(c"cuptiActivityEnable")) };
    let measure = |what: &str, threads: usize| {
        let function = cuda.function("kernel", Some(1)).expect("made");
        let each = LAUNCHES / threads;
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(move || {
                    let stream = cuda.stream().expect("made");
                    for _ in 0..each {
                        cuda.launch(function, stream).expect("launched");
                    }
                });
            }
        });
        let ns = begin.elapsed().as_nanos() / (each * threads) as u128;
        println!(
            "{what:<28} {threads} threads  {ns:>5} ns a launch  {:>6.2} M/s",
            1e3 / ns as f64
        );
    };
    measure("without CUPTI", 1);
    // SAFETY: callbacks as CUPTI documents them.
    let registered = unsafe { register(requested as *const c_void, completed as *const c_void) };
    // SAFETY: a kind.
    let enabled = unsafe { enable(10) };
    assert_eq!((registered, enabled), (0, 0));
    for threads in [1, 1, 2, 4] {
        measure("with records of kernels", threads);
    }
}
