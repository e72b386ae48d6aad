//! Reserved addresses and physical memory mapped into them. No record tells of these calls, only callbacks do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::cuda::{code, device, memory};

/// Physical memory. The driver keeps it while it is mapped, even after its handle is released.
#[derive(Clone, Copy, Debug)]
struct Physical {
    bytes: u64,
    device: u32,
    mappings: u32,
    is_released: bool,
}

#[derive(Debug, Default)]
struct Books {
    reserved: HashMap<u64, u64>,
    physical: HashMap<u64, Physical>,
    /// Length and handle by address.
    mapped: HashMap<u64, (u64, u64)>,
    handles: u64,
}

static BOOKS: LazyLock<Mutex<Books>> = LazyLock::new(Mutex::default);

fn books() -> MutexGuard<'static, Books> {
    BOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn whole_grains(bytes: u64) -> Result<(), u32> {
    if bytes > 0 && bytes.is_multiple_of(device::GRAIN_BYTES) {
        Ok(())
    } else {
        Err(code::INVALID_VALUE)
    }
}

pub(crate) fn reserve(bytes: u64) -> Result<u64, u32> {
    whole_grains(bytes)?;
    let address = memory::fresh_address(bytes);
    books().reserved.insert(address, bytes);
    Ok(address)
}

pub(crate) fn free_reservation(address: u64, bytes: u64) -> Result<(), u32> {
    let mut books = books();
    if books.reserved.get(&address) != Some(&bytes) {
        return Err(code::INVALID_VALUE);
    }
    books.reserved.remove(&address);
    Ok(())
}

pub(crate) fn create(device: u32, bytes: u64) -> Result<u64, u32> {
    whole_grains(bytes)?;
    device::get(device)?.take(bytes)?;
    let mut books = books();
    books.handles += 1;
    let handle = 0xC0DE_0000 + books.handles;
    let physical = Physical {
        bytes,
        device,
        mappings: 0,
        is_released: false,
    };
    books.physical.insert(handle, physical);
    Ok(handle)
}

pub(crate) fn release(handle: u64) -> Result<(), u32> {
    let mut books = books();
    let physical = books.physical.get_mut(&handle).ok_or(code::INVALID_VALUE)?;
    physical.is_released = true;
    books.let_go(handle)
}

pub(crate) fn map(address: u64, bytes: u64, handle: u64) -> Result<(), u32> {
    let mut books = books();
    let inside = |(&start, &length): (&u64, &u64)| address >= start && address + bytes <= start + length;
    if !books.reserved.iter().any(inside) || books.mapped.contains_key(&address) {
        return Err(code::INVALID_VALUE);
    }
    let physical = books.physical.get_mut(&handle).ok_or(code::INVALID_VALUE)?;
    if physical.bytes < bytes {
        return Err(code::INVALID_VALUE);
    }
    physical.mappings += 1;
    books.mapped.insert(address, (bytes, handle));
    Ok(())
}

/// Unmaps all that is mapped in a range, which must be whole mappings.
pub(crate) fn unmap(address: u64, bytes: u64) -> Result<(), u32> {
    let mut books = books();
    let inside: Vec<u64> = books
        .mapped
        .iter()
        .filter(|(start, (length, _))| **start >= address && *start + length <= address + bytes)
        .map(|(start, _)| *start)
        .collect();
    if inside.is_empty() {
        return Err(code::INVALID_VALUE);
    }
    for start in inside {
        if let Some((_, handle)) = books.mapped.remove(&start) {
            if let Some(physical) = books.physical.get_mut(&handle) {
                physical.mappings -= 1;
            }
            books.let_go(handle)?;
        }
    }
    Ok(())
}

impl Books {
    fn let_go(&mut self, handle: u64) -> Result<(), u32> {
        let physical = self.physical.get(&handle).copied();
        if let Some(physical) = physical.filter(|physical| physical.is_released && physical.mappings == 0) {
            self.physical.remove(&handle);
            device::get(physical.device)?.give_back(physical.bytes);
        }
        Ok(())
    }
}
