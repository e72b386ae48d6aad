//! For the benchmark: the consumer without a process around it.

use cupti_sys::Functions;
use plimsoll_trace::wire::Frame;

use crate::buffers::Completed;
use crate::kernels::Silence;
use crate::losses::Losses;
use crate::records::Consumer;

/// Reads buffers as the agent's thread does.
#[derive(Debug)]
pub struct Measured {
    consumer: Consumer,
    losses: Losses,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            consumer: Consumer::new(),
            losses: Losses::new(),
        }
    }
}

impl Measured {
    /// Reads one buffer.
    ///
    /// # Safety
    /// `start` must point at `valid` bytes of records that nobody writes to meanwhile.
    pub unsafe fn read(&mut self, functions: &Functions, start: *mut u8, valid: usize) {
        self.consumer
            .read(functions, &self.losses, &Completed { start, valid });
    }

    /// Records while a window of single kernels is open.
    pub const fn open_window(&mut self, from_ns: u64, until_ns: u64) {
        self.consumer.window.open(from_ns, until_ns);
    }

    /// Ends the period and hands the frames to `tell`.
    pub fn tell(&mut self, now_ns: u64, mut tell: impl FnMut(&Frame) -> bool) {
        self.consumer.names.tell(&mut tell);
        self.consumer.kernels.tell(now_ns, Silence::Unrecorded, &mut tell);
        self.consumer.window.tell(&mut tell);
    }

    /// How many records were lost.
    pub fn lost(&self) -> u64 {
        let mut lost = 0;
        self.losses.tell(|_, count| {
            lost += count;
            false
        });
        lost
    }
}
