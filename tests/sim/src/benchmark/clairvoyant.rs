//! A schedule made with knowledge of the whole load: dynamic programming over the model itself. For each rung the best
//! courses that end on it are kept, and from each of them all rungs are tried for another while.

use std::sync::Arc;

use super::score::Score;
use super::world::{Scenario, World};

/// A schedule may change its rung this often, in seconds.
const DECISION_SECS: f64 = 120.0;
/// How long after that the courses are compared, in seconds. Those that restarted are on rungs of their own by then.
const LOOK_SECS: f64 = 60.0;
/// So many of the best courses are kept for each rung and worth.
const KEPT: usize = 2;
/// A score that is at least this share of all requests, at any worth, is not searched for a better one.
const AS_GOOD_AS_ALL: f64 = 0.995;

/// The best schedule found for each worth, where a degraded good request is worth that much of a full one. `others` are
/// the scores of other policies: they are schedules too, so none of them is better.
pub(super) fn clairvoyant(scenario: &Arc<Scenario>, worths: &[f64], others: &[&Score]) -> Vec<Score> {
    let enough = AS_GOOD_AS_ALL * scenario.workload.arrivals.len() as f64;
    let courses = if others.iter().any(|score| score.full as f64 >= enough) {
        Vec::new()
    } else {
        courses(scenario, worths)
    };
    let best = |worth: &f64| {
        let scheduled = courses.iter().map(World::score);
        scheduled
            .chain(others.iter().copied())
            .max_by(|a, b| a.value(*worth).total_cmp(&b.value(*worth)))
            .cloned()
            .unwrap_or_default()
    };
    worths.iter().map(best).collect()
}

/// Courses of the whole load, among them the best for each worth.
fn courses(scenario: &Arc<Scenario>, worths: &[f64]) -> Vec<World> {
    let rungs = scenario.rungs.len();
    let mut courses = vec![World::new(Arc::clone(scenario), 0)];
    while courses.iter().any(|course| !course.is_over()) {
        let mut next: Vec<World> = Vec::new();
        for course in courses {
            if course.is_up() {
                let choices = (0..rungs)
                    .map(|rung| scenario.rungs.taken(rung))
                    .chain(scenario.rungs.lower_limits());
                next.extend(choices.filter(|taken| *taken != course.taken()).map(|taken| {
                    let mut other = course.clone();
                    other.change(taken);
                    other
                }));
                if course.is_leaky() {
                    let mut other = course.clone();
                    other.restart();
                    next.push(other);
                }
            }
            next.push(course);
        }
        for course in &mut next {
            course.advance(LOOK_SECS);
        }
        courses = kept(next, rungs, worths);
        for course in &mut courses {
            course.advance(DECISION_SECS - LOOK_SECS);
        }
    }
    courses
}

/// The best courses for each rung and worth; one that is good for several is kept once, and so are those that cannot be
/// told from each other.
fn kept(mut courses: Vec<World>, rungs: usize, worths: &[f64]) -> Vec<World> {
    courses.sort_by_key(World::seen);
    courses.dedup_by_key(|course| course.seen());
    let mut keep = vec![false; courses.len()];
    for worth in worths {
        let mut order: Vec<usize> = (0..courses.len()).collect();
        let value = |position: &usize| {
            courses
                .get(*position)
                .map_or(0.0, |course| course.score().value(*worth))
        };
        order.sort_by(|a, b| value(b).total_cmp(&value(a)));
        for rung in 0..rungs {
            let ends_there = |position: &&usize| {
                courses
                    .get(**position)
                    .is_some_and(|course| course.rung() == rung)
            };
            for position in order.iter().filter(ends_there).take(KEPT) {
                if let Some(kept) = keep.get_mut(*position) {
                    *kept = true;
                }
            }
        }
    }
    courses
        .into_iter()
        .zip(keep)
        .filter_map(|(course, kept)| kept.then_some(course))
        .collect()
}
