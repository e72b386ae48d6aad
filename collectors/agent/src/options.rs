//! The options: all of them, in one table. They come from the environment of the process that the agent is in.

use std::path::PathBuf;
use std::time::Duration;

use plimsoll_trace::TraceTier;
use plimsoll_trace::units::{parse_duration, parse_ratio, parse_size};

/// What the agent was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) tier: TraceTier,
    pub(crate) cupti: Option<PathBuf>,
    /// The share of the process's time that the agent may cost; `None` is as much as it takes.
    pub(crate) budget: Option<f64>,
    pub(crate) flush: Duration,
    pub(crate) chain: Option<PathBuf>,
    pub(crate) ring_bytes: u32,
    /// Whether the calls of virtual memory are observed; `None` where that depends on the program.
    pub(crate) virtual_memory: Option<bool>,
    /// How long a window of single kernels is open.
    pub(crate) window: Duration,
    /// From the beginning of one window to that of the next, in tier `kernels`.
    pub(crate) window_every: Duration,
    /// The exiting thread waits for the last flush no longer than this.
    pub(crate) exit: Duration,
}

/// One option: its variable, what it is without one, and how a value is taken; `None` for a value that it cannot have.
struct Entry {
    name: &'static str,
    default: &'static str,
    take: fn(&mut Options, &str) -> Option<()>,
}

const TABLE: [Entry; 11] = [
    // The daemon's Unix socket. Without one there is nobody to tell, and the agent does nothing.
    Entry {
        name: "PLIMSOLL_SOCKET",
        default: "",
        take: |options, value| set(&mut options.socket, path(value)),
    },
    // off, memory, graph or kernels.
    Entry {
        name: "PLIMSOLL_TRACE",
        default: "memory",
        take: |options, value| set(&mut options.tier, value.parse().ok()?),
    },
    // A CUPTI library, instead of searching for one.
    Entry {
        name: "PLIMSOLL_CUPTI_LIBRARY",
        default: "",
        take: |options, value| set(&mut options.cupti, path(value)),
    },
    // A ratio; 100% and more is no limit.
    Entry {
        name: "PLIMSOLL_BUDGET",
        default: "1%",
        take: |options, value| {
            let ratio = parse_ratio(value).ok().filter(|ratio| *ratio > 0.0)?;
            set(&mut options.budget, (ratio < 1.0).then_some(ratio))
        },
    },
    // How often records are brought in and shipped.
    Entry {
        name: "PLIMSOLL_FLUSH",
        default: "1s",
        take: |options, value| {
            let flush = parse_duration(value).ok()?;
            let bounds = Duration::from_millis(10)..=Duration::from_secs(60);
            set(
                &mut options.flush,
                Some(flush).filter(|flush| bounds.contains(flush))?,
            )
        },
    },
    // Another injected library that CUDA would have loaded without us.
    Entry {
        name: "PLIMSOLL_CHAIN",
        default: "",
        take: |options, value| set(&mut options.chain, path(value)),
    },
    // How much the ring holds while no daemon reads.
    Entry {
        name: "PLIMSOLL_RING",
        default: "4MiB",
        take: |options, value| {
            let bytes = parse_size(value)
                .ok()
                .filter(|bytes| (256 << 10..=32 << 20).contains(bytes))?;
            set(&mut options.ring_bytes, u32::try_from(bytes).ok()?)
        },
    },
    // Whether the calls of virtual memory are observed: that takes CUPTI's one subscription. on, off, or auto, which leaves
    // it to torch.profiler where that may want it.
    Entry {
        name: "PLIMSOLL_VMM",
        default: "auto",
        take: |options, value| {
            let on = match value {
                "auto" => None,
                "on" => Some(true),
                "off" => Some(false),
                _ => return None,
            };
            set(&mut options.virtual_memory, on)
        },
    },
    // How long a window of single kernels is open, and how often one opens by itself in tier kernels.
    Entry {
        name: "PLIMSOLL_WINDOW",
        default: "250ms",
        take: |options, value| set(&mut options.window, parse_duration(value).ok()?),
    },
    Entry {
        name: "PLIMSOLL_WINDOW_EVERY",
        default: "30s",
        take: |options, value| set(&mut options.window_every, parse_duration(value).ok()?),
    },
    // How long the last flush may hold the end of the process up.
    Entry {
        name: "PLIMSOLL_EXIT",
        default: "250ms",
        take: |options, value| set(&mut options.exit, parse_duration(value).ok()?),
    },
];

