//! Which metric of which engine is which figure. One table; the first name of a figure that a page has counts.

/// What a metric tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Running,
    Waiting,
    KvUsed,
    Preemptions,
    Finished,
    Failed,
    Refused,
    Ttft,
    Tpot,
}

/// How several series of one name (models, ranks) become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Sum,
    Max,
    /// Buckets are added up bound by bound. The name is that of the histogram, without `_bucket`.
    Histogram,
}

impl Figure {
    pub(super) const fn join(self) -> Join {
        match self {
            Self::KvUsed => Join::Max,
            Self::Ttft | Self::Tpot => Join::Histogram,
            Self::Running
            | Self::Waiting
            | Self::Preemptions
            | Self::Finished
            | Self::Failed
            | Self::Refused => Join::Sum,
        }
    }
}

/// A metric that is known: its name, what it tells, and the label that a series must have to be counted.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) figure: Figure,
    pub(super) only: Option<(&'static str, &'static str)>,
}

const fn known(name: &'static str, figure: Figure) -> Known {
    Known {
        name,
        figure,
        only: None,
    }
}

/// vLLM, SGLang, llama-server, and the simulated engine. What an engine does not show stays unknown: llama-server has
/// neither KV use nor histograms. vLLM's older names stand behind the present ones.
pub(super) const KNOWN: &[Known] = &[
    known("vllm:num_requests_running", Figure::Running),
    known("vllm:num_requests_waiting", Figure::Waiting),
    known("vllm:kv_cache_usage_perc", Figure::KvUsed),
    known("vllm:gpu_cache_usage_perc", Figure::KvUsed),
    known("vllm:num_preemptions_total", Figure::Preemptions),
    known("vllm:request_success_total", Figure::Finished),
    Known {
        name: "vllm:request_success_total",
        figure: Figure::Failed,
        only: Some(("finished_reason", "error")),
    },
    known("vllm:admission_rejections_total", Figure::Refused),
    known("vllm:time_to_first_token_seconds", Figure::Ttft),
    known("vllm:request_time_per_output_token_seconds", Figure::Tpot),
    known("vllm:inter_token_latency_seconds", Figure::Tpot),
    known("vllm:time_per_output_token_seconds", Figure::Tpot),
    known("sglang:num_running_reqs", Figure::Running),
    known("sglang:num_queue_reqs", Figure::Waiting),
    known("sglang:token_usage", Figure::KvUsed),
    known("sglang:num_retracted_requests_total", Figure::Preemptions),
    known("sglang:time_to_first_token_seconds", Figure::Ttft),
    known("sglang:inter_token_latency_seconds", Figure::Tpot),
    known("llamacpp:requests_processing", Figure::Running),
    known("llamacpp:requests_deferred", Figure::Waiting),
    known("engine_requests_running", Figure::Running),
    known("engine_requests_waiting", Figure::Waiting),
    known("engine_requests_finished_total", Figure::Finished),
    known("engine_requests_lost_total", Figure::Refused),
    known("engine_time_to_first_token_seconds", Figure::Ttft),
    known("engine_time_per_output_token_seconds", Figure::Tpot),
];
