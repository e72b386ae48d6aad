//! Kernels for people: a table as wide as the terminal, and below it what the tracing cost and what it missed.

use std::time::Duration;

use plimsoll_trace::units::{show_bytes, show_duration, show_ratio};

use super::{Cost, Kernel, Kernels, Lost};
use crate::plain::wrapped;
use crate::runs::Run;
use crate::text::clean;

/// The heads of the columns behind the name.
const HEADS: [&str; 6] = ["COUNT", "TOTAL", "SHARE", "MEAN", "P50", "P99"];
/// A name is not cut to less.
const SHORTEST_NAME: usize = 24;

/// The kernels for people. `width` is how many characters a line may have; names are cut to fit.
#[must_use]
pub fn text(kernels: &Kernels, width: usize) -> String {
    if kernels.kernels.is_empty() {
        return wrapped(&nothing(kernels), 0) + &below(kernels);
    }
    let devices = devices(&kernels.kernels);
    let cells: Vec<[String; 6]> = kernels.kernels.iter().map(cells).collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = cells.iter().map(|row| row[column].chars().count());
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    });
    let names: Vec<String> = kernels
        .kernels
        .iter()
        .map(|kernel| named(kernel, &devices))
        .collect();
    let others: usize = widths.iter().map(|width| width + 2).sum();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let room = width
        .saturating_sub(others)
        .max(SHORTEST_NAME)
        .min(longest.max(4));
    let line = |name: &str, cells: &[String; 6]| {
        let cells = cells.iter().zip(widths);
        let figures: String = cells.map(|(cell, width)| format!("  {cell:>width$}")).collect();
        format!("{:<room$}{figures}\n", cut(name, room))
    };
    let mut out = line("NAME", &HEADS.map(str::to_owned));
    for (name, cells) in names.iter().zip(&cells) {
        out += &line(name, cells);
    }
    if devices.len() > 1 {
        for (number, device) in devices.iter().enumerate() {
            out += &format!("[{number}] {}\n", device.unwrap_or("unknown device"));
        }
    }
    out.push('\n');
    out + &below(kernels)
}

/// Why there are none, and what to do.
fn nothing(kernels: &Kernels) -> String {
    let run = &kernels.run;
    let why = match (run.trace_tier.as_str(), &kernels.degraded) {
        ("off", _) => "it was not traced; record with `plimsoll run --trace graph -- CMD`",
        ("memory", _) => "tier memory records allocations only; record with --trace graph",
        (_, Some(degraded)) => degraded,
        _ if run.ended_ns.is_none() => "none has ended yet, or CUPTI delivers none",
        _ => "CUPTI delivered none",
    };
    format!("No kernels of run {} ({}) are recorded: {why}.", run.id, run.name)
}

/// The devices, in the order in which they first appear.
fn devices(kernels: &[Kernel]) -> Vec<Option<&str>> {
    let mut devices = Vec::new();
    for kernel in kernels {
        if !devices.contains(&kernel.device.as_deref()) {
            devices.push(kernel.device.as_deref());
        }
    }
    devices
}

fn named(kernel: &Kernel, devices: &[Option<&str>]) -> String {
    let name = clean(&kernel.name);
    match devices
        .iter()
        .position(|device| *device == kernel.device.as_deref())
    {
        Some(number) if devices.len() > 1 => format!("[{number}] {name}"),
        _ => name.into_owned(),
    }
}

fn cells(kernel: &Kernel) -> [String; 6] {
    let duration = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), show_ns);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; printed only"
    )]
    let mean = kernel.mean_ns.map(|mean| mean.max(0.0) as u64);
    [
        grouped(kernel.count),
        show_ns(kernel.total_ns),
        kernel.share_ratio.map_or_else(|| "-".to_owned(), show_ratio),
        duration(mean),
        duration(kernel.p50_ns),
        duration(kernel.p99_ns),
    ]
}

