//! The driver library as its clients meet it: loaded at run time by nvml-wrapper, from the path that an operator gives.
#![expect(unsafe_code, reason = "raw NVML calls for what the wrapper does not offer")]

mod events;
mod faults;
mod figures;
mod life;
mod mig;
mod processes;
mod symbols;
mod world;
