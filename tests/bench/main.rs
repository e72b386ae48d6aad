//! What Plimsoll costs, how fast it reacts and how long a picture takes: `cargo bench -p plimsoll`.
//!
//! The real program runs against the simulated driver; `docs/benchmarks.md` says what is measured and how. Nothing here
//! fails because a figure is bad: a missed goal is printed as missed.

mod cost;
mod drawing;
mod floor;
mod machine;
mod reaction;
mod replayed_day;
mod stand_in;
mod table;
mod traced_day;
mod usage;
mod world;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use table::Section;

/// Measures the program and prints each figure beside its goal and beside a floor.
#[derive(Debug, Parser)]
#[command(name = "cargo bench -p plimsoll --")]
struct Arguments {
    /// Only these parts [default: all]
    parts: Vec<Part>,
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
    /// How long each cost is measured, after a warm-up of 10 s
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    seconds: u64,
    /// How often a line is crossed
    #[arg(long, value_name = "N", default_value_t = 20)]
    crossings: u32,
    /// Given by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the service costs while it samples
    Cost,
    /// From a crossed line to the engine's signal
    Reaction,
    /// The picture of a day
    Drawing,
    /// Reports on a day of kernels
    Traced,
    /// Rules over the recording of a day
    Replay,
}

fn main() -> anyhow::Result<()> {
    // This program is also its own child processes: the floor that a cost is held against, and the engine.
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(floor::FLOOR) => return floor::sample(words),
        Some(floor::TIMER) => return floor::wake(words),
        Some(stand_in::ENGINE) => return stand_in::serve(),
        _ => {}
    }
    let arguments = Arguments::parse();
    let wants = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    println!("{}\n", machine::describe());
    let show = |section: &Section| println!("{}\n", section.show(arguments.markdown));
    if wants(Part::Cost) {
        show(&cost::busy(arguments.seconds).context("the cost of the service")?);
        show(&cost::idle(arguments.seconds).context("the cost of the idle service")?);
    }
    if wants(Part::Reaction) {
        show(&reaction::measure(arguments.crossings).context("the reaction")?);
    }
    if wants(Part::Drawing) {
        show(&drawing::measure().context("the drawing")?);
    }
    if wants(Part::Traced) {
        show(&traced_day::measure().context("the traced day")?);
    }
    if wants(Part::Replay) {
        show(&replayed_day::measure().context("the replayed day")?);
    }
    println!("{}", machine::load());
    Ok(())
}
