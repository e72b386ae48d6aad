//! The driver's functions for virtual memory.
#![expect(
    unsafe_code,
    reason = "exports C functions, and reads the memory of their callers"
)]

use std::ffi::{c_int, c_ulonglong, c_void};

use crate::cuda::{Out, call, code, params, vmm};
use crate::cupti::subscriber::Function;

const ADDRESS_RESERVE: Function = Function::new(547, c"cuMemAddressReserve");
const ADDRESS_FREE: Function = Function::new(548, c"cuMemAddressFree");
const MEM_CREATE: Function = Function::new(549, c"cuMemCreate");
const MEM_RELEASE: Function = Function::new(550, c"cuMemRelease");
const MEM_MAP: Function = Function::new(551, c"cuMemMap");
const MEM_UNMAP: Function = Function::new(552, c"cuMemUnmap");
const MEM_SET_ACCESS: Function = Function::new(553, c"cuMemSetAccess");

params! {
    ReserveParams { pointer: *mut u64, size: usize, alignment: usize, address: u64, flags: c_ulonglong }
    RangeParams { pointer: u64, size: usize }
    CreateParams { handle: *mut u64, size: usize, properties: *const Properties, flags: c_ulonglong }
    ReleaseParams { handle: u64 }
    MapParams { pointer: u64, size: usize, offset: usize, handle: u64, flags: c_ulonglong }
    AccessParams { pointer: u64, size: usize, description: *const c_void, count: usize }
}

/// The beginning of `CUmemAllocationProp`.
#[repr(C)]
pub(crate) struct Properties {
    _kind: u32,
    _handle_types: u32,
    _location_kind: u32,
    location: c_int,
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAddressReserve(
    pointer: Out<u64>,
    size: usize,
    alignment: usize,
    address: u64,
    flags: c_ulonglong,
) -> u32 {
    let params = ReserveParams {
        pointer: pointer.0,
        size,
        alignment,
        address,
        flags,
    };
    call(&ADDRESS_RESERVE, &params, |_| {
        pointer.put(vmm::reserve(size as u64)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAddressFree(pointer: u64, size: usize) -> u32 {
    call(&ADDRESS_FREE, &RangeParams { pointer, size }, |_| {
        vmm::free_reservation(pointer, size as u64)
    })
}

/// # Safety
/// `properties` is null or points to a `CUmemAllocationProp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemCreate(
    handle: Out<u64>,
    size: usize,
    properties: *const Properties,
    flags: c_ulonglong,
) -> u32 {
    let params = CreateParams {
        handle: handle.0,
        size,
        properties,
        flags,
    };
    call(&MEM_CREATE, &params, |_| {
        // SAFETY: as the caller promises.
        let properties = unsafe { properties.as_ref() }.ok_or(code::INVALID_VALUE)?;
        handle.put(vmm::create(properties.location.cast_unsigned(), size as u64)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemRelease(handle: u64) -> u32 {
    call(&MEM_RELEASE, &ReleaseParams { handle }, |_| vmm::release(handle))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemMap(pointer: u64, size: usize, offset: usize, handle: u64, flags: c_ulonglong) -> u32 {
    let params = MapParams {
        pointer,
        size,
        offset,
        handle,
        flags,
    };
    call(&MEM_MAP, &params, |_| vmm::map(pointer, size as u64, handle))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemUnmap(pointer: u64, size: usize) -> u32 {
    call(&MEM_UNMAP, &RangeParams { pointer, size }, |_| {
        vmm::unmap(pointer, size as u64)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemSetAccess(pointer: u64, size: usize, description: *const c_void, count: usize) -> u32 {
    let params = AccessParams {
        pointer,
        size,
        description,
        count,
    };
    call(&MEM_SET_ACCESS, &params, |_| Ok(()))
}
