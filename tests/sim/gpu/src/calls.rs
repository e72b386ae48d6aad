//! Counts of calls by function.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use crate::gpu::Gpu;
use crate::layout::{COUNTERS, place_in};

/// A function's name in the short form that the state file keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(u64);

impl Function {
    /// Made from the exported name; as a constant it costs nothing at the call.
    pub const fn new(name: &str) -> Self {
        // FNV-1a, 64 bits.
        let bytes = name.as_bytes();
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01B3);
            at += 1;
        }
        Function(if hash == 0 { 1 } else { hash })
    }

    /// Never 0, which the state file has for "none" and "every".
    pub(crate) fn hash(self) -> u64 {
        self.0
    }
}

impl Gpu {
    /// For the driver library: counts a call.
    pub fn count_call(&self, function: Function) {
        if let Some(counter) = self.counter(function, true) {
            counter.fetch_add(1, SeqCst);
        }
    }

    /// How often a function was called, by any process, also when the call failed. The name is not checked.
    pub fn calls(&self, function: &str) -> u64 {
        self.counter(Function::new(function), false)
            .map_or(0, |counter| counter.load(SeqCst))
    }

    /// Counters are found by hash from its own place on; one that is taken is never given back.
    fn counter(&self, function: Function, take: bool) -> Option<&AtomicU64> {
        let start = place_in(COUNTERS, function.0);
        for step in 0..COUNTERS {
            let counter = &self.layout().counters[(start + step) % COUNTERS];
            let mut owner = counter.function.load(SeqCst);
            if owner == 0 && take {
                owner = counter
                    .function
                    .compare_exchange(0, function.0, SeqCst, SeqCst)
                    .err()
                    .unwrap_or(function.0);
            }
            if owner == function.0 {
                return Some(&counter.calls);
            }
            if owner == 0 {
                return None;
            }
        }
        None
    }
}
