//! The bounded way into the store: anybody may push, nobody waits, and what does not fit is counted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use plimsoll_trace::{Batch, Record};
use tokio::sync::{Notify, oneshot};

use crate::StoreError;

/// How many records may wait, here and again in the writer: about 20 s of eight devices and 64 processes at 10 Hz.
pub(crate) const CAPACITY: usize = 16_384;

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) at_ns: i64,
    pub(crate) record: Record,
    /// Set when somebody waits for this record to be durable. Such a record is stored with the next commit or never.
    pub(crate) ticket: Option<u64>,
}

pub(crate) type Ack = oneshot::Sender<Result<(), StoreError>>;

/// What the writer takes at once.
pub(crate) struct Taken {
    pub(crate) items: VecDeque<Item>,
    pub(crate) acks: Vec<Ack>,
    /// How many batches had been appended by then, since the beginning.
    pub(crate) appended: u64,
    /// Records dropped here since the last time.
    pub(crate) lost: u64,
    pub(crate) closed: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    capacity: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    acks: Vec<Ack>,
    appended: u64,
    lost: u64,
    tickets: u64,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            capacity,
        }
    }

    /// Adds records; wakes the writer when one of them should not wait for the next tick.
    pub(crate) fn append(&self, batch: Batch) {
        let mut state = self.lock();
        if state.closed {
            tracing::debug!(
                records = batch.records.len(),
                "records came after the store was closed"
            );
            return;
        }
        let urgent = batch.records.iter().any(Record::is_urgent);
        state.push(batch, None);
        state.appended += 1;
        let excess = state.items.len().saturating_sub(self.capacity);
        if excess > 0 {
            // A little more than needed, so that a full queue is not searched for each batch.
            state.lost += evict(&mut state.items, self.capacity - self.capacity / 8);
        }
        if urgent || state.items.len() > self.capacity / 4 {
            self.wake.notify_one();
        }
    }

    /// Adds records that somebody waits for.
    pub(crate) fn commit(&self, batch: Batch) -> oneshot::Receiver<Result<(), StoreError>> {
        let (ack, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            drop(ack.send(Err(StoreError::Closed)));
        } else {
            state.tickets += 1;
            let ticket = state.tickets;
            state.push(batch, Some(ticket));
            state.acks.push(ack);
            self.wake.notify_one();
        }
        answer
    }

    /// How many records may come before half of the capacity is used. The other half is for those who do not ask.
    pub(crate) fn room(&self) -> usize {
        (self.capacity / 2).saturating_sub(self.lock().items.len())
    }

    /// How many batches were appended, since the beginning.
    pub(crate) fn appended(&self) -> u64 {
        self.lock().appended
    }

    /// Refuses whatever comes from now on and wakes the writer for the last time.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn take(&self) -> Taken {
        let mut state = self.lock();
        Taken {
            items: std::mem::take(&mut state.items),
            acks: std::mem::take(&mut state.acks),
            appended: state.appended,
            lost: std::mem::take(&mut state.lost),
            closed: state.closed,
        }
    }

    /// Waits until somebody is in a hurry.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, batch: Batch, ticket: Option<u64>) {
        let at_ns = batch.at.unix_ns;
        self.items.extend(batch.records.into_iter().map(|record| Item {
            at_ns,
            record,
            ticket,
        }));
    }
}

/// Drops records until `keep` are left, oldest first within a class: values that may be missed, then samples, and
/// only when nothing else is left what happened or was decided. Records that somebody waits for stay. Says how many
/// were dropped.
pub(crate) fn evict(items: &mut VecDeque<Item>, keep: usize) -> u64 {
    let before = items.len();
    for class in 0..3 {
        let mut excess = items.len().saturating_sub(keep);
        if excess == 0 {
            break;
        }
        items.retain(|item| {
            let drop = excess > 0 && item.ticket.is_none() && class_of(&item.record) == class;
            excess -= usize::from(drop);
            !drop
        });
    }
    (before - items.len()) as u64
}

fn class_of(record: &Record) -> u8 {
    match record {
        record if record.is_droppable() => 0,
        Record::Device(_) | Record::Process(_) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_trace::{DeviceSample, Event, EventKind, HostSample, Stamp};

    use super::*;

    fn batch(records: Vec<Record>) -> Batch {
        Batch {
            at: Stamp::at_secs(1),
            records,
        }
    }

    fn event(text: &str) -> Record {
        Record::Event(Event::new(EventKind::Xid, text))
    }

    fn device(name: &str) -> Record {
        Record::Device(DeviceSample::unknown(name.into()))
    }

    #[test]
    fn values_go_first_then_samples_and_every_one_is_counted() {
        let queue = Queue::new(8);
        for number in 0..6 {
            queue.append(batch(vec![
                event(&number.to_string()),
                Record::Host(HostSample::default()),
                device("a"),
            ]));
        }
        let taken = queue.take();
        let kinds: Vec<u8> = taken.items.iter().map(|item| class_of(&item.record)).collect();
        assert_eq!(kinds.len() as u64 + taken.lost, 18);
        assert_eq!(
            kinds.iter().filter(|class| **class == 2).count(),
            6,
            "no event is dropped while a sample is there"
        );
        assert_eq!(queue.take().lost, 0, "counted once");
    }

    #[test]
    fn events_alone_are_bounded_too_and_what_is_awaited_stays() {
        let queue = Queue::new(8);
        let _answer = queue.commit(batch(vec![event("awaited")]));
        for number in 0..100 {
            queue.append(batch(vec![event(&number.to_string())]));
        }
        let taken = queue.take();
        assert!(taken.items.len() <= 8);
        assert_eq!(taken.items.len() as u64 + taken.lost, 101);
        assert_eq!(
            taken.items.front().map(|item| item.record.clone()),
            Some(event("awaited"))
        );
        assert_eq!(
            taken.items.back().map(|item| item.record.clone()),
            Some(event("99")),
            "the newest stay"
        );
    }

    #[test]
    fn who_can_wait_sees_half_of_the_room() {
        let queue = Queue::new(8);
        assert_eq!(queue.room(), 4);
        for room in [3, 2, 1, 0, 0] {
            queue.append(batch(vec![device("a")]));
            assert_eq!(queue.room(), room);
        }
        assert_eq!(queue.take().items.len(), 5);
        assert_eq!(queue.room(), 4);
    }

    #[test]
    fn a_closed_queue_refuses() {
        let queue = Queue::new(8);
        queue.close();
        queue.append(batch(vec![event("late")]));
        let mut answer = queue.commit(batch(vec![event("later")]));
        assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Closed))));
        assert!(queue.take().items.is_empty());
    }
}
