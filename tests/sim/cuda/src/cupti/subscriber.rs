//! The one subscriber of a process, and the calls of the driver that it wants to hear of.
#![expect(unsafe_code, reason = "a client's callback is called")]

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{PoisonError, RwLock};

use crate::cuda::correlation;
use crate::cupti::code;
use crate::record;
use crate::settings;

/// `CUpti_CallbackFunc`.
pub(crate) type Callback = unsafe extern "C" fn(*mut c_void, u32, u32, *const CallData);

/// `CUpti_CallbackData`.
#[repr(C)]
pub(crate) struct CallData {
    site: u32,
    function_name: *const c_char,
    function_params: *const c_void,
    function_return_value: *mut c_void,
    symbol_name: *const c_char,
    context: *mut c_void,
    context_uid: u32,
    correlation_data: *mut u64,
    correlation: u32,
}

const ENTER: u32 = 0;
const EXIT: u32 = 1;
const DRIVER_API: u32 = 1;
/// No release has more functions of the driver.
const FUNCTIONS: u32 = 1024;

#[derive(Clone, Copy)]
struct Subscriber {
    callback: Callback,
    data: *mut c_void,
}

// SAFETY: the pointer is only passed back to the client, who promised that its callback takes it on any thread.
unsafe impl Send for Subscriber {}
// SAFETY: as above.
unsafe impl Sync for Subscriber {}

static SUBSCRIBER: RwLock<Option<Subscriber>> = RwLock::new(None);
static WANTED: [AtomicU64; FUNCTIONS as usize / 64] = [const { AtomicU64::new(0) }; FUNCTIONS as usize / 64];

/// What stands for the subscriber towards the client.
pub(crate) const HANDLE: usize = 0x5B5;

pub(crate) fn subscribe(callback: Callback, data: *mut c_void) -> Result<(), u32> {
    let mut subscriber = SUBSCRIBER.write().unwrap_or_else(PoisonError::into_inner);
    if subscriber.is_some() || settings::get().faults.subscribe_busy {
        return Err(code::MULTIPLE_SUBSCRIBERS);
    }
    *subscriber = Some(Subscriber { callback, data });
    Ok(())
}

pub(crate) fn unsubscribe() {
    *SUBSCRIBER.write().unwrap_or_else(PoisonError::into_inner) = None;
    WANTED.iter().for_each(|word| word.store(0, Relaxed));
}

pub(crate) fn enable(domain: u32, function: u32, on: bool) -> Result<(), u32> {
    if domain != DRIVER_API {
        // Programs that use the driver alone never cause any other.
        return Ok(());
    }
    let word = WANTED
        .get(function as usize / 64)
        .ok_or(code::INVALID_PARAMETER)?;
    let bit = 1 << (function % 64);
    if on {
        word.fetch_or(bit, Relaxed);
    } else {
        word.fetch_and(!bit, Relaxed);
    }
    Ok(())
}

pub(crate) fn enable_domain(domain: u32, on: bool) {
    if domain == DRIVER_API {
        WANTED
            .iter()
            .for_each(|word| word.store(if on { u64::MAX } else { 0 }, Relaxed));
    }
}

/// A function of the driver that clients can hear of.
pub(crate) struct Function {
    id: u32,
    name: &'static CStr,
}

impl Function {
    pub(crate) const fn new(id: u32, name: &'static CStr) -> Self {
        assert!(id < FUNCTIONS);
        Self { id, name }
    }
}

/// Does a call of the driver; the subscriber hears of it before and after, if it wants to.
#[inline]
pub(crate) fn around<P>(function: &Function, params: &P, call: impl FnOnce(u32) -> u32) -> u32 {
    let correlation = correlation::next();
    let wanted = WANTED[(function.id / 64) as usize].load(Relaxed) & (1 << (function.id % 64)) != 0;
    if !wanted {
        return call(correlation);
    }
    let mut result = 0;
    let mut data = 0;
    tell(function, params, ENTER, &mut result, &mut data, correlation);
    result = call(correlation);
    tell(function, params, EXIT, &mut result, &mut data, correlation);
    result
}

fn tell<P>(function: &Function, params: &P, site: u32, result: &mut u32, data: &mut u64, correlation: u32) {
    let Some(subscriber) = *SUBSCRIBER.read().unwrap_or_else(PoisonError::into_inner) else {
        return;
    };
    let context = record::context(crate::cuda::device::current());
    let call = CallData {
        site,
        function_name: function.name.as_ptr(),
        function_params: std::ptr::from_ref(params).cast(),
        function_return_value: std::ptr::from_mut(result).cast(),
        symbol_name: std::ptr::null(),
        context: std::ptr::without_provenance_mut(context as usize),
        context_uid: context,
        correlation_data: std::ptr::from_mut(data),
        correlation,
    };
    // SAFETY: the client registered this function for this use; all that `call` points to lives until it returns.
    unsafe { (subscriber.callback)(subscriber.data, DRIVER_API, function.id, &raw const call) };
}
