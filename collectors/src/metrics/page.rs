//! One page of metrics: what it says under the names that are known, and under those that rules name.

use std::sync::Arc;

use plimsoll_trace::{EngineFigures, Histogram, Stamp};

use super::names::{Figure, Join, KNOWN};
use super::text::{MetricName, Series, series};

/// More buckets of one histogram are not believed.
const MOST_BUCKETS: usize = 512;

/// Reads a page.
pub(super) fn figures(page: &str, at: Stamp) -> EngineFigures {
    let mut found: Vec<Found> = KNOWN.iter().map(|_| Found::default()).collect();
    for series in series(page) {
        for (known, found) in KNOWN.iter().zip(&mut found) {
            let counts = known
                .only
                .is_none_or(|(label, value)| series.label(label) == Some(value));
            if counts {
                found.take(known.name, known.figure.join(), &series);
            }
        }
    }
    let value = |figure: Figure| first(&found, figure).and_then(|found| found.value);
    let histogram = |figure: Figure| {
        let found = first(&found, figure)?;
        Histogram::new(found.buckets.clone())
    };
    EngineFigures {
        at,
        running: value(Figure::Running),
        waiting: value(Figure::Waiting),
        kv_used_ratio: value(Figure::KvUsed),
        preemptions: value(Figure::Preemptions),
        finished: value(Figure::Finished),
        failed: value(Figure::Failed),
        refused: value(Figure::Refused),
        ttft: histogram(Figure::Ttft),
        tpot: histogram(Figure::Tpot),
    }
}

/// The values of the series that rules name, where the page has any.
pub(super) fn named(page: &str, names: &[(Arc<str>, MetricName)]) -> Vec<(Arc<str>, f64)> {
    if names.is_empty() {
        return Vec::new();
    }
    let mut sums: Vec<Option<f64>> = vec![None; names.len()];
    for series in series(page).filter(|series| series.value.is_finite()) {
        for ((_, name), sum) in names.iter().zip(&mut sums) {
            if name.matches(&series) {
                *sum = Some(sum.unwrap_or(0.0) + series.value);
            }
        }
    }
    let sums = names.iter().zip(sums);
    sums.filter_map(|((signal, _), sum)| Some((Arc::clone(signal), sum?)))
        .collect()
}

/// What a page has under one name.
#[derive(Default)]
struct Found {
    value: Option<f64>,
    buckets: Vec<(f64, f64)>,
}

impl Found {
    fn take(&mut self, name: &str, join: Join, series: &Series<'_>) {
        let value = series.value;
        match join {
            Join::Histogram => {
                if series.name.strip_prefix(name) == Some("_bucket")
                    && let Some(bound) = series.label("le").and_then(|bound| bound.parse::<f64>().ok())
                    && !bound.is_nan()
                    && value.is_finite()
                {
                    let room = self.buckets.len() < MOST_BUCKETS;
                    let mut known = self.buckets.iter_mut();
                    if let Some((_, count)) = known.find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                        *count += value;
                    } else if room {
                        self.buckets.push((bound, value));
                    }
                }
            }
            Join::Sum | Join::Max if series.name != name || !value.is_finite() || value < 0.0 => {}
            Join::Sum => self.value = Some(self.value.unwrap_or(0.0) + value),
            Join::Max => self.value = Some(self.value.map_or(value, |most| most.max(value))),
        }
    }

    fn is_empty(&self) -> bool {
        self.value.is_none() && self.buckets.is_empty()
    }
}

fn first(found: &[Found], figure: Figure) -> Option<&Found> {
    let mut all = KNOWN.iter().zip(found);
    all.find(|(known, found)| known.figure == figure && !found.is_empty())
        .map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VLLM: &str = "\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0
vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 4.0
vllm:num_requests_waiting{engine=\"0\"} 0.0
vllm:kv_cache_usage_perc{engine=\"0\"} 0.5
vllm:kv_cache_usage_perc{engine=\"1\"} 0.75
vllm:num_preemptions_total{engine=\"0\"} 12.0
vllm:num_preemptions_created{engine=\"0\"} 1.7e9
vllm:request_success_total{finished_reason=\"stop\"} 40.0
vllm:request_success_total{finished_reason=\"error\"} 2.0
vllm:time_to_first_token_seconds_bucket{le=\"0.1\"} 10.0
vllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} 42.0
vllm:inter_token_latency_seconds_bucket{le=\"0.1\"} 1.0
vllm:request_time_per_output_token_seconds_bucket{le=\"0.1\"} 2.0
";

    #[test]
    fn a_page_of_vllm() {
        let figures = figures(VLLM, Stamp::at_secs(1));
        assert_eq!((figures.running, figures.waiting), (Some(7.0), Some(0.0)));
        assert_eq!(
            (figures.kv_used_ratio, figures.preemptions),
            (Some(0.75), Some(12.0))
        );
        assert_eq!(
            (figures.finished, figures.failed, figures.refused),
            (Some(42.0), Some(2.0), None)
        );
        assert_eq!(figures.ttft.map(|ttft| ttft.count()), Some(42.0));
        assert_eq!(
            figures.tpot.map(|tpot| tpot.count()),
            Some(2.0),
            "the first of the names that it has"
        );
    }

    #[test]
    fn what_a_page_does_not_have_is_unknown() {
        let page = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:prompt_tokens_seconds 5\n";
        let known = EngineFigures {
            at: Stamp::at_secs(1),
            running: Some(2.0),
            waiting: Some(1.0),
            ..EngineFigures::default()
        };
        assert_eq!(figures(page, Stamp::at_secs(1)), known);
        let nothing = figures("<html>404</html>", Stamp::at_secs(1));
        assert_eq!(
            nothing,
            EngineFigures {
                at: Stamp::at_secs(1),
                ..EngineFigures::default()
            }
        );
    }

    #[test]
    fn what_rules_name_is_added_up() {
        let name = |text: &str| (Arc::from(format!("metric:{text}")), text.parse().expect("a name"));
        let names = [
            name("vllm:num_requests_running{model_name=\"m\"}"),
            name("no_such"),
        ];
        let found = named(VLLM, &names);
        assert_eq!(found, [(Arc::clone(&names[0].0), 7.0)]);
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(values in prop::collection::vec(any::<f64>(), 0..12), bounds in prop::collection::vec(any::<f64>(), 0..12)) {
            let mut page = String::new();
            for value in &values {
                page += &format!("vllm:kv_cache_usage_perc {value}\nvllm:num_requests_running {value}\n");
            }
            for (bound, value) in bounds.iter().zip(&values) {
                page += &format!("vllm:time_to_first_token_seconds_bucket{{le=\"{bound}\"}} {value}\n");
            }
            let figures = figures(&page, Stamp::at_secs(1));
            let known = [figures.running, figures.kv_used_ratio];
            prop_assert!(known.into_iter().flatten().all(|value| value >= 0.0 && !value.is_nan()));
            if let Some(ttft) = figures.ttft {
                prop_assert!(ttft.quantile(0.95).is_none_or(|value| !value.is_nan()));
            }
        }
    }
}
