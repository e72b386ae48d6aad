//! What was lost, by reason. Any thread counts; the agent's own thread tells.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use plimsoll_trace::wire::LossReason;

/// A count for each reason.
#[derive(Debug)]
pub(crate) struct Losses([AtomicU64; LossReason::ALL.len()]);

impl Losses {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; LossReason::ALL.len()])
    }

    /// Counts.
    pub(crate) fn add(&self, reason: LossReason, count: u64) {
        if count > 0 {
            self.0[reason as usize].fetch_add(count, Relaxed);
        }
    }

    /// Hands each count to `tell` and forgets those that it took.
    pub(crate) fn tell(&self, mut tell: impl FnMut(LossReason, u64) -> bool) {
        for (reason, count) in LossReason::ALL.iter().zip(&self.0) {
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
        losses.add(LossReason::BadRecord, 2);
        losses.add(LossReason::Displaced, 1);
        losses.add(LossReason::NoBuffer, 0);
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
