//! A bounded queue between any number of threads that never wait: who finds it full is told so.
//!
//! Each slot has a sequence number that says whose turn it is (the queue of Dmitry Vyukov). All words are atomic, so there
//! is nothing unsafe about it; the sequence number orders them.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// A queue of rows of `WORDS` words.
#[derive(Debug)]
pub(crate) struct Queue<const WORDS: usize> {
    slots: Box<[Slot<WORDS>]>,
    pushed: AtomicUsize,
    popped: AtomicUsize,
}

#[derive(Debug)]
struct Slot<const WORDS: usize> {
    turn: AtomicUsize,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Queue<WORDS> {
    /// A queue for `room` rows, which is a power of two.
    pub(crate) fn new(room: usize) -> Self {
        debug_assert!(room.is_power_of_two());
        let slot = |turn| Slot {
            turn: AtomicUsize::new(turn),
            words: [const { AtomicU64::new(0) }; WORDS],
        };
        Self {
            slots: (0..room).map(slot).collect(),
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
        }
    }

    fn slot(&self, at: usize) -> &Slot<WORDS> {
        &self.slots[at & (self.slots.len() - 1)]
    }

    /// Puts a row at the end; `false` when there is no room.
    pub(crate) fn push(&self, row: [u64; WORDS]) -> bool {
        let mut at = self.pushed.load(Relaxed);
        loop {
            let slot = self.slot(at);
            let behind = slot.turn.load(Acquire).wrapping_sub(at).cast_signed();
            if behind < 0 {
                return false;
            }
            if behind == 0 {
                match self
                    .pushed
                    .compare_exchange_weak(at, at.wrapping_add(1), Relaxed, Relaxed)
                {
                    Ok(_) => {
                        for (word, value) in slot.words.iter().zip(row) {
                            word.store(value, Relaxed);
                        }
                        slot.turn.store(at.wrapping_add(1), Release);
                        return true;
                    }
                    Err(now) => at = now,
                }
            } else {
                at = self.pushed.load(Relaxed);
            }
        }
    }

    /// Takes the row at the front.
    pub(crate) fn pop(&self) -> Option<[u64; WORDS]> {
        let mut at = self.popped.load(Relaxed);
        loop {
            let slot = self.slot(at);
            let behind = slot
                .turn
                .load(Acquire)
                .wrapping_sub(at.wrapping_add(1))
                .cast_signed();
            if behind < 0 {
                return None;
            }
            if behind == 0 {
                match self
                    .popped
                    .compare_exchange_weak(at, at.wrapping_add(1), Relaxed, Relaxed)
                {
                    Ok(_) => {
                        let row = std::array::from_fn(|word| slot.words[word].load(Relaxed));
                        slot.turn.store(at.wrapping_add(self.slots.len()), Release);
                        return Some(row);
                    }
                    Err(now) => at = now,
                }
            } else {
                at = self.popped.load(Relaxed);
            }
        }
    }

    /// About how many rows are waiting.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = self.pushed.load(Relaxed).wrapping_sub(self.popped.load(Relaxed));
        waiting.min(self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_in_order_and_a_full_queue_says_so() {
        let queue = Queue::<2>::new(4);
        for round in 0..10 {
            for number in 0..4 {
                assert!(queue.push([round, number]));
            }
            assert!(!queue.push([round, 9]));
            assert_eq!(queue.waiting(), 4);
            for number in 0..4 {
                assert_eq!(queue.pop(), Some([round, number]));
            }
            assert_eq!(queue.pop(), None);
        }
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_threads() {
        const EACH: u64 = 20_000;
        let queue = Queue::<2>::new(64);
        let (sums, counts): (Vec<u64>, Vec<u64>) = std::thread::scope(|scope| {
            for thread in 0..3 {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..EACH {
                        while !queue.push([number, number ^ thread]) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut sum, mut count) = (0, 0);
                        while count < EACH * 3 / 2 {
                            match queue.pop() {
                                Some([number, tagged]) => {
                                    assert!(number ^ tagged < 3);
                                    sum += number;
                                    count += 1;
                                }
                                None => std::thread::yield_now(),
                            }
                        }
                        (sum, count)
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).unzip()
        });
        assert_eq!(counts.iter().sum::<u64>(), 3 * EACH);
        assert_eq!(sums.iter().sum::<u64>(), 3 * EACH * (EACH - 1) / 2);
        assert_eq!(queue.pop(), None);
    }
}
