//! From record to record in a buffer that CUPTI filled.

use std::marker::PhantomData;

use crate::record::Prefix;
use crate::{Answer, Functions};

/// One record: the bytes from its beginning to the next one's.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// Takes bytes for a record.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Its kind, one of [`crate::constant::kind`]; 0 of what is too short to have one.
    #[must_use]
    #[inline]
    pub fn kind(self) -> u32 {
        self.0.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    /// Its beginning; `None` when the record is too short.
    #[must_use]
    #[inline]
    pub fn view<T: Prefix>(self) -> Option<T> {
        if self.0.len() < size_of::<T>() {
            return None;
        }
        // SAFETY: there are enough bytes, they need no alignment, and each pattern of them is valid.
        Some(unsafe { self.0.as_ptr().cast::<T>().read_unaligned() })
    }

    /// The `N` bytes at an offset; `None` when the record is too short, as one of an older version is.
    #[must_use]
    #[inline]
    pub fn field<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    /// How long it is, bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no record is empty")]
    pub const fn len(self) -> usize {
        self.0.len()
    }
}

/// How stepping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has not.
    Open,
    /// At the end of what is valid.
    Complete,
    /// CUPTI answered this, or led out of the buffer or backwards ([`Answer::SUCCESS`]). What follows is lost.
    Broken(Answer),
}

/// The records of one buffer.
#[derive(Debug)]
pub struct Records<'a> {
    functions: &'a Functions,
    start: *mut u8,
    valid: usize,
    /// The next record to hand out, found already: a record is known to end where the next begins.
    next: *mut u8,
    ending: Ending,
    buffer: PhantomData<&'a [u8]>,
}

impl<'a> Records<'a> {
    /// Begins at the front of a buffer.
    ///
    /// # Safety
    /// `start` must point at `valid` bytes that CUPTI gave back as a buffer of records, and that nobody writes to during
    /// `'a`.
    #[must_use]
    pub unsafe fn of(functions: &'a Functions, start: *mut u8, valid: usize) -> Self {
        let mut records = Self {
            functions,
            start,
            valid,
            next: std::ptr::null_mut(),
            ending: Ending::Open,
            buffer: PhantomData,
        };
        records.next = records.step(std::ptr::null_mut()).unwrap_or_default();
        records
    }

    /// How it ended.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// Where the record after `record` begins; the first of all after null.
    #[inline]
    fn step(&mut self, record: *mut u8) -> Option<*mut u8> {
        let mut next = record;
        // SAFETY: buffer and record are as CUPTI gave them, as the constructor's caller vouches.
        let answer = unsafe { (self.functions.get_next_record)(self.start, self.valid, &raw mut next) };
        if answer != Answer::SUCCESS {
            self.ending = match answer {
                Answer::MAX_LIMIT_REACHED => Ending::Complete,
                other => Ending::Broken(other),
            };
            return None;
        }
        let inside = next >= self.start && next < self.start.wrapping_add(self.valid);
        if !inside || next <= record {
            self.ending = Ending::Broken(Answer::SUCCESS);
            return None;
        }
        Some(next)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let record = self.next;
        if record.is_null() {
            return None;
        }
        let end = match self.step(record) {
            Some(next) => {
                self.next = next;
                next
            }
            None => {
                self.next = std::ptr::null_mut();
                self.start.wrapping_add(self.valid)
            }
        };
        let length = end.addr() - record.addr();
        // SAFETY: both ends lie in the buffer, in this order, and the buffer is nobody's else during 'a.
        Some(Record(unsafe { std::slice::from_raw_parts(record, length) }))
    }
}
