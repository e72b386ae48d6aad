//! Probes a CUPTI library: `cargo run -p cupti-sys --example probe -- [LIBRARY]`.

use std::path::PathBuf;

fn main() {
    let named = std::env::args_os().nth(1).map(PathBuf::from);
    cupti_sys::probe(named.as_deref(), |finding| println!("{finding:?}"));
}
