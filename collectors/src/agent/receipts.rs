//! What was taken out of an agent's ring, and how much of it is stored.
//!
//! A daemon that is killed takes along what it had read and not stored. Both counts are kept in the ring, so that the next
//! one knows how much that is at most: what was stored shortly before the end may not have been confirmed any more.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use plimsoll_trace::wire::Frame;
use plimsoll_trace::wire::ring::Reader;

use super::Progress;

/// Deliveries whose storing is waited for; beyond, the last one stands for those that follow.
const MOST: usize = 64;
/// A ring that says more is not believed: no daemon keeps so much without storing it.
const MOST_UNCONFIRMED: u64 = 1 << 20;

/// The counts of one agent.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    taken: u64,
    confirmed: u64,
    /// How much was taken when the store had taken in so much.
    delivered: VecDeque<(u64, u64)>,
}

impl Receipts {
    /// How much a daemon before this one took and did not confirm.
    pub(super) fn unconfirmed(words: &[AtomicU64]) -> u64 {
        let reader = Reader::open(words);
        let unconfirmed = reader.map_or(0, |mut reader| reader.take_unconfirmed());
        unconfirmed.min(MOST_UNCONFIRMED)
    }

    /// A frame was taken.
    pub(super) fn take(&mut self, words: &[AtomicU64], frame: &Frame) {
        let count = match frame {
            Frame::Kernels(kernels) => kernels.stats.len() as u64,
            Frame::Copies(copies) => copies.stats.len() as u64,
            Frame::Memory(events) => events.len() as u64,
            Frame::Spans(spans) => spans.spans.len() as u64,
            Frame::Levels(_) => 1,
            // What is told again, or changes no figure.
            _ => 0,
        };
        self.taken += count;
        if let Ok(mut reader) = Reader::open(words) {
            reader.took(count);
        }
    }

    /// All that was taken is with the store, but for the last `waiting`.
    pub(super) fn deliver(&mut self, waiting: usize, progress: Progress) {
        let delivered = self.taken.saturating_sub(waiting as u64);
        let last = self.delivered.back().map_or(self.confirmed, |(_, count)| *count);
        if delivered <= last {
            return;
        }
        if self.delivered.len() >= MOST {
            self.delivered.pop_back();
        }
        self.delivered.push_back((progress.taken_in, delivered));
    }

    /// Confirms what the store has stored.
    pub(super) fn confirm(&mut self, words: &[AtomicU64], progress: Progress) {
        let before = self.confirmed;
        while let Some((at, count)) = self.delivered.front().copied()
            && at <= progress.stored
        {
            self.delivered.pop_front();
            self.confirmed = count;
        }
        if self.confirmed > before
            && let Ok(mut reader) = Reader::open(words)
        {
            reader.confirm(self.confirmed - before);
        }
    }
}
