//! A schedule made with knowledge of the whole load: dynamic programming over the model itself. For each rung the best
//! course that ends on it is kept, and from each of them all rungs are tried for another while.

use std::sync::Arc;

use super::fixed::fixed;
use super::score::Score;
use super::world::{Scenario, World};

/// A schedule may change its rung this often, in seconds.
const EPOCH_SECS: f64 = 30.0;
/// So many of the best courses are kept for each rung.
const KEPT: usize = 2;

/// The best schedule found, where a degraded good request is worth `worth` of a full one. What stays on one rung is a
/// schedule too, so none of these is better.
pub(super) fn clairvoyant(scenario: &Arc<Scenario>, worth: f64) -> Score {
    let rungs = scenario.rungs.len();
    let mut courses = vec![World::new(Arc::clone(scenario), 0)];
    while courses.iter().any(|course| !course.is_over()) {
        let mut next: Vec<World> = Vec::new();
        for course in &courses {
            let choices = (0..rungs).filter(|rung| *rung == course.rung() || course.is_up());
            next.extend(choices.map(|rung| {
                let mut other = course.clone();
                other.change(rung);
                other.advance(EPOCH_SECS);
                other
            }));
        }
        next.sort_by(|a, b| b.score().value(worth).total_cmp(&a.score().value(worth)));
        courses = (0..rungs)
            .flat_map(|rung| next.iter().filter(move |world| world.rung() == rung).take(KEPT))
            .cloned()
            .collect();
    }
    let scheduled = courses.into_iter().map(World::into_score);
    let constant = (0..rungs).map(|rung| fixed(scenario, rung));
    scheduled
        .chain(constant)
        .max_by(|a, b| a.value(worth).total_cmp(&b.value(worth)))
        .unwrap_or_default()
}
