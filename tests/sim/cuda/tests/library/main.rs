//! The library as programs and clients of CUPTI see it: each test loads a copy of its own.
#![expect(clippy::unwrap_used, reason = "a test that finds no value has failed")]

mod agent;
mod counts;
mod faults;
mod flush;
mod layouts;
mod memory;
mod start;
mod world;
