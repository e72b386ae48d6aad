//! How many connections of one kind there may be, and whose.

use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_collectors::has_place;

use super::socket::CONNECTIONS;

/// The places for connections of one kind.
#[derive(Clone)]
pub(super) struct Places {
    own_uid: u32,
    /// The users of those that are taken.
    taken: Arc<Mutex<Vec<u32>>>,
}

/// One place, free again when this is dropped.
pub(super) struct Place {
    places: Places,
    uid: u32,
}

impl Places {
    /// None is taken; a daemon's own user may take all of them.
    pub(super) fn new(own_uid: u32) -> Self {
        Self {
            own_uid,
            taken: Arc::default(),
        }
    }

    /// Takes a place for a user, if there is one for it.
    pub(super) fn enter(&self, uid: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        has_place(&taken, uid, self.own_uid, CONNECTIONS).then(|| {
            taken.push(uid);
            Place {
                places: self.clone(),
                uid,
            }
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

impl Place {
    /// Whether it is one of these.
    pub(super) fn is_of(&self, places: &Places) -> bool {
        Arc::ptr_eq(&self.places.taken, &places.taken)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = taken.iter().position(|uid| *uid == self.uid) {
            taken.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let places = Places::new(1000);
        let others: Vec<Place> = std::iter::from_fn(|| places.enter(1001)).collect();
        assert_eq!(others.len(), CONNECTIONS / 2);
        let own: Vec<Place> = std::iter::from_fn(|| places.enter(1000)).collect();
        assert_eq!(own.len(), CONNECTIONS / 2);
        assert!(places.enter(0).is_none());
        drop(others);
        assert!(places.enter(0).is_some() && !places.is_empty());
        drop(own);
        assert!(places.is_empty());
    }
}
