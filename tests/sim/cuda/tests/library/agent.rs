//! The smallest client of CUPTI: it keeps every record that it is given.
#![expect(unsafe_code, reason = "calls CUPTI, and is called by it")]

use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A record as long as the next one is away.
pub(crate) type Record = Vec<u8>;

/// All that came so far. Callbacks have no place for a client's own data, so there is one for all tests, which take turns.
static RECORDS: Mutex<Vec<Record>> = Mutex::new(Vec::new());
/// What the walk through a buffer ended with, for each buffer.
static ENDS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static NEXT_RECORD: AtomicUsize = AtomicUsize::new(0);
/// Size of the buffers that are handed out, and whether any is.
pub(crate) static BUFFER_BYTES: AtomicUsize = AtomicUsize::new(64 << 10);
pub(crate) static REFUSES: AtomicBool = AtomicBool::new(false);
/// What buffers are filled with before they are handed out.
pub(crate) static FILLED_WITH_ONES: AtomicBool = AtomicBool::new(false);

/// The last word of the last buffer that came back.
pub(crate) static LAST_WORD: AtomicU64 = AtomicU64::new(0);

type NextRecord = unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> u32;
type Callback = unsafe extern "C" fn(*mut c_void, u32, u32, *const CallData);

/// The beginning of `CUpti_CallbackData`.
#[repr(C)]
pub(crate) struct CallData {
    pub(crate) site: u32,
    pub(crate) name: *const std::ffi::c_char,
    pub(crate) params: *const u64,
    pub(crate) result: *const u32,
}

/// CUPTI's functions in one copy of the library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cupti {
    library: *mut c_void,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, most_records: *mut usize) {
    let bytes = BUFFER_BYTES.load(Ordering::SeqCst);
    let fill = if FILLED_WITH_ONES.load(Ordering::SeqCst) {
        u64::MAX
    } else {
        0
    };
    let memory = vec![fill; bytes / 8].into_boxed_slice();
    let refuses = REFUSES.load(Ordering::SeqCst);
    let memory = if refuses {
        std::ptr::null_mut()
    } else {
        Box::into_raw(memory).cast::<u8>()
    };
    // SAFETY: CUPTI gives writable places.
    unsafe {
        buffer.write(memory);
        size.write(bytes);
        most_records.write(0);
    }
}

unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, size: usize, valid: usize) {
    // SAFETY: the tests store a function of this type there before they register.
    let next: NextRecord = unsafe { std::mem::transmute(NEXT_RECORD.load(Ordering::SeqCst)) };
    let mut starts = Vec::new();
    let mut record = std::ptr::null_mut();
    // SAFETY: the buffer as CUPTI gave it.
    let mut end = unsafe { next(buffer, valid, &raw mut record) };
    while end == 0 {
        starts.push(record.addr() - buffer.addr());
        // SAFETY: as above.
        end = unsafe { next(buffer, valid, &raw mut record) };
    }
    // SAFETY: `requested` made this buffer of a box of this size.
    let words = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.cast::<u64>(), size / 8)) };
    let memory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    LAST_WORD.store(u64_at(&memory, size - 8), Ordering::SeqCst);
    let ends = starts.iter().skip(1).copied().chain([valid]);
    let mut records = lock(&RECORDS);
    for (start, end) in starts.iter().zip(ends) {
        records.push(memory[*start..end].to_vec());
    }
    lock(&ENDS).push(end);
}

impl Cupti {
    pub(crate) fn open(path: &Path) -> Self {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the library is the crate's own.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        Self { library }
    }

    pub(crate) fn has(self, name: &str) -> bool {
        let name = CString::new(name).unwrap();
        // SAFETY: a handle of dlopen and a text.
        !unsafe { libc::dlsym(self.library, name.as_ptr()) }.is_null()
    }

    fn symbol(self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: a handle of dlopen and a text.
        let symbol = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    }

    /// Calls a function with numbers or pointers, which all fit into a register of their own.
    pub(crate) fn call(self, name: &str, arguments: [usize; 5]) -> u32 {
        type Any = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> u32;
        // SAFETY: functions of C take less arguments than they are given without harm on x86-64 and arm64.
        let function = unsafe { std::mem::transmute::<*mut c_void, Any>(self.symbol(name)) };
        let [a, b, c, d, e] = arguments;
        // SAFETY: the tests pass what CUPTI documents.
        unsafe { function(a, b, c, d, e) }
    }

    /// Begins to collect these kinds.
    pub(crate) fn collect(self, kinds: &[u32]) {
        NEXT_RECORD.store(
            self.symbol("cuptiActivityGetNextRecord").expose_provenance(),
            Ordering::SeqCst,
        );
        let callbacks = [requested as *const () as usize, completed as *const () as usize];
        let registered = self.call(
            "cuptiActivityRegisterCallbacks",
            [callbacks[0], callbacks[1], 0, 0, 0],
        );
        assert_eq!(registered, 0);
        for kind in kinds {
            assert_eq!(self.call("cuptiActivityEnable", [*kind as usize, 0, 0, 0, 0]), 0);
        }
    }

    pub(crate) fn flush(self) -> u32 {
        self.call("cuptiActivityFlushAll", [0; 5])
    }

    pub(crate) fn flush_forced(self) -> u32 {
        self.call("cuptiActivityFlushAll", [1, 0, 0, 0, 0])
    }

    pub(crate) fn dropped(self) -> usize {
        let mut count = usize::MAX;
        let place = (&raw mut count).expose_provenance();
        assert_eq!(
            self.call("cuptiActivityGetNumDroppedRecords", [0, 0, place, 0, 0]),
            0
        );
        count
    }

    pub(crate) fn subscribe(self, callback: Callback) -> (u32, usize) {
        let mut handle = 0_usize;
        let place = (&raw mut handle).expose_provenance();
        let code = self.call("cuptiSubscribe", [place, callback as *const () as usize, 0, 0, 0]);
        (code, handle)
    }
}

/// Takes all records that have come.
pub(crate) fn take() -> Vec<Record> {
    std::mem::take(&mut *lock(&RECORDS))
}

/// How many have come.
pub(crate) fn count() -> usize {
    lock(&RECORDS).len()
}

/// Takes what the walks through buffers ended with.
pub(crate) fn take_ends() -> Vec<u32> {
    std::mem::take(&mut *lock(&ENDS))
}

pub(crate) fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*record[at..].first_chunk().unwrap())
}

pub(crate) fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*record[at..].first_chunk().unwrap())
}

/// The text that a pointer in a record points to.
pub(crate) fn text_at(record: &[u8], at: usize) -> Vec<u8> {
    let pointer = std::ptr::with_exposed_provenance(usize::try_from(u64_at(record, at)).unwrap());
    // SAFETY: the library keeps names as long as the process lives.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_bytes().to_vec()
}

pub(crate) fn of_kind(records: &[Record], kind: u32) -> Vec<&Record> {
    records
        .iter()
        .filter(|record| u32_at(record, 0) == kind)
        .collect()
}
