//! The end of the process: what is left is counted and told for as long as the exiting thread waits, and what is left then
//! is told as a number.

use cupti_sys::Records;
use plimsoll_trace::wire::{Frame, LossReason};

use super::{Cycle, Tracing};
use crate::control::Desired;
use crate::{clock, exit};

/// This part of the exiting thread's patience at least is kept for telling.
const FOR_TELLING: u64 = 8;

impl Cycle {
    /// Brings in what is left. What is counted already is told first: nobody knows how long CUPTI will take for the rest.
    /// Counting is cheap and telling is not, so all that there is time for is counted before it is told once more.
    pub(super) fn finish(mut self) {
        let waits_until = exit::waits_until();
        let patience = waits_until.saturating_sub(clock::monotonic());
        self.tend_connection(true);
        let mut telling = self.tell_all();
        if exit::is_over() {
            // What CUPTI still has is never counted: without a last word that is told too.
            return;
        }
        self.flush(true);
        loop {
            // Twice, because a machine that is busy may be busier the next time.
            let kept = (2 * telling).max(patience / FOR_TELLING);
            let count_until = waits_until.saturating_sub(kept);
            while self.waiting() > 0 && clock::monotonic() < count_until {
                self.drain(count_until);
            }
            telling = self.tell_all();
            let is_late = clock::monotonic().saturating_add(2 * telling) >= count_until;
            if is_late || self.waiting() == 0 {
                break;
            }
        }
        self.say_the_last_word();
        // The driver takes its contexts down next: nothing of CUPTI's is to come back to us then. A flush that lasts until
        // the exiting thread has gone on can only be left as it is.
        if let Ok(tracing) = &mut self.tracing
            && !exit::is_over()
        {
            tracing.control.make(Desired::NOTHING);
        }
    }

    /// Tells all that is counted; how long it took, ns.
    fn tell_all(&mut self) -> u64 {
        let began = clock::monotonic();
        self.ship_out();
        clock::monotonic().saturating_sub(began)
    }

    /// How much is missing, and that nothing follows. If there is no room for the one, the other is not said: its absence
    /// tells as much.
    fn say_the_last_word(&mut self) {
        let mut is_told = true;
        if let Ok(Tracing { hooked, .. }) = &self.tracing {
            let mut left = self.consumer.kernels.untold();
            while let Some(completed) = hooked.buffers.next_completed() {
                // SAFETY: the buffer came back from CUPTI and was taken just now; nobody else has it.
                let records = unsafe { Records::of(&hooked.functions, completed.start, completed.valid) };
                left += records.count() as u64;
            }
            hooked.losses.add(LossReason::CutOff, left);
            let ship = &mut self.ship;
            hooked.losses.tell(|reason, count| {
                let told = ship.tell(&Frame::Loss { reason, count });
                is_told &= told;
                told
            });
        }
        if is_told {
            self.ship.tell(&Frame::Finished);
        }
    }
}