/// Sums, cost and losses.
fn below(kernels: &Kernels) -> String {
    let mut out = String::new();
    if kernels.count > 0 {
        let all = kernels.kernels.len() as u64 + kernels.left_out;
        let more = match kernels.left_out {
            0 => String::new(),
            more => format!("; {more} of them are not shown (--limit 0 shows all)"),
        };
        out += &wrapped(
            &format!(
                "{} launches of {all} kernels, {} of GPU time{more}.",
                grouped(kernels.count),
                show_ns(kernels.total_ns)
            ),
            0,
        );
    }
    let cost = &kernels.cost;
    let told = [
        cost.mean_ratio
            .zip(cost.max_ratio)
            .map(|(mean, max)| format!("cost {} of the time (at most {})", fine(mean), fine(max))),
        cost.duty_ratio
            .map(|duty| format!("recorded kernels {} of the time", show_ratio(duty))),
        cost.device_bytes.map(|bytes| {
            format!(
                "could hold {} of device memory in each context",
                show_bytes(bytes)
            )
        }),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    if told.is_empty() {
        if kernels.count > 0 {
            out += "What tracing cost is unknown.\n";
        }
    } else {
        out += &wrapped(&format!("Tracing {}.", told.join(", ")), 0);
        if may_exceed_its_budget(&kernels.run, cost) {
            out += &wrapped(
                "A run begins with what its budget allows in ten seconds, so that a short one is recorded whole: it may \
                 cost more than its budget.",
                0,
            );
        }
    }
    let lost = |loss: &Lost| format!("{} ({})", loss.count, loss.reason.replace('_', " "));
    let lost: Vec<String> = kernels.losses.iter().map(lost).collect();
    if !lost.is_empty() && kernels.run.trace_tier != "off" {
        out += &wrapped(&format!("Lost meanwhile: {}.", lost.join(", ")), 0);
    } else if kernels.count > 0 {
        out += "Nothing was lost.\n";
    }
    out
}

/// Whether a run was so short, and its cost so high, that what its agents began with explains it. How high the budget was
/// is not stored; it is 1 % where nobody says otherwise.
fn may_exceed_its_budget(run: &Run, cost: &Cost) -> bool {
    const SHORT_NS: i64 = 60_000_000_000;
    const USUAL_BUDGET: f64 = 0.01;
    let is_short = run
        .ended_ns
        .is_some_and(|ended| ended.saturating_sub(run.started_ns) < SHORT_NS);
    is_short && cost.max_ratio.is_some_and(|max| max > USUAL_BUDGET)
}

/// A small share, with three figures.
fn fine(ratio: f64) -> String {
    if ratio >= 0.1 {
        show_ratio(ratio)
    } else {
        format!("{:.2} %", ratio * 100.0)
    }
}

/// Three figures, as durations of kernels are told: "870 ns", "12.4 µs", "3.07 ms", "1.25 s".
#[expect(clippy::cast_precision_loss, reason = "printed with three figures")]
fn show_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..999_500 => (ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
        999_500_000..60_000_000_000 => (ns as f64 / 1e9, "s"),
        _ => return show_duration(Duration::from_nanos(ns)),
    };
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

/// Digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn cut(name: &str, room: usize) -> String {
    if name.chars().count() <= room {
        return name.to_owned();
    }
    let short: String = name.chars().take(room.saturating_sub(1)).collect();
    format!("{}…", short.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_may_cost_more_than_its_budget() {
        let run = |ended_ns| Run {
            id: 1,
            name: "job".to_owned(),
            engine: None,
            host: "host".to_owned(),
            pid: None,
            command: None,
            started_ns: 0,
            ended_ns,
            exit_code: None,
            outcome: "ok".to_owned(),
            peak_used_bytes: None,
            trace_tier: "graph".to_owned(),
        };
        let cost = |max_ratio| Cost {
            max_ratio,
            ..Cost::default()
        };
        let (second, hour) = (Some(1_000_000_000), Some(3_600_000_000_000));
        assert!(may_exceed_its_budget(&run(second), &cost(Some(0.03))));
        assert!(!may_exceed_its_budget(&run(second), &cost(Some(0.004))));
        assert!(!may_exceed_its_budget(&run(hour), &cost(Some(0.03))));
        assert!(!may_exceed_its_budget(&run(None), &cost(Some(0.03))));
        assert!(!may_exceed_its_budget(&run(second), &cost(None)));
    }

    #[test]
    fn figures_for_people() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_449, "12.4 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (3_070_000, "3.07 ms"),
            (1_250_000_000, "1.25 s"),
            (125_000_000_000, "2 min 5 s"),
        ] {
            assert_eq!(show_ns(ns), text);
        }
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(fine(0.0042), "0.42 %");
    }
}
