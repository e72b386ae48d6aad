//! The functions: what each is called, what it takes, and which of them must be there.

use std::ffi::{c_char, c_void};
use std::ptr;

use crate::Answer;

/// Called by CUPTI on any thread of the program when it needs a buffer: where to, its size, and the most records in it
/// (0 for as many as fit).
pub type RequestBuffer = extern "C" fn(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize);

/// Called by CUPTI on any thread when a buffer is full or flushed: context, stream, the buffer, its size, and how much of
/// it is valid.
pub type CompleteBuffer =
    extern "C" fn(context: *mut c_void, stream: u32, buffer: *mut u8, size: usize, valid: usize);

/// Called by CUPTI around a call of the program's that somebody subscribed to.
pub type ApiCallback = extern "C" fn(user: *mut c_void, domain: u32, call: u32, data: *const CallbackData);

/// `CUpti_SubscriberHandle`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber(pub *mut c_void);

// SAFETY: a handle is an opaque word; CUPTI's functions that take one may be called from any thread.
unsafe impl Send for Subscriber {}

/// `CUpti_CallbackData`, which has kept its layout.
#[repr(C)]
#[derive(Debug)]
pub struct CallbackData {
    /// One of [`crate::constant::site`].
    pub site: u32,
    /// The function's name.
    pub function_name: *const c_char,
    /// A struct of its parameters, as the function declares them.
    pub parameters: *const c_void,
    /// What it returned, on exit.
    pub returned: *const c_void,
    /// The kernel's name, of launches.
    pub symbol_name: *const c_char,
    /// The context.
    pub context: *mut c_void,
    /// Its number.
    pub context_uid: u32,
    /// A word of the subscriber's that lives from enter to exit.
    pub correlation_data: *mut u64,
    /// The number of the call in activity records.
    pub correlation_id: u32,
}

macro_rules! functions {
    (
        needed { $($(#[$doc:meta])* $field:ident: $symbol:literal fn($($type:ty),*);)+ }
        optional { $($(#[$odoc:meta])* $ofield:ident: $osymbol:literal fn($($otype:ty),*);)+ }
    ) => {
        /// The functions of one library. The fields are open, so that a test can put its own functions in their place;
        /// whoever does vouches that they keep CUPTI's contract.
        #[derive(Clone, Copy, Debug)]
        // SAFETY, of all calls: `Library::open` found the symbols under CUPTI's names, whose contract each caller keeps.
        pub struct Functions {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($type),*) -> Answer,)+
            $($(#[$odoc])* pub $ofield: Option<unsafe extern "C" fn($($otype),*) -> Answer>,)+
        }

        impl Functions {
            /// The functions without which nothing works.
            pub const NEEDED: &'static [&'static str] = &[$($symbol,)+];
            /// The functions that may be missing.
            pub const OPTIONAL: &'static [&'static str] = &[$($osymbol,)+];

            /// Fills the table from what `find` knows.
            ///
            /// # Errors
            /// The first needed function that it does not know.
            ///
            /// # Safety
            /// What `find` returns must be null or the function of that name of a CUPTI library that stays loaded.
            pub unsafe fn resolve(find: impl Fn(&'static str) -> *mut c_void) -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        let found = find($symbol);
                        if found.is_null() {
                            return Err($symbol);
                        }
                        // SAFETY: the caller vouches that it is the function of this name, which has this signature.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> Answer>(found)
                        }
                    },)+
                    $($ofield: {
                        let found = find($osymbol);
                        (!found.is_null()).then(|| {
                            // SAFETY: as above.
                            unsafe {
                                std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($otype),*) -> Answer>(found)
                            }
                        })
                    },)+
                })
            }
        }
    };
}

functions! {
    needed {
        /// Who hands out buffers and takes them back: for the whole process, and the last caller wins.
        register_callbacks: "cuptiActivityRegisterCallbacks" fn(RequestBuffer, CompleteBuffer);
        /// Records of a kind from here on.
        enable: "cuptiActivityEnable" fn(u32);
        /// No records of a kind from here on.
        disable: "cuptiActivityDisable" fn(u32);
        /// Hands all buffers with finished records back.
        flush_all: "cuptiActivityFlushAll" fn(u32);
        /// Steps from record to record.
        get_next_record: "cuptiActivityGetNextRecord" fn(*mut u8, usize, *mut *mut u8);
        /// How many records were dropped since the last such call.
        get_num_dropped_records: "cuptiActivityGetNumDroppedRecords" fn(*mut c_void, u32, *mut usize);
        /// A setting, with the size of its value.
        set_attribute: "cuptiActivitySetAttribute" fn(u32, *mut usize, *mut c_void);
        /// CUPTI's clock, ns.
        get_timestamp: "cuptiGetTimestamp" fn(*mut u64);
    }
    optional {
        /// A setting, with the size of its value.
        get_attribute: "cuptiActivityGetAttribute" fn(u32, *mut usize, *mut c_void);
        /// The API's version. Crashes in 13.2.86 where there is no driver.
        get_version: "cuptiGetVersion" fn(*mut u32);
        /// Becomes the one subscriber for callbacks.
        subscribe: "cuptiSubscribe" fn(*mut Subscriber, ApiCallback, *mut c_void);
        /// Is it no more.
        unsubscribe: "cuptiUnsubscribe" fn(Subscriber);
        /// Callbacks for a call, on or off.
        enable_callback: "cuptiEnableCallback" fn(u32, Subscriber, u32, u32);
        /// Text for an answer.
        get_result_string: "cuptiGetResultString" fn(Answer, *mut *const c_char);
    }
}

