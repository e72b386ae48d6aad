//! The engine's memory as pieces taken from the driver: shards of the weights, and segments of the caching allocator. The
//! context and the last part of a piece are on the card without a call of the engine's.

use plimsoll_sim_cuda::{Cuda, CudaError};

use crate::memory::Memory;

/// The caching allocator takes this at once.
const SEGMENT_BYTES: u64 = 20 << 20;

/// Pieces of one purpose, the newest last.
struct Holding {
    piece_bytes: u64,
    addresses: Vec<u64>,
}

impl Holding {
    fn follow(&mut self, cuda: &Cuda, bytes: u64) -> Result<(), CudaError> {
        let wanted = bytes / self.piece_bytes;
        while (self.addresses.len() as u64) < wanted {
            self.addresses.push(cuda.alloc(self.piece_bytes)?);
        }
        while self.addresses.len() as u64 > wanted {
            if let Some(address) = self.addresses.pop() {
                cuda.free(address)?;
            }
        }
        Ok(())
    }
}

/// All that the engine took from the driver.
pub(super) struct Segments {
    cuda: Cuda,
    weights: Holding,
    cached: Holding,
}

impl Segments {
    pub(super) fn new(cuda: Cuda, shard_bytes: u64) -> Self {
        let holding = |piece_bytes| Holding {
            piece_bytes,
            addresses: Vec::new(),
        };
        Self {
            cuda,
            weights: holding(shard_bytes),
            cached: holding(SEGMENT_BYTES),
        }
    }

    /// Takes and gives back until it is what the engine has.
    pub(super) fn follow(&mut self, memory: &Memory) -> Result<(), CudaError> {
        self.weights.follow(&self.cuda, memory.weights_bytes)?;
        let cached = memory.allocated_bytes() + memory.allocator_slack_bytes;
        self.cached.follow(&self.cuda, cached)
    }
}
