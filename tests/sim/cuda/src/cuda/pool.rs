//! The stream-ordered pool of each device: it takes memory in large pieces, keeps what is given back to it, and gives back
//! what it does not need beyond its threshold when somebody waits for the device.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::cuda::code;
use crate::cuda::device::{self, Device};
use crate::cupti::{activity, lane};
use crate::record::{self, PoolView};
use crate::release::kind;

/// Devices that have a pool.
const POOLS: usize = 16;
/// A pool grows by this.
const PIECE_BYTES: u64 = 32 << 20;
/// What a program asks for is rounded up to this.
const BLOCK_BYTES: u64 = 512;
const CREATED: u32 = 1;
const TRIMMED: u32 = 3;
/// Handles of pools are this and the device's number.
const FIRST_HANDLE: u64 = 0x9001_0000;

static HELD: Mutex<[Option<PoolView>; POOLS]> = Mutex::new([None; POOLS]);

fn held() -> MutexGuard<'static, [Option<PoolView>; POOLS]> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn handle(device: u32) -> u64 {
    FIRST_HANDLE + u64::from(device)
}

/// The device that a pool's handle belongs to.
pub(crate) fn device_of(handle: u64) -> Result<u32, u32> {
    handle
        .checked_sub(FIRST_HANDLE)
        .and_then(|device| u32::try_from(device).ok())
        .filter(|device| (*device as usize) < device::count())
        .ok_or(code::INVALID_HANDLE)
}

const fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

const fn pieces(bytes: u64) -> u64 {
    bytes.div_ceil(PIECE_BYTES) * PIECE_BYTES
}

/// Takes memory out of a device's pool, which is made now if it was not there.
pub(crate) fn take(number: u32, device: &Device, bytes: u64, correlation: u32) -> Result<(), u32> {
    let mut held = held();
    let pool = held.get_mut(number as usize).ok_or(code::INVALID_DEVICE)?;
    let created = pool.is_none();
    let pool = pool.get_or_insert(PoolView {
        address: handle(number),
        ..PoolView::default()
    });
    if created {
        tell(CREATED, number, correlation, 0, *pool);
    }
    let utilized = pool.utilized + blocks(bytes);
    let size = pieces(utilized).max(pool.size);
    if size > pool.size {
        device.take(size - pool.size)?;
    }
    pool.size = size;
    pool.utilized = utilized;
    Ok(())
}

/// Gives memory back into a pool.
pub(crate) fn give_back(number: u32, bytes: u64) {
    if let Some(Some(pool)) = held().get_mut(number as usize) {
        pool.utilized = pool.utilized.saturating_sub(blocks(bytes));
    }
}

/// What a pool holds now.
pub(crate) fn view(number: u32) -> PoolView {
    held().get(number as usize).copied().flatten().unwrap_or_default()
}

/// What a pool keeps when somebody waits for the device, bytes.
pub(crate) fn set_threshold(number: u32, bytes: u64) -> Result<(), u32> {
    let mut held = held();
    let pool = held.get_mut(number as usize).ok_or(code::INVALID_DEVICE)?;
    let pool = pool.get_or_insert(PoolView {
        address: handle(number),
        ..PoolView::default()
    });
    pool.release_threshold = bytes;
    Ok(())
}

/// Gives back to the device what is not needed.
pub(crate) fn trim(number: u32, keep: u64, correlation: u32) -> Result<(), u32> {
    let mut held = held();
    if let Some(Some(pool)) = held.get_mut(number as usize) {
        shrink(number, pool, keep)?;
        tell(TRIMMED, number, correlation, keep, *pool);
    }
    Ok(())
}

/// As the driver does it by itself, without a record.
pub(crate) fn shrink_all() -> Result<(), u32> {
    for (number, pool) in held().iter_mut().enumerate() {
        if let Some(pool) = pool {
            let threshold = pool.release_threshold;
            shrink(u32::try_from(number).unwrap_or(0), pool, threshold)?;
        }
    }
    Ok(())
}

fn shrink(number: u32, pool: &mut PoolView, keep: u64) -> Result<(), u32> {
    let size = pieces(pool.utilized.max(keep)).min(pool.size);
    device::get(number)?.give_back(pool.size - size);
    pool.size = size;
    Ok(())
}

fn tell(operation: u32, device: u32, correlation: u32, keep: u64, pool: PoolView) {
    if activity::is_enabled(kind::MEMORY_POOL) {
        let at = clock::now();
        lane::write(
            &record::memory_pool(operation, device, correlation, clock::shown(at), keep, pool),
            at,
        );
    }
}
