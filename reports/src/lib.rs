//! What people look at: the memory timeline of a run as an SVG, and runs, decisions and query answers as text or JSON.
//!
//! Everything here turns data into a string. Data come as plain values ([`timeline::Timeline`]) or from the public
//! views of a store ([`load`]). The time zone is a parameter, and nothing reads the clock, so the same data give the
//! same bytes.

pub mod downsample;
mod instant;
mod svg;
mod text;
pub mod timeline;

pub use svg::{DrawError, Theme, svg};
