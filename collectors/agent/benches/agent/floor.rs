//! The least that adds records up: by the address of the name, count, sum, shortest, longest, and a histogram of powers of
//! two. No devices, no texts, no losses, no other kinds.

use cupti_sys::record::Kernel;
use cupti_sys::{Functions, Records};

const SLOTS: usize = 1024;

#[derive(Clone)]
struct Slot {
    name: u64,
    count: u64,
    total: u64,
    min: u64,
    max: u64,
    buckets: [u32; 64],
}

pub(crate) struct Floor(Vec<Slot>);

impl Floor {
    pub(crate) fn new() -> Self {
        let slot = Slot {
            name: 0,
            count: 0,
            total: 0,
            min: u64::MAX,
            max: 0,
            buckets: [0; 64],
        };
        Self(vec![slot; SLOTS])
    }

    /// Adds the kernels of a buffer up.
    #[expect(unsafe_code, reason = "a buffer of records")]
    pub(crate) fn read(&mut self, functions: &Functions, start: *mut u8, valid: usize) {
        // SAFETY: the caller's buffer, which nobody writes to.
        for record in unsafe { Records::of(functions, start, valid) } {
            if record.kind() != 10 {
                continue;
            }
            let Some(kernel) = record.view::<Kernel>() else {
                continue;
            };
            let ns = kernel.end.wrapping_sub(kernel.start);
            let mut at = (kernel.name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % SLOTS;
            while self.0[at].name != kernel.name && self.0[at].name != 0 {
                at = (at + 1) % SLOTS;
            }
            let slot = &mut self.0[at];
            slot.name = kernel.name;
            slot.count += 1;
            slot.total += ns;
            slot.min = slot.min.min(ns);
            slot.max = slot.max.max(ns);
            slot.buckets[ns.max(1).ilog2() as usize] += 1;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|slot| slot.count).sum()
    }
}
