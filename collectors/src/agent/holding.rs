//! The memory that agents make the daemon keep: their names, and frames that wait for names. It is bounded for each of
//! them and for all together.

use std::cell::Cell;
use std::rc::Rc;

/// Of all agents together, bytes.
const MOST_OF_ALL: usize = 128 << 20;

/// What is kept for all agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Rc<Cell<usize>>);

/// What is kept of one kind for one agent.
#[derive(Debug)]
pub(super) struct Holding {
    pool: Pool,
    most: usize,
    bytes: usize,
}

impl Holding {
    /// Of at most so many bytes.
    pub(super) const fn new(pool: Pool, most: usize) -> Self {
        Self { pool, most, bytes: 0 }
    }

    /// Whether there is room for so much more; then it is taken.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.fits(bytes);
        if fits {
            self.bytes += bytes;
            self.pool.0.set(self.pool.0.get() + bytes);
        }
        fits
    }

    /// Whether there is room for so much more.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes <= self.most - self.bytes && bytes <= MOST_OF_ALL.saturating_sub(self.pool.0.get())
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.pool.0.set(self.pool.0.get().saturating_sub(bytes));
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_bound_and_all_together_have_one() {
        let pool = Pool::default();
        let mut one = Holding::new(pool.clone(), 100);
        assert!(one.take(60) && !one.take(41) && one.take(40));
        one.give_back(50);
        assert!(one.take(50) && !one.take(1));
        let mut others: Vec<Holding> = (0..4)
            .map(|_| Holding::new(pool.clone(), MOST_OF_ALL / 4))
            .collect();
        let taken: Vec<bool> = others
            .iter_mut()
            .map(|other| other.take(MOST_OF_ALL / 4))
            .collect();
        assert_eq!(taken, [true, true, true, false]);
        drop(one);
        assert!(others[3].take(MOST_OF_ALL / 4));
        drop(others);
        assert_eq!(pool.0.get(), 0);
    }
}