/// The calls. An `Err` is what CUPTI answered; a function that is missing answers [`Answer::NOT_SUPPORTED`].
impl Functions {
    /// Registers the two callbacks for the whole process.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn register_callbacks(&self, request: RequestBuffer, complete: CompleteBuffer) -> Result<(), Answer> {
        // SAFETY: the callbacks are functions, which live for ever.
        unsafe { (self.register_callbacks)(request, complete) }.done()
    }

    /// Enables a kind of record.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn enable(&self, kind: u32) -> Result<(), Answer> {
        // SAFETY: takes a number.
        unsafe { (self.enable)(kind) }.done()
    }

    /// Disables a kind of record.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn disable(&self, kind: u32) -> Result<(), Answer> {
        // SAFETY: takes a number.
        unsafe { (self.disable)(kind) }.done()
    }

    /// Brings all buffers with finished records; with [`crate::constant::FLUSH_FORCED`] the unfinished too. Never to be
    /// called inside a buffer callback.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn flush_all(&self, flag: u32) -> Result<(), Answer> {
        // SAFETY: takes a number.
        unsafe { (self.flush_all)(flag) }.done()
    }

    /// How many records were dropped since the last such call.
    ///
    /// # Errors
    /// CUPTI's answer.
    ///
    /// # Safety
    /// `context` must be null or a live context.
    pub unsafe fn dropped_records(&self, context: *mut c_void, stream: u32) -> Result<u64, Answer> {
        let mut count = 0_usize;
        // SAFETY: the caller vouches for the context; the count is written to a local.
        unsafe { (self.get_num_dropped_records)(context, stream, &raw mut count) }.done()?;
        Ok(count as u64)
    }

    /// Sets a setting of type `size_t` (`usize`) or `uint8_t` (`u8`).
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn set_attribute<T: Setting>(&self, attribute: u32, mut value: T) -> Result<(), Answer> {
        let mut size = size_of::<T>();
        // SAFETY: size and value are locals, and the size is the value's.
        unsafe { (self.set_attribute)(attribute, &raw mut size, (&raw mut value).cast()) }.done()
    }

    /// Reads a setting of type `size_t`.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn attribute(&self, attribute: u32) -> Result<usize, Answer> {
        let get = self.get_attribute.ok_or(Answer::NOT_SUPPORTED)?;
        let (mut size, mut value) = (size_of::<usize>(), 0_usize);
        // SAFETY: size and value are locals, and the size is the value's.
        unsafe { get(attribute, &raw mut size, (&raw mut value).cast()) }.done()?;
        Ok(value)
    }

    /// CUPTI's clock, ns.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn timestamp(&self) -> Result<u64, Answer> {
        let mut now = 0;
        // SAFETY: writes to a local.
        unsafe { (self.get_timestamp)(&raw mut now) }.done()?;
        Ok(now)
    }

    /// The API's version: 18 for 11.8 to 12.1, later 130000 + 100 * minor + update.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn version(&self) -> Result<u32, Answer> {
        let get = self.get_version.ok_or(Answer::NOT_SUPPORTED)?;
        let mut version = 0;
        // SAFETY: writes to a local.
        unsafe { get(&raw mut version) }.done()?;
        Ok(version)
    }

    /// Becomes the process's subscriber.
    ///
    /// # Errors
    /// CUPTI's answer; [`Answer::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED`] where there is one already.
    pub fn subscribe(&self, callback: ApiCallback) -> Result<Subscriber, Answer> {
        let subscribe = self.subscribe.ok_or(Answer::NOT_SUPPORTED)?;
        let mut subscriber = Subscriber(ptr::null_mut());
        // SAFETY: writes to a local; the callback is a function, which lives for ever, and takes no user data.
        unsafe { subscribe(&raw mut subscriber, callback, ptr::null_mut()) }.done()?;
        Ok(subscriber)
    }

    /// Gives the subscription back.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn unsubscribe(&self, subscriber: Subscriber) -> Result<(), Answer> {
        let unsubscribe = self.unsubscribe.ok_or(Answer::NOT_SUPPORTED)?;
        // SAFETY: the handle came from CUPTI, which checks it.
        unsafe { unsubscribe(subscriber) }.done()
    }

    /// Callbacks for a call, on or off.
    ///
    /// # Errors
    /// CUPTI's answer.
    pub fn enable_callback(
        &self,
        on: bool,
        subscriber: Subscriber,
        domain: u32,
        call: u32,
    ) -> Result<(), Answer> {
        let enable = self.enable_callback.ok_or(Answer::NOT_SUPPORTED)?;
        // SAFETY: the handle came from CUPTI, which checks it.
        unsafe { enable(on.into(), subscriber, domain, call) }.done()
    }
}

/// A type that settings have.
pub trait Setting: Copy + sealed::Sealed {}
impl Setting for usize {}
impl Setting for u8 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for usize {}
    impl Sealed for u8 {}
}
