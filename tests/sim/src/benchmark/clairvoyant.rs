//! A schedule made with knowledge of the whole load: dynamic programming over the model.

use std::sync::Arc;

use super::score::Score;
use super::world::{Scenario, World};

/// A schedule may change its rung this often, in seconds.
const EPOCH_SECS: f64 = 30.0;
/// So many of the best courses are kept for each rung.
const KEPT: usize = 2;

/// The score of the best schedule found, where a degraded good request is worth `worth` of a full one.
#[must_use]
pub fn clairvoyant(scenario: &Arc<Scenario>, worth: f64) -> Score {
    let mut courses: Vec<World> = vec![World::new(Arc::clone(scenario), 0)];
    while courses.iter().any(|course| !course.is_over()) {
        let mut next: Vec<World> = Vec::new();
        for course in &courses {
            for rung in 0..scenario.rungs.len() {
                if rung != course.rung() && !course.is_up() {
                    continue;
                }
                let mut other = course.clone();
                other.change(rung);
                other.advance(EPOCH_SECS);
                next.push(other);
            }
        }
        courses.clear();
        next.sort_by(|a, b| b.score().value(worth).total_cmp(&a.score().value(worth)));
        for rung in 0..scenario.rungs.len() {
            courses.extend(next.iter().filter(|world| world.rung() == rung).take(KEPT).cloned());
        }
    }
    courses
        .into_iter()
        .max_by(|a, b| a.score().value(worth).total_cmp(&b.score().value(worth)))
        .map(|world| world.score().clone())
        .unwrap_or_default()
}
