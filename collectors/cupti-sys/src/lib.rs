//! Raw CUPTI, loaded at run time. Nothing links to it: this crate builds and its users start where there is no CUDA.
//!
//! One build reads the records of CUPTI 11.8 to 13.x. That works because records only ever grow at the end: a record is
//! stepped over with `cuptiActivityGetNextRecord`, which knows its length, and read through a prefix that all versions
//! share ([`record`]). A field that came later is `None` in a record that is too short for it. Of the functions eight are
//! needed ([`Functions`]); every other is an `Option`.
//!
//! The crate adds no policy: it searches the library ([`Library::open`]), calls it, and reads what it wrote. [`probe`] is
//! the one exception, for a child process that may crash.
#![expect(
    unsafe_code,
    reason = "calls a foreign library and reads memory that it wrote"
)]

mod answer;
pub mod constant;
mod functions;
mod library;
mod locate;
mod probe;
pub mod record;
mod step;

pub use answer::Answer;
pub use functions::{ApiCallback, CallbackData, CompleteBuffer, Functions, RequestBuffer, Subscriber};
pub use library::{Library, LoadError};
pub use locate::{Candidate, Place, candidates};
pub use probe::{Finding, Report, probe};
pub use step::{Ending, Record, Records};

// Offsets, handles and addresses are those of 64-bit systems.
const _: () = assert!(size_of::<usize>() == 8);
