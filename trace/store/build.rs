//! A migration that is added is embedded too: without this only changes of those already known are noticed.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
