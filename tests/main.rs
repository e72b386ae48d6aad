//! End to end: the real `plimsoll` binary against the simulated driver and engine.
//!
//! One binary, one world per test (`world.rs`): a folder with its own simulated GPU, driver library, engine and store, so
//! that tests run side by side.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first surprise"
)]

mod agent;
mod allocator;
mod bad_input;
mod check;
mod command_line;
mod daemon_life;
mod demo;
mod door;
mod driver_faults;
mod export;
mod injection;
mod metrics;
mod orders;
mod recovery;
mod replay;
mod rollback;
mod rule_tools;
mod rules;
mod run_command;
mod sampling;
mod tell;
mod world;
