//! Ladders in a small world: what is decided and when, and what never happens.

mod budgets;
mod drive;
mod explanations;
mod lines;
mod modes;
mod never;
mod outcomes;
mod steps;
