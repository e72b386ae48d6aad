//! Memory that a program takes, by whichever call. Addresses are never used twice, so that a lost release shows.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::cuda::device::{self, Device};
use crate::cuda::{code, pool};
use crate::cupti::{activity, lane};
use crate::record::{self, Allocation, Memory};
use crate::release::kind;

const ALLOC: u32 = 1;
const RELEASE: u32 = 2;
const FIRST_ADDRESS: u64 = 0x7F00_0000_0000;
/// Addresses are multiples of this.
const ALIGNMENT: u64 = 512;

/// What lies at an address.
#[derive(Clone, Copy, Debug)]
struct Block {
    bytes: u64,
    device: u32,
    memory: Memory,
    is_pooled: bool,
}

#[derive(Debug)]
struct Books {
    blocks: HashMap<u64, Block>,
    next: u64,
}

static BOOKS: LazyLock<Mutex<Books>> = LazyLock::new(|| {
    Mutex::new(Books {
        blocks: HashMap::new(),
        next: FIRST_ADDRESS,
    })
});

fn books() -> MutexGuard<'static, Books> {
    BOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range of addresses that nobody else has.
pub(crate) fn fresh_address(bytes: u64) -> u64 {
    let mut books = books();
    let address = books.next;
    books.next += bytes.div_ceil(ALIGNMENT).max(1) * ALIGNMENT;
    address
}

/// Takes memory of a kind; on a stream it comes from the device's pool.
pub(crate) fn alloc(memory: Memory, bytes: u64, stream: Option<usize>, correlation: u32) -> Result<u64, u32> {
    if bytes == 0 {
        return Err(code::INVALID_VALUE);
    }
    let number = device::current();
    let device = device::get(number)?;
    match (memory, stream) {
        (Memory::Device, Some(_)) => pool::take(number, device, bytes, correlation)?,
        (Memory::Device, None) => device.take(bytes)?,
        _ => device.ensure_context()?,
    }
    let address = fresh_address(bytes);
    let block = Block {
        bytes,
        device: number,
        memory,
        is_pooled: stream.is_some(),
    };
    books().blocks.insert(address, block);
    tell(ALLOC, address, &block, stream, correlation);
    Ok(address)
}

/// Gives memory back, on a stream or not. Null is nothing.
pub(crate) fn free(address: u64, stream: Option<usize>, correlation: u32) -> Result<(), u32> {
    if address == 0 {
        return Ok(());
    }
    let block = books().blocks.remove(&address).ok_or(code::INVALID_VALUE)?;
    let device: &Device = device::get(block.device)?;
    match block {
        Block { is_pooled: true, .. } => pool::give_back(block.device, block.bytes),
        Block {
            memory: Memory::Device,
            ..
        } => device.give_back(block.bytes),
        _ => {}
    }
    tell(RELEASE, address, &block, stream, correlation);
    Ok(())
}

fn tell(operation: u32, address: u64, block: &Block, stream: Option<usize>, correlation: u32) {
    if !activity::is_enabled(kind::MEMORY2) {
        return;
    }
    let at = clock::now();
    let allocation = Allocation {
        operation,
        memory: block.memory,
        address,
        bytes: block.bytes,
        device: block.device,
        stream: stream.map_or(u32::MAX, |stream| u32::try_from(stream).unwrap_or(u32::MAX)),
        correlation,
        at: clock::shown(at),
        pool: block.is_pooled.then(|| pool::view(block.device)),
    };
    lane::write(&record::memory2(&allocation), at);
}
