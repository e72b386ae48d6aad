//! The tuner measured against other policies, on the accelerated engine and under loads of many kinds.
//!
//! A `world` is one engine under one load; a policy sees what the engine shows, once a second, and may ask for another
//! of the `rungs`. `fixed` policies stay on one, `script` compares memory with two lines as people do in a shell
//! script, `tuned` is the tuner itself, and `clairvoyant` knows the whole load beforehand. `size` chooses an engine
//! that suits a load, [`suite`] says which loads and engines there are, [`report`] prints what came out.

mod clairvoyant;
mod fixed;
pub mod report;
mod rungs;
mod score;
mod script;
mod size;
pub mod suite;
mod tuned;
mod world;
