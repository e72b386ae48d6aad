//! Edits of configuration files that people wrote: one value changes, every other byte stays.

mod key_path;

pub use key_path::{KeyPath, KeyPathError};
