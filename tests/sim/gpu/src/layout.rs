//! The bytes of the state file. Everything is an atomic at a fixed place; a change of this file needs a new `VERSION`.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64};

/// "PLIMSGPU" in ASCII.
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"PLIMSGPU");
pub(crate) const VERSION: u32 = 1;

pub(crate) const DEVICES: usize = 16;
pub(crate) const SLOTS: usize = 1024;
pub(crate) const XIDS: usize = 256;
pub(crate) const FAULTS: usize = 64;
/// A power of two well above the number of functions that a driver library exports.
pub(crate) const COUNTERS: usize = 512;
/// NVML's longest UUID and name, with the final NUL.
pub(crate) const TEXT: usize = 96;

#[repr(C)]
pub(crate) struct Layout {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) size_bytes: AtomicU32,
    pub(crate) device_count: AtomicU32,
    pub(crate) driver_state: AtomicU32,
    pub(crate) driver_generation: AtomicU32,
    /// Changes (and wakes its sleepers) with every Xid, every fault taken back and every change of the driver.
    pub(crate) bell: AtomicU32,
    pub(crate) open_inits: AtomicI64,
    pub(crate) open_event_sets: AtomicI64,
    /// One above the highest process slot that was ever taken, so that a reader need not walk all of them.
    pub(crate) slots_reached: AtomicU32,
    pub(crate) faults_reached: AtomicU32,
    pub(crate) xid_head: AtomicU64,
    pub(crate) driver_version: Text,
    pub(crate) devices: [Device; DEVICES],
    pub(crate) slots: [Slot; SLOTS],
    pub(crate) xids: [AtomicU64; XIDS],
    pub(crate) faults: [FaultSlot; FAULTS],
    pub(crate) counters: [Counter; COUNTERS],
}

#[repr(C)]
pub(crate) struct Device {
    pub(crate) uuid: Text,
    pub(crate) name: Text,
    /// Index of the physical device plus one; 0 for a physical device.
    pub(crate) parent: AtomicU32,
    pub(crate) gpu_instance: AtomicU32,
    pub(crate) compute_instance: AtomicU32,
    pub(crate) lost: AtomicU32,
    pub(crate) absent: AtomicU32,
    pub(crate) mig_mode: AtomicU32,
    pub(crate) total_bytes: AtomicU64,
    pub(crate) reserved_bytes: AtomicU64,
    pub(crate) other_used_bytes: AtomicU64,
    pub(crate) bar1_total_bytes: AtomicU64,
    pub(crate) bar1_used_bytes: AtomicU64,
    pub(crate) throttle_reasons: AtomicU64,
    pub(crate) gpu_busy_percent: AtomicU32,
    pub(crate) memory_busy_percent: AtomicU32,
    pub(crate) temperature_celsius: AtomicU32,
    pub(crate) power_milliwatts: AtomicU32,
    pub(crate) power_limit_milliwatts: AtomicU32,
    pub(crate) performance_state: AtomicU32,
    pub(crate) sm_clock_mhz: AtomicU32,
    pub(crate) memory_clock_mhz: AtomicU32,
    pub(crate) max_sm_clock_mhz: AtomicU32,
    pub(crate) max_memory_clock_mhz: AtomicU32,
    pub(crate) pcie_sent_kb_per_sec: AtomicU32,
    pub(crate) pcie_received_kb_per_sec: AtomicU32,
    pub(crate) brand: AtomicU32,
    pub(crate) architecture: AtomicU32,
}

/// A process on one device. `started_ticks` is 0 for a phantom, which is never asked whether it lives.
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) claim: Claim,
    pub(crate) started_ticks: AtomicU64,
    pub(crate) used_bytes: AtomicU64,
    /// What the process is asking for while it asks; counts against the others until it is granted or refused.
    pub(crate) asked_bytes: AtomicU64,
    pub(crate) pid: AtomicU32,
    pub(crate) device: AtomicU32,
    pub(crate) sm_busy_percent: AtomicU32,
    pub(crate) memory_busy_percent: AtomicU32,
    pub(crate) contexts: AtomicU32,
    pub(crate) spare: AtomicU32,
}

