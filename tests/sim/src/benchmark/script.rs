//! What people write first: a script that compares memory with two lines, once a second.

use std::sync::Arc;

use super::score::Score;
use super::world::{Scenario, World};

/// From this use on, the first rung.
const FIRST: f64 = 0.80;
/// From this use on, the last.
const LAST: f64 = 0.92;

/// Memory against two lines. A rung goes when memory in use falls `gap` below its line.
pub(super) fn script(scenario: &Arc<Scenario>, gap: f64) -> Score {
    let last = scenario.rungs.len() - 1;
    let mut world = World::new(Arc::clone(scenario), 0);
    while !world.is_over() {
        let reading = world.advance(1.0);
        if !reading.ready {
            continue;
        }
        // The line of a rung that is taken lies lower than that of one that is not.
        let over = |line: f64, taken: bool| reading.used_ratio >= if taken { line - gap } else { line };
        let rung = if over(LAST, world.rung() == last) {
            last
        } else {
            usize::from(over(FIRST, world.rung() >= 1))
        };
        world.change(scenario.rungs.taken(rung));
    }
    world.into_score()
}
