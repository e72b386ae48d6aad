//! On what machine the figures were taken, and how busy it was.

use std::fs;
use std::process::Command;

/// The processor, its cores, the kernel, the compiler, and the load.
pub(crate) fn describe() -> String {
    let cores =
        std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |cores| cores.to_string());
    let compiler = Command::new("rustc").arg("--version").output().ok();
    let compiler = compiler
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}, {}; {}",
        processor().unwrap_or_else(|| "unknown processor".to_owned()),
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim(),
        compiler.trim(),
        load()
    )
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(model.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// The load averages of the last 1, 5 and 15 minutes. Above the number of cores, times on the wall mean little.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = text.split_whitespace().take(3).collect();
    format!("load average {}", averages.join(" "))
}
