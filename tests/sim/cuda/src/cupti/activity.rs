//! Which kinds of records are wanted, and the attributes that clients set.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

use crate::cuda::device;
use crate::cupti::code;
use crate::release::kind;
use crate::settings;

static ENABLED: AtomicU64 = AtomicU64::new(0);
/// Enabling GRAPH_TRACE chooses the level for the whole process: disabling it does not bring the nodes back.
static GRAPH_LEVEL: AtomicBool = AtomicBool::new(false);

#[inline]
pub(crate) fn is_enabled(kind: u32) -> bool {
    ENABLED.load(Relaxed) & (1 << (kind % kind::ALL)) != 0
}

/// The kind under which kernels are recorded now.
#[inline]
pub(crate) fn kernels() -> Option<u32> {
    [kind::CONCURRENT_KERNEL, kind::KERNEL]
        .into_iter()
        .find(|&kind| is_enabled(kind))
}

pub(crate) fn graph_level() -> bool {
    GRAPH_LEVEL.load(Relaxed)
}

pub(crate) fn enable(kind: u32, on: bool) -> Result<(), u32> {
    if kind == 0 || kind >= kind::ALL {
        return Err(code::INVALID_KIND);
    }
    if on {
        let fails = &settings::get().faults.enable_fails;
        if let Some((_, code)) = fails.iter().find(|(fails, _)| *fails == kind) {
            return Err(*code);
        }
        ENABLED.fetch_or(1 << kind, Relaxed);
        if kind == kind::GRAPH_TRACE {
            GRAPH_LEVEL.store(true, Relaxed);
        }
        device::take_tracing_memory();
    } else {
        ENABLED.fetch_and(!(1 << kind), Relaxed);
    }
    Ok(())
}

pub(crate) fn disable_all() {
    ENABLED.store(0, Relaxed);
}

/// Whether anything is wanted for which CUPTI keeps buffers on the device.
pub(crate) fn uses_device_buffers() -> bool {
    let kinds = [
        kind::KERNEL,
        kind::CONCURRENT_KERNEL,
        kind::GRAPH_TRACE,
        kind::MEMCPY,
        kind::MEMSET,
    ];
    kinds.into_iter().any(is_enabled)
}

/// The attributes (`CUpti_ActivityAttribute`) of each width that this library knows.
static SIZES: [AtomicUsize; 8] = [
    AtomicUsize::new(3_200_000),
    AtomicUsize::new(8 << 20),
    AtomicUsize::new(250),
    AtomicUsize::new(25_000),
    AtomicUsize::new(250),
    AtomicUsize::new(0),
    AtomicUsize::new(3),
    AtomicUsize::new(3),
];
const DEVICE_BUFFER_SIZE: usize = 0;
const POOL_LIMIT: usize = 2;
const ZEROED_OUT: u32 = 5;
const PRE_ALLOCATE: usize = 6;
const HOST_PINNED: u32 = 8;
const PER_THREAD: u32 = 9;

static BUFFERS_ARE_ZEROED: AtomicBool = AtomicBool::new(false);
static IS_HOST_PINNED: AtomicBool = AtomicBool::new(false);
/// 2 while nobody chose.
static IS_PER_THREAD: AtomicU8 = AtomicU8::new(2);

pub(crate) fn buffers_are_zeroed() -> bool {
    BUFFERS_ARE_ZEROED.load(Relaxed)
}

/// Whether each thread has its own buffers.
#[inline]
pub(crate) fn per_thread() -> bool {
    match IS_PER_THREAD.load(Relaxed) {
        2 => by_default(),
        chosen => chosen != 0,
    }
}

fn by_default() -> bool {
    static DEFAULT: OnceLock<bool> = OnceLock::new();
    *DEFAULT.get_or_init(|| settings::get().release.buffers_per_thread() == Some(true))
}

/// An attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Size(usize),
    Flag(bool),
}

pub(crate) fn attribute(attribute: u32) -> Result<Value, u32> {
    match attribute {
        ZEROED_OUT => Ok(Value::Flag(buffers_are_zeroed())),
        HOST_PINNED => Ok(Value::Flag(IS_HOST_PINNED.load(Acquire))),
        PER_THREAD if settings::get().release.buffers_per_thread().is_some() => Ok(Value::Flag(per_thread())),
        _ => SIZES
            .get(attribute as usize)
            .map(|size| Value::Size(size.load(Acquire)))
            .ok_or(code::INVALID_PARAMETER),
    }
}

pub(crate) fn set_attribute(attribute: u32, value: Value) -> Result<(), u32> {
    match (attribute, value) {
        (ZEROED_OUT, Value::Flag(on)) => BUFFERS_ARE_ZEROED.store(on, Release),
        (HOST_PINNED, Value::Flag(on)) => IS_HOST_PINNED.store(on, Release),
        (PER_THREAD, Value::Flag(on)) => IS_PER_THREAD.store(on.into(), Release),
        (_, Value::Size(size)) => {
            let place = SIZES.get(attribute as usize).ok_or(code::INVALID_PARAMETER)?;
            place.store(size, Release);
        }
        _ => return Err(code::INVALID_PARAMETER),
    }
    Ok(())
}

/// Device memory that CUPTI takes in each context when something is wanted that needs it.
pub(crate) fn device_bytes() -> u64 {
    if !uses_device_buffers() || IS_HOST_PINNED.load(Acquire) {
        return 0;
    }
    let size = |attribute: usize| SIZES[attribute].load(Acquire);
    (size(DEVICE_BUFFER_SIZE) * size(PRE_ALLOCATE).min(size(POOL_LIMIT))) as u64
}
