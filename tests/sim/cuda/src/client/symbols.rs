//! The functions that a program looks up.
#![expect(unsafe_code, reason = "functions of a library are looked up")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

macro_rules! symbols {
    ($($name:ident: fn($($argument:ty),*) $(-> $answer:ty)?;)+) => {
        #[derive(Clone, Copy, Debug)]
        #[expect(non_snake_case, reason = "these are the functions' names")]
        pub(super) struct Symbols { $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)+ }

        impl Symbols {
            pub(super) fn find(library: *mut c_void) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        let symbol = symbol(library, stringify!($name));
                        if symbol.is_null() {
                            return Err(stringify!($name));
                        }
                        // SAFETY: a library that has a function of this name has it with the driver's signature.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $answer)?>(symbol)
                        }
                    },)+
                })
            }
        }
    };
}

symbols! {
    cuInit: fn(c_uint) -> u32;
    cuDevicePrimaryCtxRetain: fn(*mut usize, c_int) -> u32;
    cuCtxSetCurrent: fn(usize) -> u32;
    cuCtxSynchronize: fn() -> u32;
    cuStreamCreate: fn(*mut usize, c_uint) -> u32;
    cuStreamSynchronize: fn(usize) -> u32;
    cuMemGetInfo_v2: fn(*mut usize, *mut usize) -> u32;
    cuMemAlloc_v2: fn(*mut u64, usize) -> u32;
    cuMemFree_v2: fn(u64) -> u32;
    cuMemAllocAsync: fn(*mut u64, usize, usize) -> u32;
    cuMemFreeAsync: fn(u64, usize) -> u32;
    cuMemAllocHost_v2: fn(*mut u64, usize) -> u32;
    cuMemFreeHost: fn(u64) -> u32;
    cuMemAddressReserve: fn(*mut u64, usize, usize, u64, u64) -> u32;
    cuMemAddressFree: fn(u64, usize) -> u32;
    cuMemCreate: fn(*mut u64, usize, *const [u32; 8], u64) -> u32;
    cuMemRelease: fn(u64) -> u32;
    cuMemMap: fn(u64, usize, usize, u64, u64) -> u32;
    cuMemUnmap: fn(u64, usize) -> u32;
    cuMemcpyHtoD_v2: fn(u64, usize, usize) -> u32;
    cuMemcpyDtoH_v2: fn(usize, u64, usize) -> u32;
    cuMemcpyDtoD_v2: fn(u64, u64, usize) -> u32;
    cuMemcpyHtoDAsync_v2: fn(u64, usize, usize, usize) -> u32;
    cuMemcpyDtoHAsync_v2: fn(usize, u64, usize, usize) -> u32;
    cuMemcpyDtoDAsync_v2: fn(u64, u64, usize, usize) -> u32;
    cuMemsetD8Async: fn(u64, u8, usize, usize) -> u32;
    cuMemsetD32Async: fn(u64, c_uint, usize, usize) -> u32;
    cuLaunchKernel: fn(usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize, *mut c_void, *mut c_void) -> u32;
    cuGraphLaunch: fn(usize, usize) -> u32;
    plimsoll_sim_function: fn(*const c_char, u64) -> usize;
    plimsoll_sim_duration: fn(*const c_char) -> u64;
    plimsoll_sim_graph: fn(*const usize, usize) -> usize;
    plimsoll_sim_copy_ns: fn(u32, u64) -> u64;
    plimsoll_sim_set: fn(*const c_char, *const c_char) -> u32;
}

fn symbol(library: *mut c_void, name: &str) -> *mut c_void {
    let Ok(name) = CString::new(name) else {
        return std::ptr::null_mut();
    };
    // SAFETY: a handle of dlopen and a text.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}
