//! Decisions carried out: on an engine that misbehaves, beside a person who edits, with a journal that fails, and by a
//! daemon that is killed at every step.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod bad_changes;
mod book;
mod edits;
mod engine;
mod faults;
mod interleavings;
mod kills;
mod memory;
mod restarts;
mod world;
