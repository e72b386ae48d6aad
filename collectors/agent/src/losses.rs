//! What was lost, by reason. Any thread counts; the agent's own thread tells.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use plimsoll_trace::wire::LossReason;

/// A count for each reason.
#[derive(Debug)]
pub(crate) struct Losses {
    counts: [AtomicU64; LossReason::ALL.len()],
    may_be_memory: AtomicBool,
}

impl Losses {
    pub(crate) const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; LossReason::ALL.len()],
            may_be_memory: AtomicBool::new(false),
        }
    }

    /// Counts.
    pub(crate) fn add(&self, reason: LossReason, count: u64) {
        if count > 0 {
            self.counts[reason as usize].fetch_add(count, Relaxed);
            // Nobody says what these were.
            if matches!(
                reason,
                LossReason::DroppedByCupti | LossReason::NoBuffer | LossReason::BadRecord
            ) {
                self.may_be_memory.store(true, Relaxed);
            }
        }
    }

    /// Counts a call of virtual memory that nobody will look at.
    pub(crate) fn lose_call(&self) {
        self.add(LossReason::QueueFull, 1);
        self.may_be_memory.store(true, Relaxed);
    }

    /// Whether anything was lost, ever, that may have been memory taken or given back: what is live is not known since.
    pub(crate) fn may_be_memory(&self) -> bool {
        self.may_be_memory.load(Relaxed)
    }

    /// Hands each count to `tell` and forgets those that it took.
    pub(crate) fn tell(&self, mut tell: impl FnMut(LossReason, u64) -> bool) {
        for (reason, count) in LossReason::ALL.iter().zip(&self.counts) {
            let lost = count.load(Relaxed);
            if lost > 0 && tell(*reason, lost) {
                count.fetch_sub(lost, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_told_is_told_again() {
        let losses = Losses::new();
        losses.add(LossReason::Displaced, 1);
        losses.add(LossReason::NoBuffer, 0);
        assert!(!losses.may_be_memory());
        losses.add(LossReason::BadRecord, 2);
        assert!(losses.may_be_memory());
        losses.tell(|reason, _| reason == LossReason::Displaced);
        losses.add(LossReason::BadRecord, 1);
        let mut told = Vec::new();
        losses.tell(|reason, count| {
            told.push((reason, count));
            true
        });
        assert_eq!(told, [(LossReason::BadRecord, 3)]);
    }
}
