//! The agent as CUDA injects it: a program that uses the simulated driver, with the library in it, and a stand-in for the
//! daemon that reads what it tells.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that finds no value has failed"
)]

mod counts;
mod daemon;
mod ends;
mod faults;
mod memory;
mod neighbours;
mod program;
