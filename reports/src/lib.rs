//! What people look at: the memory timeline of a run as an SVG, and runs, decisions and query answers as text or JSON.
//!
//! Everything here turns data into a string, but for an export, which writes as it reads. Data come as plain values ([`timeline::Timeline`], [`runs::Run`]) or from
//! the public views of a store ([`load`]). The time zone is a parameter, and nothing reads the clock, so the same data
//! give the same bytes. What is not known is NULL in JSON, "unknown" in text and hatched in a picture.

pub mod allocators;
mod change;
pub mod decisions;
pub mod downsample;
mod error;
pub mod export;
pub mod family;
mod find;
pub mod flame;
mod grounds;
pub mod html;
mod instant;
pub mod kernels;
pub mod load;
mod plain;
mod row;
pub mod runs;
pub mod show;
mod svg;
pub mod table;
mod text;
mod thin;
pub mod timeline;
pub mod why;
mod words;

use serde::Serialize;

pub use error::ReportError;
pub use find::find_run;
pub use svg::{DrawError, Theme, svg};

/// JSON for programs; the version changes when a reader of an older one would misread it.
fn versioned(body: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        body: &'a T,
    }
    // Plain structs with text keys always serialise; foreign floats become null.
    serde_json::to_string_pretty(&Versioned { version: 1, body })
        .map_or_else(|_| String::new(), |text| text + "\n")
}
