//! The engine's metrics in Prometheus' text format.
//!
//! Times are those of the simulated world. There is no ratio of used KV cache: KV is taken on demand, so there is no
//! pool that it could be a part of.

use std::fmt::{Display, Write};

use crate::memory::Memory;
use crate::model::{Finished, Step};

/// Upper bounds of the buckets for the time to the first token, in seconds.
const FIRST_TOKEN_SECS: [f64; 10] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];
/// Upper bounds of the buckets for the time from token to token, in seconds.
const PER_TOKEN_SECS: [f64; 9] = [0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5];

/// What was counted in this life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    finished: u64,
    lost: u64,
    prompt_tokens: f64,
    generated_tokens: f64,
    first_token: Histogram<10>,
    per_token: Histogram<9>,
}

impl Counts {
    /// Adds what one step did.
    pub(crate) fn add(&mut self, step: &Step) {
        self.finished += step.finished.len() as u64;
        self.lost += step.lost.len() as u64;
        self.prompt_tokens += step.prompt_tokens;
        self.generated_tokens += step.generated_tokens;
        for Finished {
            first_token_secs,
            per_token_secs,
            ..
        } in &step.finished
        {
            self.first_token.observe(&FIRST_TOKEN_SECS, *first_token_secs);
            if let Some(secs) = per_token_secs {
                self.per_token.observe(&PER_TOKEN_SECS, *secs);
            }
        }
    }

    /// Adds requests that were lost outside of a step.
    pub(crate) fn add_lost(&mut self, requests: usize) {
        self.lost += requests as u64;
    }
}

#[derive(Clone, Debug)]
struct Histogram<const BUCKETS: usize> {
    counts: [u64; BUCKETS],
    count: u64,
    sum: f64,
}

impl<const BUCKETS: usize> Default for Histogram<BUCKETS> {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            count: 0,
            sum: 0.0,
        }
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    fn observe(&mut self, bounds: &[f64; BUCKETS], value: f64) {
        self.count += 1;
        self.sum += value;
        for (count, _) in self
            .counts
            .iter_mut()
            .zip(bounds)
            .filter(|(_, bound)| value <= **bound)
        {
            *count += 1;
        }
    }
}

/// The engine at one moment, for the metrics that are not counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    pub(crate) model: &'a str,
    pub(crate) ready: bool,
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv_tokens: f64,
    pub(crate) memory: &'a Memory,
    pub(crate) reloads: u64,
    pub(crate) reloads_failed: u64,
    pub(crate) restarts: u32,
}

/// The whole page.
pub(crate) fn page(counts: &Counts, now: &Now<'_>) -> String {
    let mut page = Page {
        text: String::new(),
        model: now.model,
    };
    page.gauge("model_ready", "Whether the model answers", u8::from(now.ready));
    page.gauge("requests_running", "Requests that run", now.running);
    page.gauge("requests_waiting", "Requests that wait", now.waiting);
    page.counter(
        "requests_finished_total",
        "Requests answered in full",
        counts.finished,
    );
    page.counter(
        "requests_lost_total",
        "Requests turned away or dropped",
        counts.lost,
    );
    page.counter(
        "prompt_tokens_total",
        "Prompt tokens read",
        counts.prompt_tokens.round(),
    );
    page.counter(
        "generated_tokens_total",
        "Tokens of answers written",
        counts.generated_tokens.round(),
    );
    page.gauge("kv_tokens", "Tokens in the KV cache", now.kv_tokens.round());
    page.memory(now.memory);
    page.counter(
        "restarts_total",
        "Lives of the engine under this load before this one",
        now.restarts,
    );
    page.counter("reloads_total", "Reloads done", now.reloads);
    page.counter(
        "reloads_failed_total",
        "Reloads refused because of the configuration",
        now.reloads_failed,
    );
    page.histogram(
        "time_to_first_token_seconds",
        "From a request's arrival to its first token",
        &FIRST_TOKEN_SECS,
        &counts.first_token,
    );
    page.histogram(
        "time_per_output_token_seconds",
        "Mean time from token to token of a request",
        &PER_TOKEN_SECS,
        &counts.per_token,
    );
    page.text
}

struct Page<'a> {
    text: String,
    model: &'a str,
}

impl Page<'_> {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!(
            "# HELP engine_{name} {help}.\n# TYPE engine_{name} {kind}"
        ));
    }

    fn value(&mut self, name: &str, label: &str, value: impl Display) {
        let model = self
            .model
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        self.line(format_args!("engine_{name}{{model=\"{model}\"{label}}} {value}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.value(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.value(name, "", value);
    }

    fn memory(&mut self, memory: &Memory) {
        self.head("memory_bytes", "Memory on the card by kind", "gauge");
        let parts = [
            ("context", memory.context_bytes),
            ("weights", memory.weights_bytes),
            ("kv", memory.kv_bytes),
            ("activations", memory.activation_bytes),
            ("leaked", memory.leaked_bytes),
            ("allocator_slack", memory.allocator_slack_bytes),
        ];
        for (kind, bytes) in parts {
            self.value("memory_bytes", &format!(",kind=\"{kind}\""), bytes);
        }
    }

    fn histogram<const BUCKETS: usize>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64; BUCKETS],
        histogram: &Histogram<BUCKETS>,
    ) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in bounds.iter().zip(histogram.counts) {
            self.value(&bucket, &format!(",le=\"{bound}\""), count);
        }
        self.value(&bucket, ",le=\"+Inf\"", histogram.count);
        self.value(&format!("{name}_sum"), "", histogram.sum);
        self.value(&format!("{name}_count"), "", histogram.count);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").unwrap_or_else(|_| unreachable!("a String takes every text"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Request;

    #[test]
    fn the_page_is_prometheus_text() {
        let request = Request {
            probe: None,
            arrived_secs: 0.0,
            input_tokens: 5,
            output_tokens: 9,
        };
        let finished = |first_token_secs, per_token_secs| Finished {
            request,
            first_token_secs,
            per_token_secs,
        };
        let step = Step {
            finished: vec![finished(0.3, Some(0.025)), finished(70.0, None)],
            lost: vec![request],
            prompt_tokens: 10.0,
            generated_tokens: 17.6,
            ..Step::default()
        };
        let mut counts = Counts::default();
        counts.add(&step);
        counts.add_lost(2);
        let memory = Memory {
            weights_bytes: 16_000_000_000,
            kv_bytes: 131_072,
            ..Memory::default()
        };
        let now = Now {
            model: "the \"big\" one",
            ready: true,
            running: 2,
            waiting: 1,
            kv_tokens: 12.4,
            memory: &memory,
            reloads: 1,
            reloads_failed: 0,
            restarts: 3,
        };
        insta::assert_snapshot!(page(&counts, &now));
    }
}
