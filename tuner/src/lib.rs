//! Rules, decisions, plans, and the executor that writes, reloads, verifies and undoes.

pub mod edit;

pub use edit::KeyPath;
