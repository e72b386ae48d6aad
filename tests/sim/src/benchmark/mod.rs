//! The tuner measured against other policies on the accelerated engine.
#![allow(missing_docs)]

pub mod clairvoyant;
pub mod rungs;
pub mod score;
pub mod tuned;
pub mod size;
pub mod world;
