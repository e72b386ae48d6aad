//! Whether kernels can be timed here: what a child process that tried CUPTI out has told, in words.

use std::time::Duration;

use cupti_sys::Answer;

use super::super::probe::{REMEDY, Told};
use super::Finding;

/// CUPTI starts the driver, which may take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

const SUBJECT: &str = "kernel timing";

/// What came of it, for people.
pub(super) fn findings() -> Vec<Finding> {
    match Told::by_child(PATIENCE) {
        Ok(told) => judge(&told),
        Err(error) => vec![Finding::note(
            SUBJECT,
            format!("CUPTI cannot be tried out: {error}"),
        )],
    }
}

fn judge(told: &Told) -> Vec<Finding> {
    let answer = |call: &str| {
        let number = told.lines.lines().find_map(|line| {
            let (number, name) = line.strip_prefix("answered ")?.split_once(' ')?;
            (name == call).then_some(number)
        });
        number.and_then(|number| number.parse().ok()).map(Answer)
    };
    if let Some(why) = told.last("not-loaded") {
        return vec![
            Finding::note(SUBJECT, why)
                .why("engines that bring their own CUPTI, as those with PyTorch do, are traced all the same"),
        ];
    }
    if let Some(harm) = told.harm() {
        return vec![
            Finding::note(SUBJECT, harm)
                .why("the agent might take an engine with it, so `plimsoll run` does not trace with this release; 13.2 is known to crash where there is no driver")
                .remedy(REMEDY),
        ];
    }
    let path = told.last("loaded").unwrap_or("CUPTI");
    let refused = |call: &str| answer(call).filter(|answer| *answer != Answer::SUCCESS);
    let mut found = Vec::new();
    if let Some((_, newer)) = told.last("passed-over").and_then(|rest| rest.split_once(' ')) {
        found.push(
            Finding::note(
                SUBJECT,
                format!("{newer} is passed over: the driver is older than it"),
            )
            .why("a CUPTI of another release was found behind it"),
        );
    }
    if let Some(answer) = refused("register callbacks").or_else(|| refused("enable CONCURRENT_KERNEL")) {
        let (why, to_do) = meaning(answer);
        let what = format!("{path} refuses records of kernels: {}", word(answer));
        return vec![Finding::note(SUBJECT, what).why(why).remedy(to_do)];
    }
    let version = version(told.last("version"));
    found.push(Finding::ok(
        SUBJECT,
        format!("{path}{version} takes records of kernels"),
    ));
    if let Some(answer) = refused("enable GRAPH_TRACE") {
        let what = format!("whole CUDA graphs cannot be recorded: {}", word(answer));
        found.push(Finding::note(SUBJECT, what).why("CUPTI before 11.8 has no such record; each kernel of a graph is recorded instead, which costs more"));
    }
    if let Some(answer) = refused("enable MEMORY2") {
        found.push(Finding::note(
            "allocations",
            format!("{path} refuses records of memory: {}", word(answer)),
        ));
    }
    if refused("subscribe") == Some(Answer::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED) {
        found.push(
            Finding::note("allocations", "another profiler holds CUPTI's one subscription")
                .why("memory that is taken through the virtual memory calls (expandable segments) is not seen meanwhile"),
        );
    }
    found
}

fn word(answer: Answer) -> String {
    answer.word().map_or_else(
        || format!("result {}", answer.0),
        |word| format!("{} ({})", word.to_lowercase().replace('_', " "), answer.0),
    )
}

/// CUPTI's number; 11.8 to 12.1 all say 18, so it names no release.
fn version(number: Option<&str>) -> String {
    let number = number.and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(number @ 130_000..140_000) => format!(" (13.{})", (number - 130_000) / 100),
        Some(number) => format!(" (API version {number})"),
        None => String::new(),
    }
}

const fn meaning(answer: Answer) -> (&'static str, &'static str) {
    match answer {
        Answer::NOT_INITIALIZED | Answer::UNKNOWN => (
            "there is no driver, or one that is older than this CUPTI",
            "see that nvidia-smi works here; use a CUPTI of the driver's CUDA version or an older one",
        ),
        Answer::INSUFFICIENT_PRIVILEGES => (
            "this user may not profile on this machine",
            "see NVIDIA's page on ERR_NVGPUCTRPERM; plain kernel records need no privilege since CUDA 10.2",
        ),
        Answer::HARDWARE_BUSY | Answer::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => (
            "another profiler uses CUPTI",
            "end it (nsys, ncu, a debugger), then check again",
        ),
        Answer::NOT_SUPPORTED => (
            "this platform or virtual GPU has no such records",
            "trace with the tier memory, or not at all",
        ),
        _ => (
            "no kernel can be timed with it",
            "try another release of CUPTI by PLIMSOLL_CUPTI_LIBRARY",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Grade;

    fn judged(lines: &str, ending: Option<&str>) -> Vec<String> {
        let told = Told {
            lines: lines.to_owned(),
            ending: ending.map(str::to_owned),
        };
        judge(&told).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_way_of_failing_is_told_in_words() {
        let works = judged(
            "loaded /x/libcupti.so.12\nanswered 0 register callbacks\nanswered 0 enable CONCURRENT_KERNEL\nversion 24\n",
            None,
        );
        assert_eq!(
            works,
            ["ok       kernel timing: /x/libcupti.so.12 (API version 24) takes records of kernels\n"]
        );
        let crashed = judged(
            "loaded /x/libcupti.so.13\ntrying version\n",
            Some("signal: 11 (SIGSEGV)"),
        );
        assert!(
            crashed[0].contains("failed in a process of its own") && crashed[0].contains("at: version"),
            "{crashed:?}"
        );
        let old = judged("loaded /x\nanswered 15 register callbacks\n", None);
        assert!(
            old[0].contains("not initialized (15)") && old[0].contains("older than this CUPTI"),
            "{old:?}"
        );
        let absent = judged("not-loaded no such file\n", None);
        assert!(
            absent[0].starts_with("note") && absent[0].contains("no such file"),
            "{absent:?}"
        );
        let older = judged(
            "loaded /new/libcupti.so.13\npassed-over 999 /new/libcupti.so.13\nloaded /old/libcupti.so.12\n\
             answered 0 register callbacks\nanswered 0 enable CONCURRENT_KERNEL\n",
            None,
        );
        assert!(
            older[0].contains("/new/libcupti.so.13 is passed over")
                && older[1].contains("/old/libcupti.so.12 takes"),
            "{older:?}"
        );
        let busy = judged(
            "loaded /x\nanswered 0 enable CONCURRENT_KERNEL\nanswered 39 subscribe\n",
            None,
        );
        assert_eq!(busy.len(), 2, "{busy:?}");
        // A child that said nothing at all.
        assert_eq!(
            judge(&Told {
                lines: String::new(),
                ending: Some("exit status: 1".to_owned())
            })[0]
                .grade,
            Grade::Note
        );
    }
}
