//! The driver's functions about itself, its devices and contexts.
#![expect(
    unsafe_code,
    reason = "exports C functions, and fills the memory of their callers"
)]

use std::ffi::{c_char, c_int, c_uint};

use crate::cuda::{Out, code, device, plain, pool, start, stream};

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> u32 {
    start::init()
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> u32 {
    code::of(version.put(13_000))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> u32 {
    plain(|_| count.put(c_int::try_from(device::count()).unwrap_or(0)))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> u32 {
    plain(|_| {
        device::get(ordinal.cast_unsigned())?;
        device.put(ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: c_int) -> u32 {
    cuDeviceGetUuid_v2(uuid, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: c_int) -> u32 {
    plain(|_| uuid.put(device::get(device.cast_unsigned())?.uuid()))
}

/// # Safety
/// `name` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> u32 {
    plain(|_| {
        let device = device::get(device.cast_unsigned())?;
        let room = usize::try_from(length).unwrap_or(0);
        if name.is_null() || room == 0 {
            return Err(code::INVALID_VALUE);
        }
        let mut text = device.name().into_bytes();
        text.truncate(room - 1);
        text.push(0);
        // SAFETY: `text` is at most as long as the caller's room.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), name.cast(), text.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) -> u32 {
    plain(|_| bytes.put(to_size(device::get(device.cast_unsigned())?.total_bytes())))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> u32 {
    plain(|_| {
        let device = device::get(device::current())?;
        device.ensure_context()?;
        free.put(to_size(device.free_bytes()))?;
        total.put(to_size(device.total_bytes()))
    })
}

fn to_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A context's handle is its device's number plus one.
fn open_context(context: &Out<usize>, number: c_int) -> Result<(), u32> {
    let number = number.cast_unsigned();
    device::get(number)?.ensure_context()?;
    context.put(number as usize + 1)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: Out<usize>, _flags: c_uint, device: c_int) -> u32 {
    plain(|_| {
        open_context(&context, device)?;
        device::set_current(device.cast_unsigned())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(_context: usize) -> u32 {
    plain(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<usize>, device: c_int) -> u32 {
    plain(|_| open_context(&context, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> u32 {
    plain(|_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    plain(|_| {
        let number = context.checked_sub(1).ok_or(code::INVALID_CONTEXT)?;
        device::set_current(u32::try_from(number).map_err(|_| code::INVALID_CONTEXT)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<usize>) -> u32 {
    plain(|_| context.put(device::current() as usize + 1))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Out<c_int>) -> u32 {
    plain(|_| device.put(device::current().cast_signed()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> u32 {
    plain(|correlation| {
        stream::synchronize(None, correlation)?;
        pool::shrink_all()
    })
}
