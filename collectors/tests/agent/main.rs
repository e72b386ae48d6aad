//! The agents' collector against agents that are made up: good ones, dying ones and hostile ones.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first surprise"
)]

mod frames;
mod hostile;
mod life;
mod standing;
mod world;