fn set<T>(place: &mut T, value: T) -> Option<()> {
    *place = value;
    Some(())
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the option")]
fn path(value: &str) -> Option<PathBuf> {
    Some(PathBuf::from(value))
}

impl Options {
    /// Reads the variables through `variable`. What cannot be read is as if it were not there, and is told: nothing that
    /// somebody writes into the environment keeps the engine from starting.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut options = Self {
            socket: None,
            tier: TraceTier::Off,
            cupti: None,
            budget: None,
            flush: Duration::ZERO,
            chain: None,
            ring_bytes: 0,
            virtual_memory: None,
            window: Duration::ZERO,
            window_every: Duration::ZERO,
            exit: Duration::ZERO,
        };
        let mut ignored = Vec::new();
        for Entry { name, default, take } in &TABLE {
            if !default.is_empty() {
                let taken = take(&mut options, default);
                debug_assert!(taken.is_some(), "the default of {name}");
            }
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            if take(&mut options, &value).is_none() {
                ignored.push(format!("{name}={value} has no meaning and is ignored"));
            }
        }
        (options, ignored)
    }

    /// The budget in millionths of the process's time; without a limit all of it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a ratio between 0 and 1, in millionths"
    )]
    pub(crate) fn budget_ppm(&self) -> u32 {
        self.budget
            .map_or(1_000_000, |ratio| (ratio * 1e6).round() as u32)
    }

    /// Whether the calls of virtual memory are observed, once it is settled.
    pub(crate) const fn observes_virtual_memory(&self) -> bool {
        matches!(self.virtual_memory, Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Options, Vec<String>) {
        Options::read(|name| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_it_is_allocations_at_one_percent_each_second_and_nobody_to_tell() {
        let (options, ignored) = read(&[]);
        assert_eq!(options.socket, None);
        assert_eq!(options.tier, TraceTier::Memory);
        assert_eq!(options.budget, Some(0.01));
        assert_eq!(options.flush, Duration::from_secs(1));
        assert_eq!(options.ring_bytes, 4 << 20);
        assert_eq!(options.virtual_memory, None);
        assert!(ignored.is_empty());
    }

    #[test]
    fn values_are_taken() {
        let (options, ignored) = read(&[
            ("PLIMSOLL_SOCKET", "/run/p.sock"),
            ("PLIMSOLL_TRACE", "kernels"),
            ("PLIMSOLL_BUDGET", "0.02"),
            ("PLIMSOLL_FLUSH", "100ms"),
            ("PLIMSOLL_CHAIN", "/opt/other.so"),
            ("PLIMSOLL_VMM", "off"),
            ("PLIMSOLL_CUPTI_LIBRARY", ""),
        ]);
        assert_eq!(options.socket, Some("/run/p.sock".into()));
        assert_eq!(options.tier, TraceTier::Kernels);
        assert_eq!(options.budget, Some(0.02));
        assert_eq!(options.flush, Duration::from_millis(100));
        assert_eq!(options.chain, Some("/opt/other.so".into()));
        assert_eq!(options.virtual_memory, Some(false));
        assert_eq!(options.cupti, None);
        assert!(ignored.is_empty());
    }

    #[test]
    fn a_budget_of_everything_is_no_limit() {
        assert_eq!(read(&[("PLIMSOLL_BUDGET", "100%")]).0.budget, None);
        assert_eq!(read(&[("PLIMSOLL_BUDGET", "1%")]).0.budget, Some(0.01));
        let ppm = |value| read(&[("PLIMSOLL_BUDGET", value)]).0.budget_ppm();
        assert_eq!(["100%", "1%", "0.05%"].map(ppm), [1_000_000, 10_000, 500]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_ignored() {
        let (options, ignored) = read(&[
            ("PLIMSOLL_TRACE", "everything"),
            ("PLIMSOLL_BUDGET", "-1%"),
            ("PLIMSOLL_FLUSH", "1us"),
            ("PLIMSOLL_RING", "1TiB"),
        ]);
        assert_eq!(options, read(&[]).0);
        assert_eq!(ignored.len(), 4);
        assert!(ignored[0].contains("PLIMSOLL_TRACE=everything"), "{ignored:?}");
    }
    #[test]
    fn every_variable_is_documented_with_its_default() {
        let page = include_str!("../../../docs/configuration.md");
        for Entry { name, default, .. } in &TABLE {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` | ")) && line.matches('|').count() == 4);
            let row = row.expect(name);
            assert!(
                default.is_empty() || row.contains(&format!("| `{default}` |")),
                "{row}"
            );
        }
    }
}
