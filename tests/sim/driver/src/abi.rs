//! What crosses the C border: pointers of the caller, device handles, and return codes.
//!
//! The pointer types are transparent: in a signature they are the pointer that nvml.h writes there. Only a C caller
//! makes one, which is why using it is the one place where this library trusts its caller, exactly as far as NVML's
//! documentation obliges that caller: a pointer is null or points to what its parameter's type says.
#![expect(unsafe_code, reason = "the memory of a C caller is read and written")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT, nvmlReturn_t,
    nvmlUtilization_t,
};

/// How a call ends: well, or with an NVML error code.
pub(crate) type Answer = Result<(), nvmlReturn_t>;

/// Where the caller wants one value.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

/// A value of numbers only, in which all ones is as good as any other content.
///
/// # Safety
/// Every bit pattern is a valid value of the type.
pub(crate) unsafe trait Numbers: Copy {}

// SAFETY: integers, and C structs that consist of integers only.
unsafe impl Numbers for c_uint {}
// SAFETY: as above.
unsafe impl Numbers for c_int {}
// SAFETY: as above.
unsafe impl Numbers for c_ulonglong {}
// SAFETY: as above.
unsafe impl Numbers for nvmlMemory_t {}
// SAFETY: as above.
unsafe impl Numbers for nvmlMemory_v2_t {}
// SAFETY: as above.
unsafe impl Numbers for nvmlBAR1Memory_t {}
// SAFETY: as above.
unsafe impl Numbers for nvmlUtilization_t {}

impl<T> Out<T> {
    /// Writes the value; a null pointer is an invalid argument.
    pub(crate) fn put(&self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by NVML's contract it points to writable memory for a `T`.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

impl<T: Numbers> Out<T> {
    /// Writes all ones.
    pub(crate) fn put_all_ones(&self) -> Answer {
        if self.0.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by NVML's contract it points to writable memory for a `T`, for which any bits are valid.
        unsafe { self.0.write_bytes(0xFF, 1) };
        Ok(())
    }

    /// Reads what the caller put there before the call, for parameters that go in and out.
    pub(crate) fn get(&self) -> Result<T, nvmlReturn_t> {
        if self.0.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by NVML's contract it points to an initialised `T` when the parameter also goes in.
        Ok(unsafe { self.0.read() })
    }
}

impl Out<nvmlMemory_v2_t> {
    /// Reads the version field alone: the caller sets no other.
    pub(crate) fn version(&self) -> Result<c_uint, nvmlReturn_t> {
        Out(self.0.cast::<c_uint>()).get()
    }
}

/// Where the caller wants many values; how many fit is another parameter.
#[repr(transparent)]
pub(crate) struct OutMany<T>(*mut T);

impl<T> OutMany<T> {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Writes as many bytes as fit into the caller's room for `room` values.
    pub(crate) fn put_bytes(&self, bytes: &[u8], room: usize) {
        if self.is_null() {
            return;
        }
        let length = bytes.len().min(room.saturating_mul(size_of::<T>()));
        // SAFETY: not null, so by NVML's contract there is room for `room` values of `T`, and `length` is not more.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>(), length) };
    }

    /// Writes as many values as fit into the caller's room for `room` values.
    pub(crate) fn put(&self, values: impl Iterator<Item = T>, room: usize) {
        if self.is_null() {
            return;
        }
        for (index, value) in values.take(room).enumerate() {
            // SAFETY: not null, so by NVML's contract there is room for `room` values of `T`, and `index` is below it.
            unsafe { self.0.add(index).write(value) };
        }
    }
}

impl OutMany<c_char> {
    /// Writes a text and its final NUL into a buffer of `length` bytes.
    pub(crate) fn put_text(&self, text: &str, length: c_uint) -> Answer {
        let length = length as usize;
        if self.is_null() || length == 0 {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        if text.len() >= length {
            return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
        }
        self.put_bytes(text.as_bytes(), length);
        OutMany(self.0.wrapping_add(text.len())).put_bytes(&[0], 1);
        Ok(())
    }
}

/// A text of the caller.
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(crate) fn get(&self) -> Result<String, nvmlReturn_t> {
        if self.0.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by NVML's contract it is a text that ends with NUL.
        let text = unsafe { CStr::from_ptr(self.0) };
        Ok(text.to_string_lossy().into_owned())
    }
}

/// A device handle: which device in which life of the driver, never an address. Any value of the caller is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) device: usize,
    pub(crate) generation: u32,
}

impl Handle {
    pub(crate) fn to_c(self) -> nvmlDevice_t {
        std::ptr::without_provenance_mut((self.generation as usize) << 8 | (self.device + 1))
    }

    pub(crate) fn from_c(handle: nvmlDevice_t) -> Option<Handle> {
        let device = (handle.addr() & 0xFF).checked_sub(1)?;
        Some(Handle {
            device,
            generation: u32::try_from(handle.addr() >> 8).ok()?,
        })
    }
}
