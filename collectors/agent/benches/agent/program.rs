//! The program that is measured: it launches kernels over the simulated driver, with the agent in it, with the least
//! consumer in it, or with neither.
#![expect(unsafe_code, reason = "the least consumer's callbacks")]

use std::ffi::c_void;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cupti_sys::constant::kind;
use cupti_sys::{Functions, Library};
use plimsoll_sim_cuda::{Cuda, library_path};
use rustix::time::{ClockId, clock_gettime};

use crate::floor::Floor;

/// The argument that makes this binary the program.
pub(crate) const WORD: &str = "as-program";

const THREADS: usize = 4;
const NAMES: usize = 200;

/// `WITH SECONDS RATE`: with `floor` the least consumer; launches per second over all threads, 0 for as many as there can be.
pub(crate) fn main(words: &[String]) {
    let with = words[0].as_str();
    let seconds = Duration::from_secs_f64(words[1].parse().unwrap());
    let rate: u64 = words[2].parse().unwrap();
    let cuda = Cuda::load(&library_path().unwrap()).unwrap();
    if with == "floor" {
        least();
    }
    let before = resident();
    let began = Instant::now();
    cuda.init().unwrap();
    let injection_us = began.elapsed().as_micros();
    let kernels: Vec<_> = (0..NAMES)
        .map(|name| cuda.function(&format!("_Z9kernel{name:04}v"), Some(20)).unwrap())
        .collect();
    let latencies = Mutex::new(Vec::new());
    let launches = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (kernels, latencies, launches) = (&kernels, &latencies, &launches);
            scope.spawn(move || {
                let stream = cuda.stream().unwrap();
                let mut own = Vec::with_capacity(1 << 22);
                let mut count = 0_u64;
                let each = rate / THREADS as u64;
                while began.elapsed() < seconds {
                    // A hundred at a time, as a step of an engine comes; then the pause that the rate leaves.
                    for kernel in kernels.iter().cycle().skip(thread * 50).take(100) {
                        let launch = Instant::now();
                        cuda.launch(*kernel, stream).unwrap();
                        if own.len() < own.capacity() {
                            own.push(u32::try_from(launch.elapsed().as_nanos()).unwrap_or(u32::MAX));
                        }
                    }
                    count += 100;
                    if let Some(due) = (count * 1_000_000_000).checked_div(each) {
                        std::thread::sleep(Duration::from_nanos(due).saturating_sub(began.elapsed()));
                    }
                }
                launches.fetch_add(count, Ordering::Relaxed);
                latencies.lock().unwrap().extend(own);
            });
        }
    });
    let elapsed = began.elapsed();
    cuda.synchronize().unwrap();
    let mut latencies = latencies.into_inner().unwrap();
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 1000];
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    // The latencies are the program's own memory.
    let resident = resident_without(latencies.capacity() * 4).saturating_sub(before);
    let counted = FLOOR.lock().unwrap().as_ref().map_or(0, Floor::count);
    println!(
        "{} {} {injection_us} {} {} {threads} {resident} {} {counted}",
        launches.into_inner(),
        elapsed.as_micros(),
        at(500),
        at(990),
        SPENT.load(Ordering::Relaxed)
    );
    // Until whoever measures is done with looking at it.
    std::io::stdin().read_exact(&mut [0]).ok();
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4
}

fn resident_without(bytes: usize) -> usize {
    resident().saturating_sub(bytes / 1024)
}

static FUNCTIONS: Mutex<Option<Functions>> = Mutex::new(None);
static FLOOR: Mutex<Option<Floor>> = Mutex::new(None);
/// What adding up cost, ns.
static SPENT: AtomicU64 = AtomicU64::new(0);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
const BUFFER: usize = 1 << 20;

/// The least consumer: buffers from a list, added up where they come back, flushed each second.
fn least() {
    let library = Library::open(Some(&library_path().unwrap())).unwrap();
    let functions = *library.functions();
    *FUNCTIONS.lock().unwrap() = Some(functions);
    *FLOOR.lock().unwrap() = Some(Floor::new());
    functions.set_attribute(5, 1_u8).ok();
    functions.register_callbacks(request, complete).unwrap();
    for kind in [kind::GRAPH_TRACE, kind::CONCURRENT_KERNEL] {
        functions.enable(kind).unwrap();
    }
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            functions.flush_all(0).ok();
        }
    });
}

extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    let free = FREE.lock().unwrap().pop();
    let start = free.unwrap_or_else(|| {
        Box::leak(vec![0_u64; BUFFER / 8].into_boxed_slice())
            .as_mut_ptr()
            .expose_provenance()
    });
    // SAFETY: three places to write to.
    unsafe {
        *buffer = std::ptr::with_exposed_provenance_mut(start);
        *size = BUFFER;
        *max_records = 0;
    }
}

fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

extern "C" fn complete(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    let began = thread_ns();
    if let (Some(functions), Some(floor)) = (&*FUNCTIONS.lock().unwrap(), &mut *FLOOR.lock().unwrap()) {
        floor.read(functions, buffer, valid);
    }
    // SAFETY: the buffer is this consumer's own again.
    unsafe { std::ptr::write_bytes(buffer, 0, valid) };
    SPENT.fetch_add(thread_ns() - began, Ordering::Relaxed);
    FREE.lock().unwrap().push(buffer.expose_provenance());
}
