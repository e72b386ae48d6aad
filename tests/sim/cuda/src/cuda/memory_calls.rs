//! The driver's functions that take memory, give it back and fill it.
#![expect(unsafe_code, reason = "exports C functions")]

use std::ffi::{c_int, c_uint, c_ulonglong};

use crate::cuda::{Out, call, code, copy, device, memory, params, plain, pool};
use crate::cupti::subscriber::Function;
use crate::record::{Copy, Memory};

const MEM_ALLOC: Function = Function::new(243, c"cuMemAlloc_v2");
const MEM_FREE: Function = Function::new(245, c"cuMemFree_v2");
const ALLOC_ASYNC: Function = Function::new(598, c"cuMemAllocAsync");
const FREE_ASYNC: Function = Function::new(600, c"cuMemFreeAsync");

params! {
    AllocParams { pointer: *mut u64, bytes: usize }
    FreeParams { pointer: u64 }
    AllocAsyncParams { pointer: *mut u64, bytes: usize, stream: usize }
    FreeAsyncParams { pointer: u64, stream: usize }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(pointer: Out<u64>, bytes: usize) -> u32 {
    let params = AllocParams {
        pointer: pointer.0,
        bytes,
    };
    call(&MEM_ALLOC, &params, |correlation| {
        pointer.put(memory::alloc(Memory::Device, bytes as u64, None, correlation)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(pointer: u64) -> u32 {
    call(&MEM_FREE, &FreeParams { pointer }, |correlation| {
        memory::free(pointer, None, correlation)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(pointer: Out<u64>, bytes: usize, stream: usize) -> u32 {
    let params = AllocAsyncParams {
        pointer: pointer.0,
        bytes,
        stream,
    };
    call(&ALLOC_ASYNC, &params, |correlation| {
        pointer.put(memory::alloc(
            Memory::Device,
            bytes as u64,
            Some(stream),
            correlation,
        )?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(pointer: u64, stream: usize) -> u32 {
    let params = FreeAsyncParams { pointer, stream };
    call(&FREE_ASYNC, &params, |correlation| {
        memory::free(pointer, Some(stream), correlation)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(pointer: Out<u64>, bytes: usize, _flags: c_uint) -> u32 {
    plain(|correlation| pointer.put(memory::alloc(Memory::Managed, bytes as u64, None, correlation)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(pointer: Out<u64>, bytes: usize) -> u32 {
    plain(|correlation| pointer.put(memory::alloc(Memory::Pinned, bytes as u64, None, correlation)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(pointer: u64) -> u32 {
    plain(|correlation| memory::free(pointer, None, correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(handle: Out<u64>, device: c_int) -> u32 {
    plain(|_| {
        let device = device.cast_unsigned();
        device::get(device)?;
        handle.put(pool::handle(device))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(handle: u64, keep_bytes: usize) -> u32 {
    plain(|correlation| pool::trim(pool::device_of(handle)?, keep_bytes as u64, correlation))
}

/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`.
const RELEASE_THRESHOLD: u32 = 4;

/// # Safety
/// `value` is null, or points to a number of 64 bits for the one attribute that is known.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolSetAttribute(handle: u64, attribute: u32, value: *const c_ulonglong) -> u32 {
    plain(|_| {
        // SAFETY: as the caller promises.
        let value = unsafe { value.as_ref() };
        match (attribute, value) {
            (RELEASE_THRESHOLD, Some(&bytes)) => pool::set_threshold(pool::device_of(handle)?, bytes),
            _ => Err(code::INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(_to: u64, _from: usize, bytes: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::HostToDevice, bytes as u64, None, correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(_to: usize, _from: u64, bytes: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::DeviceToHost, bytes as u64, None, correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(_to: u64, _from: u64, bytes: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::DeviceToDevice, bytes as u64, None, correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(_to: u64, _from: usize, bytes: usize, stream: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::HostToDevice, bytes as u64, Some(stream), correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(_to: usize, _from: u64, bytes: usize, stream: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::DeviceToHost, bytes as u64, Some(stream), correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(_to: u64, _from: u64, bytes: usize, stream: usize) -> u32 {
    plain(|correlation| copy::copy(Copy::DeviceToDevice, bytes as u64, Some(stream), correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeer(
    _to: u64,
    to_context: usize,
    _from: u64,
    _from_context: usize,
    bytes: usize,
) -> u32 {
    let device = u32::try_from(to_context.wrapping_sub(1)).unwrap_or(u32::MAX);
    plain(|correlation| {
        device::get(device).map_err(|_| code::INVALID_CONTEXT)?;
        copy::peer(device, bytes as u64, correlation)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(_to: u64, value: c_uint, words: usize, stream: usize) -> u32 {
    plain(|correlation| copy::fill(value, 4 * words as u64, stream, correlation))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(_to: u64, value: u8, bytes: usize, stream: usize) -> u32 {
    plain(|correlation| copy::fill(value.into(), bytes as u64, stream, correlation))
}
