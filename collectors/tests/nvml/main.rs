//! The NVML collector against the simulated driver, loaded through the same dlopen as a real one.
//!
//! Ticks carry a time of the tests' own, a second apart, so what is paced by ticks takes no time here. What is paced by the
//! clock (the watchdog, the pauses between starts of the driver) is awaited.

mod devices;
mod driver;
mod figures;
mod hangs;
mod processes;
mod world;
