//! Policies that do nothing: one rung for ever.

use std::sync::Arc;

use super::score::Score;
use super::world::{Scenario, World};

/// The whole load on one rung.
pub(super) fn fixed(scenario: &Arc<Scenario>, rung: usize) -> Score {
    let mut world = World::new(Arc::clone(scenario), rung);
    while !world.is_over() {
        world.advance(60.0);
    }
    world.into_score()
}