#[repr(C)]
pub(crate) struct FaultSlot {
    pub(crate) claim: Claim,
    /// Hash of the function's name; 0 for every function.
    pub(crate) function: AtomicU64,
    pub(crate) value: AtomicU64,
    pub(crate) after_calls: AtomicU64,
    /// How often it fires at most; `u64::MAX` for always.
    pub(crate) times: AtomicU64,
    pub(crate) every: AtomicU64,
    /// Matching calls so far.
    pub(crate) seen: AtomicU64,
    /// Device index plus one; 0 for every device.
    pub(crate) device: AtomicU32,
    pub(crate) kind: AtomicU32,
}

#[repr(C)]
pub(crate) struct Counter {
    /// Hash of the function's name; 0 while nobody took this counter.
    pub(crate) function: AtomicU64,
    pub(crate) calls: AtomicU64,
}

/// Who has a slot: free, being filled by a process, or live. Each change makes a new word, so that someone who looked
/// earlier cannot mistake the slot's next owner for the one it saw.
///
/// Bits 0..2 are the state, 2..32 a sequence number, 32..64 the pid that fills the slot.
#[repr(C)]
pub(crate) struct Claim(AtomicU64);

/// What a [`Claim`] said at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClaimWord(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimState {
    Free,
    /// Being filled by the process with this pid.
    Filling(u32),
    Live,
}

const STATE_MASK: u64 = 0b11;
const FILLING: u64 = 1;
const LIVE: u64 = 2;

impl ClaimWord {
    pub(crate) fn state(self) -> ClaimState {
        match self.0 & STATE_MASK {
            FILLING => ClaimState::Filling(u32::try_from(self.0 >> 32).unwrap_or_default()),
            LIVE => ClaimState::Live,
            _ => ClaimState::Free,
        }
    }

    fn next(self, state: u64, pid: u32) -> Self {
        let sequence = (self.0 >> 2).wrapping_add(1) & 0x3FFF_FFFF;
        ClaimWord(u64::from(pid) << 32 | sequence << 2 | state)
    }
}

impl Claim {
    pub(crate) fn load(&self) -> ClaimWord {
        ClaimWord(self.0.load(SeqCst))
    }

    fn swap(&self, seen: ClaimWord, next: ClaimWord) -> Option<ClaimWord> {
        self.0
            .compare_exchange(seen.0, next.0, SeqCst, SeqCst)
            .ok()
            .map(|_| next)
    }

    /// Takes the slot for filling, unless somebody was faster.
    pub(crate) fn fill(&self, seen: ClaimWord, pid: u32) -> Option<ClaimWord> {
        self.swap(seen, seen.next(FILLING, pid))
    }

    /// Shows the filled slot to everybody, unless it was taken away meanwhile.
    pub(crate) fn publish(&self, filling: ClaimWord) -> Option<ClaimWord> {
        self.swap(filling, filling.next(LIVE, 0))
    }

    /// Gives the slot back, unless it is already somebody else's.
    pub(crate) fn free(&self, seen: ClaimWord) -> bool {
        self.swap(seen, seen.next(0, 0)).is_some()
    }
}

/// The place of the `number`-th entry in a table that is used round and round.
pub(crate) const fn place_in(places: usize, number: u64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is smaller than a usize"
    )]
    let place = (number % places as u64) as usize;
    place
}

/// A text that is rarely written; who reads it at that moment may see a mixture. Ends at the first NUL.
#[repr(C)]
pub(crate) struct Text([AtomicU8; TEXT]);

impl Text {
    /// Writes `text`, cut to what fits with a final NUL.
    pub(crate) fn set(&self, text: &str) {
        let bytes = text.bytes().take(TEXT - 1).chain(std::iter::repeat(0));
        for (to, byte) in self.0.iter().zip(bytes) {
            to.store(byte, SeqCst);
        }
    }

    pub(crate) fn get(&self) -> String {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .map(|byte| byte.load(SeqCst))
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
