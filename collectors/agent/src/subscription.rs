//! Who gets CUPTI's one subscription in a process. The agent needs it for the calls of virtual memory; whoever asks second
//! is refused. torch.profiler asks once, when it is first used: refused then, it sees no GPU work until the process ends,
//! and says so in a line of its log at most. The agent always comes first, so it has to leave the subscription alone where
//! PyTorch may want it, unless PyTorch's own memory is virtual.

/// Loaded wherever torch.profiler is.
const PYTORCH: &str = "/libtorch_cpu.so";
/// Where PyTorch's allocator is told to use virtual memory, by its old and its new name.
const ALLOCATOR: [&str; 2] = ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"];
const EXPANDABLE: &str = "expandable_segments:true";

/// Why the subscription is left to others, if it is. `maps` is /proc/self/maps; an injected library that is started after
/// the agent is a profiler too (`chains`).
pub(crate) fn is_left(
    maps: &str,
    chains: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    if chains {
        return Some(
            "virtual memory is not observed: CUPTI's one subscription is left to the library of PLIMSOLL_CHAIN \
             (PLIMSOLL_VMM=on takes it)",
        );
    }
    let is_virtual = ALLOCATOR
        .iter()
        .filter_map(|name| variable(name))
        .any(|value| value.replace(' ', "").to_lowercase().contains(EXPANDABLE));
    let has_pytorch = maps.lines().any(|line| line.trim_end().ends_with(PYTORCH));
    (has_pytorch && !is_virtual).then_some(
        "virtual memory is not observed: CUPTI's one subscription is left to torch.profiler (PLIMSOLL_VMM=on takes it)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_left_to_pytorch_unless_its_memory_is_virtual() {
        let nothing = |_: &str| None;
        let torch = "7f0 r-xp 00000000 08:01 1 /usr/lib/libc.so.6\n\
                     7f1 r--p 00000000 08:01 2 /venv/torch/lib/libtorch_cpu.so\n";
        let none = "7f0 r-xp 00000000 08:01 1 /usr/lib/libc.so.6\n";
        assert!(is_left(torch, false, nothing).is_some());
        assert!(is_left(none, false, nothing).is_none());
        assert!(is_left(none, true, nothing).is_some());
        for (name, value, is_left_then) in [
            (
                "PYTORCH_CUDA_ALLOC_CONF",
                "max_split_size_mb:64, expandable_segments: True",
                false,
            ),
            ("PYTORCH_ALLOC_CONF", "expandable_segments:True", false),
            ("PYTORCH_ALLOC_CONF", "expandable_segments:False", true),
        ] {
            let variable = |asked: &str| (asked == name).then(|| value.to_owned());
            assert_eq!(is_left(torch, false, variable).is_some(), is_left_then, "{value}");
        }
    }
}
