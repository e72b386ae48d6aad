//! CUPTI's functions. Each can answer nothing but the code of the fault `fails`.
#![expect(
    unsafe_code,
    reason = "exports C functions, and reads and writes the memory of their callers"
)]

pub(crate) mod activity;
pub(crate) mod code;
mod delivery;
pub(crate) mod lane;
mod rival;
pub(crate) mod subscriber;

use std::ffi::{c_char, c_void};
use std::sync::atomic::Ordering::AcqRel;

use crate::clock;
use crate::cuda::{Out, start};
use crate::cupti::activity::Value;
use crate::cupti::delivery::{Completed, Requested};
use crate::cupti::subscriber::Callback;
use crate::settings;

/// Does a call, unless CUPTI is broken or cannot work here.
#[inline]
fn call(work: impl FnOnce() -> Result<(), u32>) -> u32 {
    if start::is_forked() {
        return code::NOT_INITIALIZED;
    }
    match settings::get().faults.fails {
        Some(code) => code,
        None => work().err().unwrap_or(code::SUCCESS),
    }
}

/// A segmentation fault, as releases of CUPTI have them. Only a true one: a signal that is raised is gone when a handler such as
/// Rust's own returns.
fn crash() {
    // SAFETY: no page is mapped at this address, so this ends the process.
    unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(0) };
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetVersion(version: Out<u32>) -> u32 {
    if settings::get().faults.crash_on_version {
        crash();
    }
    call(|| version.put(settings::get().release.api_version()))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetTimestamp(timestamp: Out<u64>) -> u32 {
    call(|| timestamp.put(clock::shown(clock::now())))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetResultString(result: u32, text: Out<*const c_char>) -> u32 {
    let name = code::name(result).ok_or(code::INVALID_PARAMETER);
    name.and_then(|name| text.put(name.as_ptr()))
        .err()
        .unwrap_or(code::SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityRegisterCallbacks(
    requested: Option<Requested>,
    completed: Option<Completed>,
) -> u32 {
    call(|| {
        let (Some(requested), Some(completed)) = (requested, completed) else {
            return Err(code::INVALID_PARAMETER);
        };
        delivery::register(requested, completed);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnable(kind: u32) -> u32 {
    call(|| activity::enable(kind, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityDisable(kind: u32) -> u32 {
    call(|| activity::enable(kind, false))
}

/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`.
const FORCED: u32 = 1;

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityFlushAll(flag: u32) -> u32 {
    call(|| {
        delivery::flush(flag & FORCED != 0);
        Ok(())
    })
}

/// Full and complete buffers are given back at once in any case, so there is nothing more to do from time to time.
#[unsafe(no_mangle)]
extern "C" fn cuptiActivityFlushPeriod(_milliseconds: u32) -> u32 {
    call(|| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNumDroppedRecords(_context: usize, _stream: u32, dropped: Out<usize>) -> u32 {
    call(|| {
        let count = lane::DROPPED.swap(0, AcqRel);
        dropped.put(usize::try_from(count).unwrap_or(usize::MAX))
    })
}

/// # Safety
/// `buffer` has `valid_bytes` bytes, and `record` is a writable place that has null or one of its records.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuptiActivityGetNextRecord(
    buffer: *mut u8,
    valid_bytes: usize,
    record: *mut *mut u8,
) -> u32 {
    if start::is_forked() {
        return code::NOT_INITIALIZED;
    }
    if buffer.is_null() || record.is_null() {
        return code::INVALID_PARAMETER;
    }
    let sizes = &settings::get().sizes;
    // SAFETY: as the caller promises.
    let last = unsafe { record.read() };
    let at = if last.is_null() {
        0
    } else {
        // SAFETY: a record begins with its kind.
        let kind = unsafe { last.cast::<u32>().read() };
        last.addr().wrapping_sub(buffer.addr()) + sizes.get(kind)
    };
    if at >= valid_bytes {
        return code::MAX_LIMIT_REACHED;
    }
    // SAFETY: `at` is within the caller's buffer.
    let next = unsafe { buffer.add(at) };
    // SAFETY: buffers end with whole records, and each begins with its kind.
    if sizes.get(unsafe { next.cast::<u32>().read_unaligned() }) == 0 {
        return code::INVALID_KIND;
    }
    // SAFETY: as the caller promises.
    unsafe { record.write(next) };
    code::SUCCESS
}

/// # Safety
/// `size` and `value` are null, or point to what CUPTI documents for this attribute.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuptiActivitySetAttribute(
    attribute: u32,
    size: *const usize,
    value: *const c_void,
) -> u32 {
    call(|| {
        if size.is_null() || value.is_null() {
            return Err(code::INVALID_PARAMETER);
        }
        // SAFETY: not null, so it is readable as the caller promises.
        let size = unsafe { size.read() };
        let now = activity::attribute(attribute)?;
        let value = match now {
            Value::Size(_) if size >= size_of::<usize>() => {
                // SAFETY: the value is as long as the caller says, which is long enough.
                Value::Size(unsafe { value.cast::<usize>().read() })
            }
            Value::Flag(_) if size >= 1 => {
                // SAFETY: as above.
                Value::Flag(unsafe { value.cast::<u8>().read() } != 0)
            }
            _ => return Err(code::INVALID_PARAMETER),
        };
        activity::set_attribute(attribute, value)
    })
}

/// # Safety
/// `size` and `value` are null, or point to writable places as CUPTI documents for this attribute.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuptiActivityGetAttribute(attribute: u32, size: *mut usize, value: *mut c_void) -> u32 {
    call(|| {
        if size.is_null() || value.is_null() {
            return Err(code::INVALID_PARAMETER);
        }
        // SAFETY: not null, so it is readable and writable as the caller promises.
        let room = unsafe { size.read() };
        match activity::attribute(attribute)? {
            Value::Size(number) if room >= size_of::<usize>() => {
                // SAFETY: the caller's value has room for it.
                unsafe { value.cast::<usize>().write(number) };
            }
            Value::Flag(on) if room >= 1 => {
                // SAFETY: as above.
                unsafe { value.cast::<u8>().write(on.into()) };
            }
            _ => return Err(code::INVALID_PARAMETER),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiSubscribe(subscriber: Out<usize>, callback: Option<Callback>, data: *mut c_void) -> u32 {
    call(|| {
        subscriber::subscribe(callback.ok_or(code::INVALID_PARAMETER)?, data)?;
        subscriber.put(subscriber::HANDLE)
    })
}

fn check(subscriber: usize) -> Result<(), u32> {
    if subscriber == subscriber::HANDLE {
        Ok(())
    } else {
        Err(code::INVALID_PARAMETER)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuptiUnsubscribe(subscriber: usize) -> u32 {
    call(|| {
        check(subscriber)?;
        subscriber::unsubscribe();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiEnableCallback(enable: u32, subscriber: usize, domain: u32, function: u32) -> u32 {
    call(|| {
        check(subscriber)?;
        subscriber::enable(domain, function, enable != 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiEnableDomain(enable: u32, subscriber: usize, domain: u32) -> u32 {
    call(|| {
        check(subscriber)?;
        subscriber::enable_domain(domain, enable != 0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiFinalize() -> u32 {
    call(|| {
        activity::disable_all();
        subscriber::unsubscribe();
        delivery::flush(true);
        delivery::unregister();
        Ok(())
    })
}
