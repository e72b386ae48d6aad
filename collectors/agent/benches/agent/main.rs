//! What the agent costs the process that it is in: `cargo bench -p plimsoll-agent`.
//!
//! Each figure stands beside the same figure of the least that could do the job, measured in the same run: a consumer that
//! steps through the records and adds them up, with nothing around it. Nothing here fails because a figure is bad.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says why and ends")]

mod consumer;
mod floor;
mod process;
mod program;

/// One line of the table.
struct Row {
    what: &'static str,
    agent: f64,
    floor: Option<f64>,
    goal: &'static str,
    unit: &'static str,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == program::WORD) {
        return program::main(&words[at + 1..]);
    }
    let mut rows = consumer::rows();
    // `cargo bench -p plimsoll-agent -- consumer` is over in a second.
    if !words.iter().any(|word| word == "consumer") {
        rows.extend(process::rows());
    }
    println!("| figure | agent | least | goal | unit |\n|---|---|---|---|---|");
    for row in rows {
        let floor = row
            .floor
            .map_or_else(|| "-".to_owned(), |floor| format!("{floor:.1}"));
        println!(
            "| {} | {:.1} | {floor} | {} | {} |",
            row.what, row.agent, row.goal, row.unit
        );
    }
}
